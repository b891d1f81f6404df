"""The real server around a real decoder: what it answers is what the decoder says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cortex.checkpoint import Checkpoint, save_checkpoint
from cortex.decoder import Decoder
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.quantization import Quantization
from cortex.quantized_model import quantized
from cortex.time_grid import TimeGrid
from serving.client.client import Client
from serving.http.server_fixture import ServerProcess, running

GRID = TimeGrid(window_steps=5)
FLAGS = "--port=0", "--notice_s=0", "--max_batch=4", "--deadline_ms=5000"


@pytest.fixture(scope="module", params=["float", "int8"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID))
    if request.param == "int8":
        model = quantized(model, Quantization())
    folder = tmp_path_factory.mktemp("model") / "nano"
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=tuple("abcdef"), velocity_unit="mm/s"
    )
    save_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[Client]:
    server = running("serving.server", f"--model={directory}", *FLAGS)
    with server as process, Client(process.url) as each:
        yield each


def test_it_answers_what_the_decoder_says(directory: Path, client: Client) -> None:
    decoder = Decoder.load(directory)
    window = Events.from_counts(np.random.default_rng(0).poisson(0.3, (GRID.window_bins, 6)))
    expected = decoder.decode([window])[0]
    answer = client.decode(window)
    np.testing.assert_allclose(answer.velocity, expected, rtol=1e-4, atol=1e-5)
    assert answer.model == decoder.digest
    assert client.model().unit_ids == list("abcdef")

    with client.stream() as stream:
        for step in range(GRID.window_steps):
            part = window.between(4 * step, 4 * step + 4).shifted(-4 * step)
            last = stream.step(part)
    assert last.context_steps == GRID.window_steps
    # A sum in another order may round to the next integer where layers are in int8.
    slack = 1e-5 if decoder.checkpoint.model.quantization is None else 1e-2
    np.testing.assert_allclose(last.velocity, expected, rtol=1e-4, atol=slack)


def test_no_directory_ends_with_2_and_one_line(tmp_path: Path) -> None:
    server = ServerProcess("serving.server", [f"--model={tmp_path / 'none'}", *FLAGS])
    code, stderr = server.finish()
    assert code == 2
    assert "is not a directory" in stderr and stderr.count("\n") == 1


def test_weights_that_do_not_load_end_with_2(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    code, stderr = ServerProcess("serving.server", [f"--model={tmp_path}", *FLAGS]).finish()
    assert code == 2 and "model.safetensors" in stderr
