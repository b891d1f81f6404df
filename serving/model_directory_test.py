"""Errors of the device are told apart by what they cost."""

from pathlib import Path

import pytest
import torch

from serving.engine.errors import ModelError
from serving.engine.faults import Faults
from serving.model_directory import ModelDirectory


@pytest.fixture
def faults() -> Faults:
    return ModelDirectory(path=Path("model"), device="cpu", max_streams=1).faults()


def test_a_device_assert_is_fatal(faults: Faults) -> None:
    with pytest.raises(torch.AcceleratorError):
        faults.of_batch(torch.AcceleratorError("device-side assert triggered"))


def test_want_of_memory_costs_one_batch_and_the_cache(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    failed = faults.of_batch(torch.OutOfMemoryError("tried to allocate 2 GiB"))
    assert isinstance(failed, ModelError) and "tried to allocate" in str(failed)
    assert emptied == [True]
    faults.of_batch(ValueError("something else"))
    assert emptied == [True]
