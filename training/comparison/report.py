"""Standings for readers: a table, and rows of a measured one."""

import statistics
from collections.abc import Collection, Mapping, Sequence

from tools.measured.table import Row
from training.comparison.standings import Standing
from training.oracle.ceiling import Ceiling


def as_text(title: str, standings: Sequence[Standing]) -> str:
    """A table, a line a kind of decoder."""
    splits = list(standings[0].r2)
    head = f"{'decoder':<14}{'R2':>7}{'sd':>7}" + "".join(f"{f'split {s}':>9}" for s in splits)
    lines = [title, f"{head}{'parameters':>12}{'fits':>6}"]
    for each in standings:
        line = f"{each.kind:<14}{each.mean:>7.3f}{each.sd:>7.3f}"
        line += "".join(f"{each.r2[split]:>9.3f}" for split in splits)
        lines.append(f"{line}{each.parameters:>12,}{each.fits:>6}")
    lines += [f"{each.kind}: {text}" for each in standings if (text := _more(each))]
    return "\n".join(lines)


def measured_rows(
    prefix: str,
    standings: Sequence[Standing],
    names: Mapping[str, str],
    ceiling: Ceiling | None = None,
    *,
    only: Collection[str] | None = None,
) -> list[Row]:
    """A row a kind of decoder, with the others' figures beside it, and one for the ceiling.

    Args:
        prefix: of the rows' names, as in "r2/chewie".
        standings: the session's.
        names: what kinds are called in rows, where it is not their own name.
        ceiling: the session's, where it is known.
        only: kinds with a row; None for all, and the ceiling.
    """
    called = {each.kind: names.get(each.kind, each.kind) for each in standings}
    rows = [
        Row(
            name=f"{prefix}/{called[each.kind]}",
            value=each.mean,
            unit="R2",
            baselines={called[o.kind]: o.mean for o in standings if o is not each},
            note="; ".join(filter(None, [_spread(each), _more(each)])),
        )
        for each in standings
        if only is None or each.kind in only
    ]
    return [*rows, _ceiling_row(prefix, ceiling)] if ceiling and only is None else rows


def _ceiling_row(prefix: str, ceiling: Ceiling) -> Row:
    return Row(
        name=f"{prefix}/oracle_causal",
        value=ceiling.r2_causal,
        unit="R2",
        note=f"given the true tuning; {len(ceiling.trials)} of the held-out trials; "
        f"{ceiling.r2_smoothed:.3f} from all of a trial's spikes",
    )


def _spread(each: Standing) -> str:
    scores = ", ".join(f"{r2:.3f}" for r2 in each.r2.values())
    tries = len(next(iter(each.inner_r2.values())))
    seconds = statistics.fmean(each.seconds.values())
    many = f"mean of {len(each.r2)} splits by trial ({scores}), sd {each.sd:.3f}"
    return (
        f"{many if len(each.r2) > 1 else 'one split by trial'}; "
        f"{each.parameters:,} parameters; "
        f"{f'best of {tries} by inner validation' if tries else 'one configuration'}, "
        f"{seconds:.0f} s from first step to score"
    )


def _more(each: Standing) -> str:
    """What only some decoders have."""
    texts = []
    if each.streamed_r2:
        streamed = statistics.fmean(each.streamed_r2.values())
        difference = max(each.streamed_difference.values())
        texts.append(f"streamed {streamed:.3f}, at most {difference:.1e} off the offline velocity")
    if each.ceiling_share:
        share = statistics.fmean(each.ceiling_share.values())
        texts.append(f"{share:.3f} of the causal ceiling")
    return "; ".join(texts)
