"""Two processes against one, in both precisions."""

from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from training.fitting.fit_config import FitConfig
from training.fitting.processes import Processes, joined
from training.fitting.trainer import Trainer
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def _train(precision: Precision, processes: Processes) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of a few steps, and the averaged weights after them."""
    session = make_session(12)
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=12, grid=session.grid))
    trials = TrialTensors(
        trial_samples(session, range(12)), bins_per_step=4, crop_steps=192, device="cpu"
    )
    # An odd batch: the processes' parts differ in size.
    config = FitConfig(steps=8, batch_trials=5, precision=precision)
    trainer = Trainer(model, trials, config, processes)
    losses = [trainer.whole_loss(trainer.step()) for _ in range(config.steps)]
    with trainer.averaged():
        return losses, trainer.weights()


def _one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    for precision in PRECISIONS:
        result = _train(precision, Processes(rank=rank, count=2))
        if rank == 0:
            torch.save(result, folder / precision)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes computed."""
    folder = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        spawn(_one_of_two, (folder,), nprocs=2)
    return folder


# bfloat16 has three decimal digits, and the order of a gradient's sum decides on the last.
@pytest.mark.parametrize(("precision", "rel", "atol"), [("fp32", 1e-5, 1e-5), ("bf16", 0.02, 2e-3)])
def test_two_processes_compute_what_one_does(
    together: Path, precision: Precision, rel: float, atol: float
) -> None:
    losses, weights = torch.load(together / precision)
    alone, its_weights = _train(precision, Processes())
    assert losses == pytest.approx(alone, rel=rel)
    assert weights.keys() == its_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, its_weights[name], rtol=0, atol=atol, msg=name)


def test_standing_alone_needs_nobody() -> None:
    with joined("cpu") as processes:
        assert processes.first
        assert not dist.is_initialized()


def test_each_process_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(InputError, match="device 'cuda:99' is not there"), joined("cuda"):
        pass


def test_each_process_needs_a_trial() -> None:
    with pytest.raises(InputError, match="batch_trials is 5, expected at least one for each of 6"):
        _train("fp32", Processes(count=6))
