"""Numbers that follow from measured rows: exponents, ratios, shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from _speed_jobs import (
    BASE_IMPORT,
    COUNTED,
    DENSE,
    IMPORT,
    IN_EXP,
    LIMIT,
    ON_SCORES,
    OUR_IMPORT,
    SCORES,
)
from _speed_limits import EXP, EXP_CACHED, MATMUL
from _speed_plan import Plan
from _speed_table import Row
from _speed_works import (
    BACKWARD,
    COMPILED,
    EMBED,
    FORWARD,
    HELPER,
    OURS,
    REFERENCE,
    SC_STEP,
    STAND_INS,
    TORCH,
)

SIZES = ("R", "T", "B")
EXPONENT = {
    (work, size): f"exponent of {size}, {work}"
    for work in (FORWARD, BACKWARD)
    for size in SIZES
}
PER_SECOND = "scans embedded per second"
FASTER_THAN = {name: f"ours against the {name}" for name in STAND_INS}
AGAINST_HELPER = "ours against the masked helper, SC step"
FLOOR = "least time of our forward pass here"
SHARE = "share of the limit, fMRI forward"
IMPORT_RATIO = "import, times of sklearn, torch, skorch"
MEMORY_GROWTH = "extra memory of the longest by the usual series, fMRI forward"
DERIVED = (
    *EXPONENT.values(),
    *FASTER_THAN.values(),
    *(PER_SECOND, AGAINST_HELPER, FLOOR, SHARE, IMPORT_RATIO, MEMORY_GROWTH),
)


def derive(rows: Sequence[Row], plan: Plan) -> list[Row]:
    """Return what follows from the rows that are there."""
    derived = [*_import_ratio(rows)]
    for threads in sorted({row.threads for row in rows if row.threads is not None}):
        some = [row for row in rows if row.threads in (threads, None)]
        derived += _exponents(some, plan)
        derived += _embedding(some)
        derived += _against_helper(some)
        derived += _shares(some, plan)
        derived += _memory_growth(some, plan)
    return derived


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the power of the size by which the seconds grow (least squares)."""
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope)


def _exponents(rows: Sequence[Row], plan: Plan) -> Iterator[Row]:
    usual = {"R": plan.n_regions, "T": plan.n_timepoints, "B": 1}
    for (work, size), name in EXPONENT.items():
        fixed = {other: n for other, n in usual.items() if other != size}
        for variant in (REFERENCE, *OURS):
            line = [
                row
                for row in rows
                if (row.work, row.variant) == (work, variant)
                and all(getattr(row, other) == n for other, n in fixed.items())
            ]
            if len(line) < 2:
                continue
            power = fit_exponent(
                [getattr(row, size) for row in line],
                [row.seconds_median for row in line],
            )
            yield Row(
                name,
                variant,
                **fixed,
                threads=line[0].threads,
                n=len(line),
                value=power,
                unit="power",
            )


def _embedding(rows: Sequence[Row]) -> Iterator[Row]:
    embedded = {row.variant: row for row in rows if row.work == EMBED}
    for row in embedded.values():
        rate = row.B / row.seconds_median
        yield Row(PER_SECOND, *row.key[1:], value=rate, unit="scans per second")
    for stand_in, work in FASTER_THAN.items():
        for variant in OURS:
            if {stand_in, variant} <= embedded.keys():
                yield _ratio(work, embedded[stand_in], embedded[variant])


def _against_helper(rows: Sequence[Row]) -> Iterator[Row]:
    steps = {row.key[1:]: row for row in rows if row.work == SC_STEP}
    for (variant, *size), row in steps.items():
        if variant == HELPER and (TORCH, *size) in steps:
            yield _ratio(AGAINST_HELPER, row, steps[(TORCH, *size)])


def _import_ratio(rows: Sequence[Row]) -> Iterator[Row]:
    imports = {row.variant: row for row in rows if row.work == IMPORT}
    if len(imports) == 2:
        ours, base = imports[OUR_IMPORT], imports[BASE_IMPORT]
        times = ours.seconds_median / base.seconds_median
        yield Row(IMPORT_RATIO, *ours.key[1:], value=times, unit="times")


def _ratio(work: str, slow: Row, fast: Row) -> Row:
    """Return a row for how many times longer one takes than the other."""
    times = slow.seconds_median / fast.seconds_median
    return Row(work, *fast.key[1:], value=times, unit="times")


def _shares(rows: Sequence[Row], plan: Plan) -> Iterator[Row]:
    """Yield the time that the counted operations need at least, and its share."""
    rate = {row.variant: row.value for row in rows if row.work == LIMIT}
    count = {row.variant: row.value for row in rows if row.work == COUNTED}
    if not rate or not count:
        return
    other = (count[DENSE] + count[ON_SCORES]) / rate[MATMUL]
    floor = {
        TORCH: other + count[SCORES] / max(rate[EXP], rate[EXP_CACHED]),
        COMPILED: other + count[IN_EXP] / rate[MATMUL],
    }
    size = (plan.n_regions, plan.n_timepoints, 1)
    threads = next(row.threads for row in rows if row.work == LIMIT)
    for variant, least in floor.items():
        yield Row(FLOOR, variant, *size, threads, value=least, unit="s")
    for row in rows:
        if row.work == FORWARD and row.variant in OURS and row.key[2:5] == size:
            share = 100 * floor[row.variant] / row.seconds_median
            yield Row(SHARE, *row.key[1:], value=share, unit="%")


def _memory_growth(rows: Sequence[Row], plan: Plan) -> Iterator[Row]:
    lines = {row.key[1:5]: row for row in rows if row.work == FORWARD}
    for variant in (REFERENCE, *OURS):
        usual, long = (
            lines.get((variant, plan.n_regions, n_timepoints, 1))
            for n_timepoints in (plan.n_timepoints, plan.long)
        )
        if usual and long and usual.extra_mb and long.extra_mb is not None:
            growth = long.extra_mb / usual.extra_mb
            yield Row(MEMORY_GROWTH, *long.key[1:], value=growth, unit="times")
