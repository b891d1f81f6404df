"""Whatever is done to streams, each answers what the offline forward of it alone does."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.checkpoint import Checkpoint
from cortex.decoder import Decoder
from cortex.event_batch import collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid
from serving.engine.answers import Answer, Flag
from serving.engine.errors import BusyError
from serving.engine.jobs import FramesJob
from serving.engine.pipeline_driver import PipelineDriver
from serving.engine.settings import EngineSettings

GRID = TimeGrid(window_steps=4)
UNITS = 6
SLOTS = 3


def decoder(seed: int) -> Decoder:
    torch.manual_seed(seed)
    model = Model(ModelConfig.of_size("nano", n_units=UNITS, grid=GRID))
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=tuple("abcdef"), velocity_unit="mm/s"
    )
    return Decoder(checkpoint, max_streams=SLOTS)


DECODER = decoder(0)
# The window of the last bin of each step.
LAST_BIN = torch.tensor([GRID.bins_per_step - 1])


@torch.inference_mode()
def offline(steps: list[Events]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(steps, 2) velocities of a session that begins with the first of the steps."""
    bins = GRID.bins_per_step
    shifted = [step.shifted(number * bins) for number, step in enumerate(steps)]
    session = Events(
        unit=np.concatenate([step.unit for step in shifted]),
        time_bin=np.concatenate([step.time_bin for step in shifted]),
        value=np.concatenate([step.value for step in shifted]),
    )
    batch = collate([session], n_steps=len(steps), bins_per_step=bins)
    velocity: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    velocity = DECODER.model(batch, LAST_BIN)[0, :, 0].numpy()
    return velocity


@dataclass
class Twin:
    """What a stream should have come to.

    Attributes:
        next_step: the step it expects.
        steps: its steps since it last began, empty where they were missing.
        last: the number and the answer of its last answered step.
        last_sent: the number of the step sent last.
        sent: steps that were sent: their jobs, rows, numbers and events.
    """

    next_step: int = 0
    steps: list[Events] = field(default_factory=list)
    last: tuple[int, Answer] | None = None
    last_sent: int = -1
    sent: list[tuple[FramesJob, int, int, Events]] = field(default_factory=list)

    def check(self, step: int, events: Events, outcome: Answer | Exception) -> None:
        """Compares the outcome of a step with what is right, and goes on from there."""
        if isinstance(outcome, BusyError):
            return  # Evicted, and no slot to begin again in.
        if self.last is not None and step == self.last[0]:
            assert isinstance(outcome, Answer) and Flag.DUPLICATE in outcome.flags
            assert outcome.velocity == self.last[1].velocity
            assert outcome.context_steps == self.last[1].context_steps
            return
        missing = step - self.next_step
        if missing < 0:
            assert "behind" in str(outcome)
            return
        if not isinstance(outcome, Answer):
            assert missing > GRID.window_steps and "open a new stream" in str(outcome)
            return
        assert Flag.DUPLICATE not in outcome.flags
        if Flag.RESTARTED in outcome.flags:
            assert outcome.filled == 0
            self.steps = []
        else:
            assert outcome.filled == missing <= GRID.window_steps
            self.steps += [Events.empty()] * missing
        self.steps.append(events)
        self.next_step = step + 1
        self.last = step, outcome
        assert outcome.context_steps == min(len(self.steps), GRID.window_steps)
        np.testing.assert_allclose(outcome.velocity, offline(self.steps)[-1], rtol=1e-3, atol=1e-4)


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(1, 2), st.just(0)),
        # How far from the expected step each of some streams' next is.
        st.tuples(
            st.just("push"),
            st.lists(
                st.tuples(st.integers(0, 5), st.sampled_from([0, 0, 0, 0, 1, 2, 4, 5, -1, -2])),
                min_size=1,
                max_size=5,
            ),
            st.integers(0, 1000),
        ),
        st.tuples(st.just("launch"), st.just(0), st.just(0)),
        st.tuples(st.just("finish"), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.3, 1.1]), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 5), st.just(0)),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(operations=_OPERATIONS, max_step_batch=st.integers(1, 4))
def test_any_interleaving_equals_each_stream_alone(
    operations: list[tuple[str, object, int]], max_step_batch: int
) -> None:
    driver = PipelineDriver(DECODER, EngineSettings(max_step_batch=max_step_batch))
    twins: dict[int, Twin] = {}
    closed: list[tuple[Twin, int]] = []
    for name, what, seed in operations:
        if name == "open":
            assert isinstance(what, int)
            try:
                twins |= {stream: Twin() for stream in driver.open(what)}
            except BusyError:
                continue
        elif name == "push" and twins:
            assert isinstance(what, list)
            push(driver, twins, what, seed)
        elif name == "launch":
            driver.pipeline.launch()
        elif name == "finish" and driver.pipeline.in_flight:
            driver.finish()
        elif name == "wait":
            assert isinstance(what, float)
            driver.now += what
        elif name == "close" and twins:
            assert isinstance(what, int)
            stream = list(twins)[what % len(twins)]
            driver.close(stream)
            closed.append((twins.pop(stream), stream))
    driver.settle()
    for twin in twins.values():
        for job, row, step, events in twin.sent:
            twin.check(step, events, driver.row(job, row))
    for twin, stream in closed:
        for job, row, step, events in twin.sent:
            outcome = driver.row(job, row)
            if str(outcome) != f"stream {stream} is closed, or was never opened":
                twin.check(step, events, outcome)
        assert "never opened" in str(driver.step(stream, 0))


def push(
    driver: PipelineDriver, twins: dict[int, Twin], what: list[tuple[int, int]], seed: int
) -> None:
    """Sends a step each of some open streams, in one submission."""
    random = np.random.default_rng(seed)
    streams, steps, samples = [], [], []
    for which, ahead in what:
        stream = list(twins)[which % len(twins)]
        twin = twins[stream]
        twin.last_sent = max(twin.last_sent + 1 + ahead, 0)
        streams.append(stream)
        steps.append(twin.last_sent)
        samples.append(Events.from_counts(random.poisson(0.4, (GRID.bins_per_step, UNITS))))
    job = driver.frames(streams, steps, samples, deadline_s=1e6)
    for row, stream in enumerate(streams):
        twins[stream].sent.append((job, row, steps[row], samples[row]))


@pytest.mark.parametrize("streams", [1, SLOTS])
def test_windows_and_streams_agree(streams: int) -> None:
    random = np.random.default_rng(streams)
    driver = PipelineDriver(DECODER)
    names = driver.open(streams)
    sessions = [
        [
            Events.from_counts(random.poisson(0.4, (GRID.bins_per_step, UNITS)))
            for _ in range(3 * GRID.window_steps)
        ]
        for _ in names
    ]
    jobs = [
        driver.frames(names, [step] * streams, [session[step] for session in sessions])
        for step in range(3 * GRID.window_steps)
    ]
    for row, session in enumerate(sessions):
        expected = offline(session)
        for step, job in enumerate(jobs):
            answer = driver.row(job, row)
            assert isinstance(answer, Answer)
            np.testing.assert_allclose(answer.velocity, expected[step], rtol=1e-3, atol=1e-4)
