"""The page on speed: every number in it comes from the table or the targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _speed_targets as targets
from _speed_derived import (
    AGAINST_HELPER,
    EXPONENT,
    FASTER_THAN,
    FLOOR,
    IMPORT_RATIO,
    MEMORY_GROWTH,
    PER_SECOND,
    SHARE,
)
from _speed_jobs import COUNTED, CROSSVAL, DIFFERENCE, IMPORT, LIMIT
from _speed_plan import Plan
from _speed_table import Row
from _speed_works import BACKWARD, EMBED, OURS

from bsym_sklearn.files import write_atomically

INTRODUCTION = """\
# Speed

Written by `benchmarks/speed.py` from its table; nothing here is typed by hand.

The model is computed exactly, only in another order: no tensor over all regions and
time points with channels exists, forward or backward. *torch* is that in plain torch,
*compiled* the same with the kernel of the extra `fast` (numba). *reference* is the
official implementation, {reference}, run from a checkout as it is.

![Times faster than the official code, and seconds over regions and time points](\
speed.png)
"""
TINY = """\
**Made with `--quick`: the sizes are tiny, and none of this is a result.**
"""
METHOD = """\
## How it was measured

- {cpu}, {cpus} CPUs, {system}; Python {python}, {versions}.
{runs}
- Variants take turns within one process after a call of each that does not count; the
  table has the median and, in brackets, the quartiles of n calls.
- Extra memory is how much the resident set of a fresh process grew at most during one
  call, in MB, after model and data were built and a tiny call had loaded or compiled
  all code.
- float32 on the CPU, published sizes, random weights from a seed. Where there is an
  official model, ours has its weights.
"""
CAVEATS = """\
## Read with care

- Weights are random throughout. Time and memory do not depend on them, but for one
  thing: the compiled kernel begins a row of scores again after a very large jump, which
  neither these nor the released weights cause often.
- Forward, and forward and backward, are without dropout. The training step has each
  model's own: the official code also drops attention, which the factorised form cannot,
  so part of that gain is this difference. The optimizer is AdamW in both.
- The official SC training compares the predictions of two scans, which is an oversight
  and needs two; here both sides are judged on the same masked edges against their true
  weights, with all pairs predicted by the official code as in its forward pass. Its own
  unused helper predicts the masked ones only and is shown too.
- The stand-ins have the published number of tokens, width, depth and heads, as minimal
  pre-norm encoders on torch's fused attention, without masking. They are neither
  BrainLM nor Brain-JEPA, and nothing is said of what they would predict.
- The official code is not run where it would need more than the limit in the script;
  a dash stands there.
- The least time counts operations at the rate of a matrix product, exponentials in
  torch at the rate of torch's own and in the compiled kernel as the operations that
  they consist of there, and nothing for norms, activations and memory: no program
  reaches all of it.
- The load in the list above is that of the machine before the run. CPU time is not
  free of what others do to caches and clocks.
"""
RERUN = """\
## Again

```bash
python benchmarks/speed.py --reference FOLDER --document docs/benchmarks/speed.md
```

