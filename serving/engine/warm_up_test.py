"""A model that does not answer as it should is found out before it serves."""

import itertools

import numpy as np
import pytest

from cortex.ragged_events import RaggedEvents
from serving.engine.errors import ModelError
from serving.engine.fake_model import FakeModel, FakePending
from serving.engine.jobs import Kind
from serving.engine.model import IntArray
from serving.engine.service_time import ServiceTime
from serving.engine.warm_up import warm_up


def warmed_up(model: FakeModel) -> ServiceTime:
    ticks = itertools.count()
    return warm_up(model, max_batch=4, max_step_batch=9, clock=lambda: next(ticks) * 0.125)


def test_every_batch_is_rehearsed_and_timed() -> None:
    model = FakeModel(slots=3)
    times = warmed_up(model)
    # Four windows and three steps are the most at once.
    assert {1, 3, 4} <= set(model.batches) and max(model.batches) == 4
    for kind, rows, events in ((Kind.WINDOW, 1, 8), (Kind.WINDOW, 4, 8), (Kind.STEP, 3, 2)):
        assert times.estimate(kind, rows, events, 0.0) == 0.125


class NotFinite(FakeModel):
    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> FakePending:
        super().launch_steps(slot_B, events).wait()
        return FakePending(self, np.full((len(events), 2), np.nan, np.float32))


class ForgetsItsStreams(FakeModel):
    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> FakePending:
        self._total_S2[slot_B] = 0
        return super().launch_steps(slot_B, events)


class MixesItsStreams(FakeModel):
    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> FakePending:
        if len(slot_B) > 1:
            self._total_S2[slot_B] += 1
        return super().launch_steps(slot_B, events)


class AnswersTooLittle(FakeModel):
    def launch_windows(self, events: RaggedEvents) -> FakePending:
        return super().launch_windows(events.take(np.arange(1)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (NotFinite(), "a batch of 1 gave velocities that are not finite"),
        (ForgetsItsStreams(), "a stream among 1 is answered"),
        (MixesItsStreams(), "a stream among 4 is answered"),
        (AnswersTooLittle(), "answered 4 requests with an array of shape"),
        (FakeModel(slots=0), "0 stream slots"),
    ],
)
def test_a_wrong_answer_is_found(model: FakeModel, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        warmed_up(model)
