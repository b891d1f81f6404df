"""Comparisons: honest selection, nothing done twice, and the same figures from the same seed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cortex.checkpoint import load_checkpoint
from cortex.errors import InputError
from cortex.session import Session
from training.comparison.candidate import Candidate
from training.comparison.contest import Contest, Contestant, Selected
from training.comparison.cortex_candidate import CortexCandidate
from training.comparison.fit_log import FitLog
from training.comparison.nested_split import nested_split
from training.comparison.network_candidate import NetworkCandidate
from training.comparison.standings import standings
from training.comparison.wiener_candidate import WienerCandidate
from training.comparison.workers import Workplace, performed
from training.evaluation.offline_decoding import decode_trials
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.oracle.ceiling import Ceiling
from training.rivals.wiener import WienerConfig
from training.samples.session_for_tests import TRIAL_BINS, make_session
from training.samples.targets import trial_targets

FIT = FitConfig(steps=3, batch_trials=4)


def _wieners(*histories: float) -> Contestant:
    configs = [WienerConfig(history_s=history) for history in histories]
    return Contestant(candidates=[WienerCandidate(config=c) for c in configs], sessions=(0,))


def _grus(*widths: int) -> Contestant:
    shapes = [{"width": width, "layers": 1, "dropout": 0.2} for width in widths]
    grus = [NetworkCandidate(kind="gru", shape=shape, fit=FIT) for shape in shapes]
    return Contestant(candidates=grus, sessions=(0,))


def _cortex(folder: Path, sessions: tuple[int, ...] = (0,)) -> Contestant:
    config = TrainConfig(shape={"dim": 16, "blocks": 1}, fit=FIT)
    candidates: Sequence[Candidate] = [CortexCandidate(config=config)]
    return Contestant(candidates=candidates, sessions=sessions, saves_as=folder / "cortex")


def _run(
    sessions: Sequence[Session],
    contestants: Sequence[Contestant],
    folder: Path,
    *,
    splits: Sequence[int] = (0,),
    inner_folds: int = 1,
    workplace: Workplace | None = None,
) -> tuple[list[Selected], int]:
    """What was selected, and how many fits it took."""
    contest = Contest(sessions, contestants, splits=splits, inner_folds=inner_folds)
    log, done = FitLog(folder), 0
    for jobs in (contest.inner_jobs, lambda: contest.outer_jobs(log)):
        todo = [(key, job) for key, job in jobs() if key not in log]
        for outcome in performed(todo, sessions, workplace or Workplace()):
            log.add(outcome)
            done += 1
    return list(contest.selected(log)), done


def _poisoned(session: Session, trials: Sequence[int]) -> Session:
    """Nonsense for the velocity of some trials."""
    velocity = session.behavior.velocity.copy()
    rng = np.random.default_rng(5)
    for trial in trials:
        rows = slice(trial * TRIAL_BINS, (trial + 1) * TRIAL_BINS)
        velocity[rows] = rng.normal(0, 1e3, (TRIAL_BINS, 2))
    return replace(session, behavior=replace(session.behavior, velocity=velocity))


def test_nested_splits_keep_test_trials_out() -> None:
    for folds in (1, 3):
        nested = nested_split(make_session(20), 2, folds)
        assert sorted(nested.learn + nested.test) == list(range(20))
        assert len(nested.inner) == folds
        for learn, score in nested.inner:
            assert sorted(learn + score) == sorted(nested.learn)
        if folds > 1:
            assert sorted(t for _, score in nested.inner for t in score) == sorted(nested.learn)


def test_test_trials_choose_nothing(tmp_path: Path) -> None:
    session = make_session(20)
    poisoned = _poisoned(session, nested_split(session, 0, 1).test)
    contestants = [_wieners(0.02, 0.1, 0.3), _grus(4, 8)]
    clean, _ = _run([session], contestants, tmp_path / "clean")
    other, _ = _run([poisoned], contestants, tmp_path / "poisoned")
    for a, b in zip(clean, other, strict=True):
        assert a.inner_r2 == b.inner_r2
        assert a.outcome.settings == b.outcome.settings
        assert a.outcome.r2 != b.outcome.r2


def test_a_candidate_that_stands_alone_is_only_tested(tmp_path: Path) -> None:
    (selected,), done = _run([make_session(12)], [_wieners(0.1)], tmp_path, inner_folds=3)
    assert done == 1
    assert selected.inner_r2 == []


def test_a_candidate_that_diverges_does_not_win(tmp_path: Path) -> None:
    good, other = _grus(4, 8).candidates
    assert isinstance(other, NetworkCandidate)
    diverging = replace(other, fit=replace(FIT, learning_rate=1e36))
    contestant = Contestant(candidates=[diverging, good], sessions=(0,))
    (selected,), _ = _run([make_session(12)], [contestant], tmp_path)
    assert np.isnan(selected.inner_r2[0])
    assert selected.outcome.settings == good.settings()


def test_the_wiener_filter_finds_its_lags(tmp_path: Path) -> None:
    session = make_session(24)
    # The velocity follows the spikes by 5 steps of 20 ms.
    velocity = session.behavior.velocity.reshape(24, TRIAL_BINS, 2)
    late = np.concatenate([np.zeros_like(velocity[:, :20]), velocity[:, :-20]], axis=1)
    session = replace(session, behavior=replace(session.behavior, velocity=late.reshape(-1, 2)))
    (selected,), _ = _run([session], [_wieners(0.02, 0.16)], tmp_path)
    assert selected.outcome.settings["history_s"] == 0.16
    assert selected.outcome.r2 > 0.5


def test_finished_fits_are_not_done_again(tmp_path: Path) -> None:
    session, contestants = make_session(12), [_wieners(0.02, 0.1), _grus(4, 8)]
    whole, done = _run([session], contestants, tmp_path / "whole", inner_folds=2)
    assert done == 2 * 2 * 2 + 2
    killed = tmp_path / "killed"
    killed.mkdir()
    lines = (tmp_path / "whole" / "fits.jsonl").read_text().splitlines(keepends=True)
    # Killed while it wrote its sixth fit; two more came from another machine.
    (killed / "fits.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    (killed / "fits_elsewhere.jsonl").write_text("".join(lines[6:8]))
    resumed, done = _run([session], contestants, killed, inner_folds=2)
    assert done == 3
    for a, b in zip(whole, resumed, strict=True):
        assert a.inner_r2 == b.inner_r2
        assert a.outcome.r2 == b.outcome.r2
    assert _run([session], contestants, killed, inner_folds=2)[1] == 0
    (killed / "fits.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="line 1 is not a finished fit"):
        FitLog(killed)


@pytest.mark.parametrize("workplace", [Workplace(at_once=3), Workplace(processes=2)])
def test_turns_and_processes_change_no_figure(workplace: Workplace) -> None:
    sessions = [make_session(12)]
    contest = Contest(sessions, [_wieners(0.1, 0.2), _grus(4, 8)], splits=[0], inner_folds=1)
    jobs = list(contest.inner_jobs())
    alone, others = (
        {outcome.key: outcome.r2 for outcome in performed(jobs, sessions, where)}
        for where in (Workplace(), workplace)
    )
    assert alone == others
    assert len(alone) == 4


def test_bad_input_reaches_the_first_process() -> None:
    sessions = [make_session(12)]
    unknown = CortexCandidate(config=TrainConfig(size="huge", fit=FIT))
    contestant = Contestant(candidates=[unknown, replace(unknown, kind="other")], sessions=(0,))
    jobs = list(Contest(sessions, [contestant], splits=[0], inner_folds=1).inner_jobs())
    with pytest.raises(InputError, match="'huge' is unknown"):
        list(performed(jobs, sessions, Workplace(processes=2)))


def test_winners_are_saved_and_stream(tmp_path: Path) -> None:
    first = make_session(12)
    # One model of two sessions counts steps, whatever they last.
    second = replace(
        make_session(14, seed=1), session_id="slow", grid=replace(first.grid, bin_us=10_000)
    )
    contestants = [_cortex(tmp_path, (0, 1)), _wieners(0.1)]
    selected, _ = _run([first, second], contestants, tmp_path, splits=(0, 1))
    for split in (0, 1):
        checkpoint = load_checkpoint(tmp_path / f"cortex_split{split}")
        assert checkpoint.card["split_seed"] == split
        test = nested_split(first, split, 1).test
        assert checkpoint.card["test_trials"][0] == list(test)
        scored = selected[split].outcome.scored[0]
        decoded = np.concatenate(decode_trials(checkpoint, first, test))
        true = np.concatenate([trial_targets(first, trial)[1] for trial in test])
        residual = ((true - decoded) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
        assert scored.trials.r2() == pytest.approx(1 - residual.mean(), rel=1e-4)
        assert scored.streamed_r2 == pytest.approx(scored.trials.r2(), abs=1e-4)
        assert scored.streamed_difference is not None
        assert scored.streamed_difference < 1e-2
    test = nested_split(first, 1, 1).test
    ceiling = Ceiling(
        session_id="waves", digest="", trials=test, points=45, r2_causal=0.5, r2_smoothed=1.0
    )
    cortex, wiener = standings(0, selected, inner_folds=1, ceiling=ceiling)
    assert (cortex.kind, cortex.fits, list(cortex.r2)) == ("cortex", 2, [0, 1])
    assert list(cortex.ceiling_share) == [1]
    assert wiener.ceiling_share == {1: pytest.approx(wiener.r2[1] / 0.5)}
    one = selected[3].outcome.scored[0].trials
    true = trial_targets(first, test[0])[1]
    row = one.sums[one.trial.index(test[0])]
    residual = np.array(row[5:]) / ((true - true.mean(0)) ** 2).sum(0)
    assert one.r2(test[:1]) == pytest.approx(1 - residual.mean(), rel=1e-4)
    (only,) = standings(1, selected, inner_folds=1, ceiling=None)
    assert only.kind == "cortex"


def test_too_few_labels_are_bad_input() -> None:
    session = make_session(10)
    keep = session.behavior.time_bin < session.trials.start_bin[1]
    behavior = replace(
        session.behavior,
        time_bin=session.behavior.time_bin[keep],
        velocity=session.behavior.velocity[keep],
    )
    with pytest.raises(InputError, match="trials to score on in split 0 hold"):
        Contest([replace(session, behavior=behavior)], [_wieners(0.1)], splits=[0], inner_folds=2)
