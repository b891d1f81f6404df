"""Training's progress on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from training.train_decoder import TrainConfig


@contextmanager
def progress_bar(config: TrainConfig) -> Iterator[Callable[[int, float], None]]:
    """A bar over the optimiser's steps; yields what `train_decoder` takes as on_step."""
    with tqdm(total=config.fit.steps, desc=f"train {config.size}", unit="step") as bar:

        def on_step(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        yield on_step
