"""The curve: its fits, their resumption, its points, rows and picture."""

from dataclasses import replace
from pathlib import Path

import pytest

from cortex.checkpoint import save_checkpoint
from cortex.errors import InputError
from training.adaptation.adaptation_config import AdaptationConfig, adaptation_recipe
from training.adaptation.adapted_candidate import AdaptedCandidate
from training.adaptation.curve import Curve
from training.adaptation.curve_report import as_text, draw, measured_rows
from training.adaptation.planted_for_tests import planted
from training.comparison.fit_log import FitLog
from training.comparison.workers import Workplace, performed


def _config(n_trials: int) -> AdaptationConfig:
    base = adaptation_recipe(planted().new, n_trials)
    assert base.whole
    return replace(
        base,
        units=replace(base.units, steps=2, batch_trials=2),
        whole=replace(base.whole, steps=1, batch_trials=2),
    )


def _curve(folder: Path, *ks: int | None) -> Curve:
    if not (folder / "source").exists():
        save_checkpoint(planted().source, folder / "source")
    candidate = AdaptedCandidate(config=_config(1), model=folder / "source")
    return Curve(planted().new, candidate, _config, ks=ks, splits=(0, 1))


def test_a_curve_is_resumed_and_shown(tmp_path: Path) -> None:
    session = planted().new
    folder = tmp_path / "curve"
    curve = _curve(tmp_path, 2, None)
    keys = {key for key, _ in curve.jobs()}
    assert len(keys) == len(curve.jobs()) == 8
    todo = _curve(tmp_path, 2).jobs()
    assert {key for key, _ in todo} < keys
    for jobs in (todo, [job for job in curve.jobs() if job not in todo]):
        log = FitLog(folder)
        for outcome in performed(jobs, [session], Workplace()):
            log.add(outcome)
    points = curve.points(FitLog(folder))
    assert [(p.k, p.trials, p.kind) for p in points] == [
        (2, 2, "adapted"),
        (2, 2, "scratch"),
        (None, 64, "adapted"),
        (None, 64, "scratch"),
    ]
    assert all(p.steps == 3 and list(p.r2) == [0, 1] for p in points)
    assert points[0].mean == pytest.approx(sum(points[0].r2.values()) / 2)
    assert points[0].sd == pytest.approx(abs(points[0].r2[0] - points[0].r2[1]) / 2**0.5)
    rows = measured_rows("adapt/new", points)
    assert [r.name for r in rows] == [
        f"adapt/new/k_{k}/{kind}" for k in ("2", "all") for kind in ("adapted", "scratch")
    ]
    assert rows[0].baselines == {"scratch": rows[1].value}
    assert len(as_text("title", points).splitlines()) == 6
    draw(points, tmp_path / "curve.png", title="title")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_no_split_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbers of trials repeat"):
        _curve(tmp_path, 2, 2)
    with pytest.raises(InputError, match="from 65 trials, expected 1 to 64"):
        _curve(tmp_path, 65)