Without `--reference` only ours is measured. A killed run goes on where it was;
`--help` says how to measure parts of it.
"""


SIZES = ("R", "T", "B", "threads")
Cells = list[list[str]]


def write_page(
    rows: Sequence[Row], facts: dict[str, Any], plan: Plan, path: Path
) -> None:
    """Write the page in Markdown."""
    commits = [run["reference_commit"] for run in facts["runs"]]
    known = [commit for commit in commits if commit]
    here = facts["machine"]
    versions = [f"{name} {v}" for name, v in here["versions"].items() if v]
    method = METHOD.format(
        cpu=here["cpu"],
        cpus=here["cpus"],
        system=here["system"],
        python=here["python"],
        versions=", ".join(versions),
        runs="\n".join(map(_run_line, facts["runs"])),
    )
    reference = f"at commit {known[-1]}" if known else "(commit unknown)"
    parts = [
        INTRODUCTION.format(reference=reference),
        TINY if here["sizes"] == "tiny" else "",
        _section("Against the official implementation", _against(rows, plan)),
        _section("Same outputs", _differences(rows)),
        _section("One scan, beside encoders of other models' shape", _stand_ins(rows)),
        _section("How cost grows", _scaling(rows, plan)),
        _section("Exponents", _exponents(rows)),
        _section("The limit of the machine", _limits(rows)),
        _section("Other targets", _others(rows, plan)),
        method,
        CAVEATS,
        RERUN,
    ]
    write_atomically(path, "\n".join(part for part in parts if part))


def number(value: float | None) -> str:
    """Return three digits of a number, or a dash where there is none."""
    if value is None:
        return "-"
    if value == int(value):
        return f"{value:.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}"


def seconds(row: Row) -> str:
    """Return the median of a row, with its quartiles."""
    if row.n is not None and row.n < 2:
        return number(row.seconds_median)
    quartiles = f"{number(row.q1)} to {number(row.q3)}"
    return f"{number(row.seconds_median)} ({quartiles})"


def _run_line(run: dict[str, Any]) -> str:
    """Return one line on one run of the script."""
    commit = run["commit"] or "unknown"
    return (
        f"- {run['date']}, commit {commit}: {', '.join(run['only'])}; threads: "
        f"{run['threads']}, {run['clock']}; repeats: {run['repeats']}; load: "
        f"{run['load_at_start']}."
    )


def _section(title: str, cells: Cells) -> str:
    """Return a heading and a table; nothing where the table has no rows."""
    if len(cells) < 2:
        return ""
    header, *body = cells
    lines = [header, ["---"] * len(header), *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{table}\n"


def _measured(row: Row) -> list[str]:
    return [row.work, *_sizes(row), row.variant, seconds(row), number(row.n)]


def _sizes(row: Row) -> list[str]:
    return [number(size) for size in (row.R, row.T, row.B, row.threads)]


def _judged(target: float | None, reached: float | None, *, less: bool = False) -> str:
    """Return a target and whether it is reached; less is better with `less`."""
    if target is None or reached is None:
        return "" if target is None else number(target)
    good = reached <= target if less else reached >= target
    return f"{number(target)}, {'reached' if good else 'missed'}"


def _against(rows: Sequence[Row], plan: Plan) -> Cells:
    """Return every work that was compared, with the targets for one scan."""
    header = ["work", *SIZES, "path", "seconds", "n", "times faster", "target"]
    cells = [[*header, "extra MB", "times less", "target"]]
    for cell in plan.official():
        n_timepoints = None if cell.work.startswith("SC") else cell.n_timepoints
        size = (cell.n_regions, n_timepoints, cell.n_scans)
        for row in rows:
            if row.work != cell.work or row.key[2:5] != size:
                continue
            target = _target(row, plan)
            faster, less = row.ratio_to_reference, row.memory_ratio_to_reference
            time = [number(faster), _judged(target.faster.get(row.variant), faster)]
            memory = [number(less), _judged(target.less_memory, less)]
            cells.append([*_measured(row), *time, number(row.extra_mb), *memory])
    return cells


def _target(row: Row, plan: Plan) -> targets.Target:
    """Return what was to be reached by a row; nothing by those of others."""
    none = targets.Target({})
    if row.variant not in OURS or row.B != 1:
        return none
    if plan.long == row.T:
        return targets.LONG
    return targets.PUBLISHED.get(row.work, none)


def _differences(rows: Sequence[Row]) -> Cells:
    """Return how far our outputs are from the official ones."""
    return [
        ["embeddings of the same weights", "R", "T", "B", "largest difference"],
        *(
            [row.variant, *_sizes(row)[:3], number(row.value)]
            for row in rows
            if row.work == DIFFERENCE
        ),
    ]


def _stand_ins(rows: Sequence[Row]) -> Cells:
    """Return encoders side by side on one scan."""
    values = {row.key: row.value for row in rows}
    header = ["encoder", *SIZES, "seconds", "n", "scans per second", "extra MB"]
    cells = [[*header, "times slower than torch", "than compiled", "target"]]
    for row in rows:
        if row.work != EMBED:
            continue
        times = _times_slower(row, rows)
        rate = values.get((PER_SECOND, *row.key[1:]))
        target = _judged(targets.STAND_INS.get(row.variant), times[1])
        measured = [row.variant, *_sizes(row), seconds(row), number(row.n)]
        numbers = [number(n) for n in (rate, row.extra_mb, *times)]
        cells.append([*measured, *numbers, target])
    return cells


def _times_slower(row: Row, rows: Sequence[Row]) -> list[float | None]:
    """Return how many times longer than each of our paths a stand-in takes."""
    work = FASTER_THAN.get(row.variant)
    found = {
        r.variant: r.value for r in rows if (r.work, r.threads) == (work, row.threads)
    }
    return [found.get(path) for path in OURS]


def _scaling(rows: Sequence[Row], plan: Plan) -> Cells:
    """Return seconds and memory at all sizes."""
    sizes = dict.fromkeys(
        (cell.work, cell.n_regions, cell.n_timepoints, cell.n_scans)
        for cell in plan.scaling()
    )
    cells = [["work", *SIZES, "path", "seconds", "n", "extra MB"]]
    for work, *size in sizes:
        cells += [
            [*_measured(row), number(row.extra_mb)]
            for row in rows
            if row.work == work and row.key[2:5] == tuple(size)
        ]
    return cells


def _exponents(rows: Sequence[Row]) -> Cells:
    """Return the powers by which seconds grow."""
    return [
        ["seconds grow with", "path", "threads", "power", "points"],
        *(
            [
                f"{size}: {work}",
                row.variant,
                *map(number, (row.threads, row.value, row.n)),
            ]
            for (work, size), name in EXPONENT.items()
            for row in rows
            if row.work == name
        ),
    ]


def _limits(rows: Sequence[Row]) -> Cells:
    """Return rates of the machine, what we ask of it, and how near we come."""
    works = (LIMIT, COUNTED, FLOOR, SHARE)
    return [
        ["what", "of", *SIZES, "value", "unit"],
        *(
            [row.work, row.variant, *_sizes(row), number(row.value), row.unit]
            for work in works
            for row in rows
            if row.work == work
        ),
    ]


def _others(rows: Sequence[Row], plan: Plan) -> Cells:
    """Return what has a target of another kind, or none."""
    cells = [["what", "of", *SIZES, "value", "unit", "target"]]

    def add(row: Row, value: float | None, unit: str, target: str = "") -> None:
        cells.append([row.work, row.variant, *_sizes(row), number(value), unit, target])

    regions, timepoints = plan.largest
    for row in rows:
        if row.work == BACKWARD and row.key[2:5] == (regions, timepoints, 1):
            judged = _judged(targets.LARGEST_MB, row.extra_mb, less=True)
            add(row, row.extra_mb, "extra MB", judged)
            add(row, row.seconds_median, "s")
        elif row.work == CROSSVAL:
            median = row.seconds_median
            judged = _judged(targets.CROSSVAL_SECONDS, median, less=True)
            add(row, median, "s, wall time", judged)
            add(row, row.value, row.unit)
        elif row.work == IMPORT:
            add(row, row.seconds_median, "s, CPU time")
        elif row.work == IMPORT_RATIO:
            judged = _judged(targets.IMPORT_RATIO, row.value, less=True)
            add(row, row.value, row.unit, judged)
        elif row.work in (AGAINST_HELPER, MEMORY_GROWTH):
            add(row, row.value, row.unit)
    return cells
