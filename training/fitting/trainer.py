"""One optimiser step after another."""

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from cortex.decoder_module import DecoderModule
from cortex.errors import InputError
from cortex.model import Model
from training.fitting.bfloat16 import in_bfloat16
from training.fitting.fit_config import FitConfig
from training.fitting.initialise import UNIT_EMBEDDING
from training.fitting.objective import Objective, Share
from training.fitting.processes import Processes, shard
from training.fitting.weight_average import WeightAverage
from training.samples.augmentation import augment
from training.samples.masked_spikes import hide_counts
from training.samples.trial_tensors import TrialBatch, TrialTensors
from training.samples.unit_mixing import mix_units


class Trainer:
    """Fits a model to trials.

    Every random choice of a step follows from the seed and the step's number alone, and is made
    for the whole batch before a process takes its part; only dropout is each process's own. So a
    run resumes exactly, and without dropout any number of processes computes the same loss.
    """

    def __init__(
        self,
        model: DecoderModule,
        trials: TrialTensors,
        config: FitConfig,
        processes: Processes | None = None,
    ) -> None:
        """Takes the model over: its output's scale, and which of its parameters learn.

        Raises:
            InputError: no parameter has a name that is to learn, or a batch has fewer trials than
                there are processes.
        """
        self.config = config
        self.model = model
        self.done = 0
        self.rate = 0.0
        self._trials = trials
        self._processes = processes or Processes(device=trials.device)
        if config.batch_trials < self._processes.count:
            raise InputError(
                f"training: batch_trials is {config.batch_trials}, expected at least one for each "
                f"of {self._processes.count} processes"
            )
        if not config.keep_scale:
            mean, scale = trials.label_moments()
            model.velocity_mean.copy_(mean)
            model.velocity_scale.copy_(scale)
        _choose_parameters(model, config.train_only)
        model.train()
        if config.compile_blocks:
            for block in getattr(model, "blocks", ()):
                block.compile()
        self.objective = Objective(model, config)
        self.sharded = shard(self.objective, self._processes, config.precision)
        lowers = config.precision == "bf16" and not self.sharded
        self._forward = in_bfloat16(self.objective) if lowers else self.objective
        on_gpu = trials.device.type == "cuda"
        # A tensor on a GPU, so that a captured step reads the present rate.
        rate = torch.zeros((), device=trials.device) if on_gpu else 0.0
        self.optimizer = torch.optim.AdamW(
            _groups(self.objective, config),
            lr=rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=on_gpu,
            capturable=on_gpu,
        )
        self.average = WeightAverage(self.objective, config.average_decay)
        self.generator = torch.Generator(device=trials.device)
        self._order_SB = _order(len(trials), config).to(trials.device)
        self._index_B = torch.zeros_like(self._order_SB[0])

    def step(self) -> Tensor:
        """One step; returns this process's share of the loss, still on its device."""
        self.prepare()
        loss = self.compute()
        self.done += 1
        return loss

    def join(self) -> None:
        """Nothing to wait for: the steps ran on the current stream."""

    def prepare(self) -> None:
        """Sets the rate, the randomness and the trials of the next step."""
        config = self.config
        self._set_rate(learning_rate(config, self.done))
        seed = (config.seed << 24) + 2 * self.done
        self.generator.manual_seed(seed)
        torch.manual_seed(seed + 1 + (self._processes.rank << 48))
        self._index_B.copy_(self._order_SB[self.done])

    def batch(self) -> TrialBatch:
        """The whole batch of the step that `prepare` set, before anything is taken away."""
        trials, index_B, generator = self._trials, self._index_B, self.generator

        def uniform_B() -> Tensor:
            return torch.rand(len(index_B), generator=generator, device=trials.device)

        start_B = trials.random_starts(index_B, uniform_B())
        batch = trials.batch(index_B, start_B)
        mixing = self.config.augmentation.unit_mixing
        if not mixing:
            return batch
        mates = trials.batch(trials.random_mates(index_B, uniform_B()), start_B)
        return mix_units(
            batch,
            mates,
            largest_share=mixing,
            n_units=self.model.shape.n_units,
            generator=generator,
        )

    def compute(self) -> Tensor:
        """Forward, backward and update with what `prepare` set."""
        loss = self._loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.average.update()
        return loss.detach()

    def whole_loss(self, share: Tensor) -> float:
        """The batch's loss, from every process's share of it."""
        if self._processes.count > 1:
            dist.all_reduce(share)
        return float(share) / self._processes.count

    def agreed(self, value: float) -> float:
        """The first process's value, on all of them."""
        if self._processes.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has its averaged weights."""
        return self.average.applied()

    def weights(self) -> dict[str, Any]:
        """The model's present weights and buffers, whole and on the CPU, on the first process."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.objective, options=options)
        # Copies: what is whole and on the CPU already comes as it is, and changes with the model.
        return {n.removeprefix("model."): t.clone() for n, t in state.items()}  # type: ignore[union-attr]

    def _loss(self) -> Tensor:
        config, generator = self.config, self.generator
        batch = self.batch()
        n_units = self.model.shape.n_units
        batch = augment(batch, config.augmentation, n_units, generator)
        count = self._processes.count
        share = Share(
            labels=batch.labelled_BSP.sum().clamp_min(1) / count,
            steps=batch.inside_BS.sum() / count,
        )
        hidden = None
        if config.masked_weight > 0 and isinstance(self.model, Model):
            hidden = hide_counts(
                batch.events,
                units_B2=batch.units_B2,
                per_step=config.masked_per_step,
                generator=generator,
            )
        mine = slice(self._processes.rank, None, count)
        loss: Tensor = self._forward(
            batch.rows(mine), None if hidden is None else hidden.rows(mine), share
        )
        return loss

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def _choose_parameters(model: DecoderModule, train_only: tuple[str, ...]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not train_only or name.startswith(train_only))
        # An earlier fit's gradient, which would count in the norm.
        parameter.grad = None
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(
            f"training: no parameter's name begins with one of {', '.join(train_only)}"
        )


def _groups(objective: Objective, config: FitConfig) -> list[dict[str, Any]]:
    """Parameters that learn, the unit embeddings apart.

    Adam takes steps of one size however small the gradient is, so that a unit that fired twice
    moves as far as one that always fires. With a larger epsilon it moves by as much as it knows.
    """
    # The optimiser never sees the others, so that weight decay leaves them alone too.
    named = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    units = [p for name, p in named if name.endswith(UNIT_EMBEDDING)]
    others = [p for name, p in named if not name.endswith(UNIT_EMBEDDING)]
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": units, "eps": config.embedding_eps},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(config: FitConfig, done: int) -> float:
    """Rate of the step after `done` steps: linear warm-up, then half a cosine to zero."""
    warmup = max(round(config.steps * config.warmup_share), 1)
    if done < warmup:
        return config.learning_rate * (done + 1) / warmup
    progress = (done - warmup) / max(config.steps - warmup, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _order(n_trials: int, config: FitConfig) -> Tensor:
    """(steps, B) the trials of every step: each epoch is one permutation of all."""
    rng = np.random.default_rng(config.seed)
    n_seen = config.steps * config.batch_trials
    epochs = [rng.permutation(n_trials) for _ in range(-(-n_seen // n_trials))]
    return torch.from_numpy(np.concatenate(epochs)[:n_seen].reshape(config.steps, -1))
