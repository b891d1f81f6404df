"""Training's progress on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from training.fitting.fit import OnReport
from training.fitting.train_config import TrainConfig


@contextmanager
def progress_bar(config: TrainConfig, *, shown: bool = True) -> Iterator[OnReport]:
    """A bar over the optimiser's steps; yields what `train_decoder` takes as on_report.

    Args:
        config: what is trained.
        shown: False on all but one of several processes.
    """
    figures: dict[str, str] = {}
    with tqdm(
        total=config.fit.steps, desc=f"train {config.size}", unit="step", disable=not shown
    ) as bar:

        def on_report(step: int, values: dict[str, float]) -> None:
            figures.update({name: f"{value:.3g}" for name, value in values.items()})
            bar.set_postfix(figures, refresh=False)
            bar.update(step - bar.n)

        yield on_report
