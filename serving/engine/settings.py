"""The engine's limits."""

from dataclasses import dataclass, field

from serving.engine.jobs import Kind
from serving.engine.stalled import StalledPolicy


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Limits.

    Attributes:
        max_batch: windows in a batch at most.
        max_step_batch: steps in a batch at most.
        max_queue: windows and steps in flight at most.
        max_streams: streams open at most, those included whose state was evicted.
        batch_delay_s: seconds that a batch may wait for more requests to fill it, where no
            deadline forbids.
        evict_idle_s: seconds without a step after which a stream's state may give way to
            another's.
        max_turns: batches of one kind in a row at most while the other kind waits.
        stalled: what `latest` makes of a stream whose next step does not come.
    """

    max_batch: int = 32
    max_step_batch: int = 512
    max_queue: int = 8192
    max_streams: int = 1 << 16
    batch_delay_s: float = 0.0
    evict_idle_s: float = 1.0
    max_turns: int = 4
    stalled: StalledPolicy = field(default_factory=StalledPolicy)

    @property
    def limits(self) -> dict[Kind, int]:
        """Rows in a batch of each kind at most."""
        return {Kind.WINDOW: self.max_batch, Kind.STEP: self.max_step_batch}
