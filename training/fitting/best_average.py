"""The averaged weights at their best look at the validation trials."""

from collections.abc import Callable

import torch

from training.evaluation.sample_decoding import Decode
from training.fitting.trainer import Trainer

Validate = Callable[[Decode], float]


class BestAverage:
    """Early stopping: looks now and then, keeps the best, and says when to stop.

    Attributes:
        scores: by step, of the averaged weights.
        weights: the average at its best; the latest one as long as nothing was looked at.
    """

    def __init__(self, trainer: Trainer, validate: Validate | None) -> None:
        """Keeps the trainer's averages, scored by `validate` where there is one."""
        self.scores: dict[int, float] = {}
        average = trainer.average.weights
        self.weights = {k: w.clone() for k, w in average.items()} if validate else average
        self._trainer = trainer
        self._validate = validate

    def due(self) -> bool:
        """Whether the trainer's last step is one to look after."""
        config, done = self._trainer.config, self._trainer.done
        return self._validate is not None and (
            done % config.validate_every == 0 or done == config.steps
        )

    def look(self) -> float:
        """Scores the average, and keeps it if it is the best so far."""
        assert self._validate
        trainer = self._trainer
        with trainer.average.applied():
            trainer.objective.eval()
            # Of one mind, lest a last bit's difference stop one process before another.
            score = trainer.agreed(self._validate(trainer.objective.decode))
            trainer.objective.train()
        if not self.scores or score > max(self.scores.values()):
            with torch.no_grad():
                for name, weight in trainer.average.weights.items():
                    self.weights[name].copy_(weight)
        self.scores[trainer.done] = score
        return score

    @property
    def best_step(self) -> int:
        """The step whose average is kept."""
        if not self.scores:
            return self._trainer.done
        return max(self.scores, key=lambda step: self.scores[step])

    @property
    def stale(self) -> bool:
        """Whether the last looks, as many as the patience, brought nothing."""
        scores, patience = list(self.scores.values()), self._trainer.config.patience
        return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
