"""The parts of a run: each is done as a whole and makes rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import joblib
from _speed_limits import (
    UNITS,
    dense_operations,
    exp_operations,
    machine_limits,
    n_scores,
    score_operations,
)
from _speed_measure import alternate, in_fresh_process, summarize, wall_seconds
from _speed_plan import Plan, variants_of
from _speed_table import Row
from _speed_works import (
    EMBED,
    FORWARD,
    HELPER,
    OURS,
    REFERENCE,
    SC_FORWARD,
    SC_WORKS,
    STAND_INS,
    TORCH,
    Cell,
    largest_difference,
    make_calls,
    stand_in_shape,
)
from sklearn.model_selection import cross_val_score

from bsym_sklearn import BrainSymphonyClassifier
from bsym_sklearn.data import make_cohort

GROUPS = ("limits", "imports", "official", "standins", "scaling", "crossval")
LIMIT = "limit of the machine"
COUNTED = "operations of our forward pass"
DENSE, ON_SCORES = "matrix products and convolutions", "on scores"
SCORES, IN_EXP = "exponentials", "within exponentials, compiled"
DIFFERENCE = "largest difference from the reference"
CROSSVAL = "5-fold cross-validated fine-tuning"
N_FOLDS = 5
IMPORT = "import"
BASE_IMPORT, OUR_IMPORT = "sklearn, torch, skorch", "bsym_sklearn"

Key = tuple[str | int | None, ...]


class Context(NamedTuple):
    """How to measure."""

    reference: Path | None  # folder of the official code
    threads: int
    repeats: int


class Job(NamedTuple):
    """A part of a run."""

    name: str
    keys: list[Key]  # of the rows that it makes
    run: Callable[[], list[Row]]


def make_jobs(plan: Plan, groups: Sequence[str], how: Context) -> Iterator[Job]:
    """Yield what is to be done, in order."""
    if "limits" in groups:
        yield _limits_job(plan, how)
    if "imports" in groups:
        yield _imports_job(how)
    if "official" in groups and how.reference is not None:
        for cell in (plan.cell(FORWARD), plan.cell(SC_FORWARD)):
            yield _difference_job(cell, how.reference)
    cells = plan.official() if "official" in groups else []
    cells += plan.scaling() if "scaling" in groups else []
    for cell in dict.fromkeys(cells):
        variants = variants_of(cell, with_reference=how.reference is not None)
        yield _cell_job(cell, variants, how)
    if "standins" in groups:
        yield _cell_job(plan.cell(EMBED), (*STAND_INS, *OURS), how)
    if "crossval" in groups:
        for name, options in plan.crossval().items():
            yield _crossval_job(plan, name, options)


def _cell_job(cell: Cell, variants: Sequence[str], how: Context) -> Job:
    """Return a job that times the variants of a cell side by side."""
    keys = {v: (cell.work, v, *_size(cell, v), how.threads) for v in variants}

    def run() -> list[Row]:
        calls = make_calls(cell, variants, how.reference)
        timings = alternate(calls, how.repeats, how.threads)
        calls.clear()  # before others need the memory
        memory = {variant: _extra_mb(cell, variant, how) for variant in variants}
        return [
            Row(
                *keys[variant],
                *timings[variant],
                memory[variant],
                timings[REFERENCE].median / timings[variant].median
                if REFERENCE in timings
                else None,
                # the least that can be seen is a page
                memory[REFERENCE] / max(memory[variant], 0.004)
                if REFERENCE in memory
                else None,
            )
            for variant in variants
        ]

    size = ", ".join(
        f"{name}={n}"
        for name, n in zip("RTB", _size(cell, variants[-1]), strict=True)
        if n is not None
    )
    return Job(f"{cell.work}: {size}", list(keys.values()), run)


def _size(cell: Cell, variant: str) -> tuple[int, int | None, int]:
    """Return R, T and B of what a variant reads."""
    if variant in STAND_INS:
        shape = stand_in_shape(variant, cell.depth)
        return shape.n_regions, shape.n_timepoints, cell.n_scans
    n_timepoints = None if cell.work in SC_WORKS else cell.n_timepoints
    return cell.n_regions, n_timepoints, cell.n_scans


def _extra_mb(cell: Cell, variant: str, how: Context) -> float:
    """Return the extra memory of one variant, measured in a fresh process."""
    # our model needs less to be made with weights of its own
    reference = how.reference if variant in (REFERENCE, HELPER) else None
    argument = {
        "cell": list(cell),
        "variant": variant,
        "reference": None if reference is None else str(reference.resolve()),
        "threads": how.threads,
    }
    return in_fresh_process("_speed_memory.py", argument, how.threads)


def _difference_job(cell: Cell, reference: Path) -> Job:
    """Return a job that compares what models with the same weights say."""
    variants = (TORCH,) if cell.work in SC_WORKS else OURS
    keys = {v: (DIFFERENCE, f"{cell.work}, {v}", *_size(cell, v)) for v in variants}

    def run() -> list[Row]:
        differences = largest_difference(cell, variants, reference)
        return [
            Row(*keys[v], None, value=differences[v], unit="absolute") for v in variants
        ]

    return Job(f"{DIFFERENCE}: {cell.work}", [(*k, None) for k in keys.values()], run)


def _limits_job(plan: Plan, how: Context) -> Job:
    """Return a job that measures rates of the machine and counts our operations."""
    cell = plan.cell(FORWARD)
    counts = {
        DENSE: (dense_operations, "GFLOP"),
        SCORES: (n_scores, "1e9"),
        ON_SCORES: (score_operations, "GFLOP"),
        IN_EXP: (exp_operations, "GFLOP"),
    }
    counted = {name: (COUNTED, name, *_size(cell, TORCH), None) for name in counts}

    def run() -> list[Row]:
        limits = machine_limits(plan.matrix, plan.floats, how.repeats, how.threads)
        return [
            *(
                Row(*_limit_key(name, how), *timing, value=rate, unit=UNITS[name])
                for name, (timing, rate) in limits.items()
            ),
            *(
                Row(*counted[name], value=count(cell) / 1e9, unit=unit)
                for name, (count, unit) in counts.items()
            ),
        ]

    keys = [_limit_key(name, how) for name in UNITS]
    return Job(LIMIT, [*keys, *counted.values()], run)


def _limit_key(name: str, how: Context) -> Key:
    return (LIMIT, name, None, None, None, how.threads)


def _imports_job(how: Context) -> Job:
    """Return a job that imports the package and what it needs, in turn."""
    names = (BASE_IMPORT, OUR_IMPORT)

    def run() -> list[Row]:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(how.repeats + 1):
            for name in names:
                seconds[name].append(in_fresh_process("_speed_import.py", name, 1))
        # the first of each may have read from the disk
        return [Row(*key(n), *summarize(seconds[n][1:])) for n in names]

    def key(name: str) -> Key:
        return (IMPORT, name, None, None, None, 1)

    return Job(IMPORT, [key(name) for name in names], run)


def _crossval_job(plan: Plan, name: str, options: dict[str, int]) -> Job:
    """Return a job that cross-validates a classifier as a user does."""
    n_scans, n_regions, n_timepoints = plan.cohort
    n_processes = plan.n_processes
    variant = f"{name}, processes: {n_processes}"
    key: Key = (CROSSVAL, variant, n_regions, n_timepoints, n_scans, n_processes)

    def run() -> list[Row]:
        cohort = make_cohort(n_scans, n_regions, n_timepoints)
        accuracies: list[float] = []

        def fit() -> None:
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                accuracies[:] = cross_val_score(
                    BrainSymphonyClassifier(random_state=0, **options),
                    cohort.data,
                    cohort.target,
                    cv=N_FOLDS,
                    n_jobs=n_processes,
                    error_score="raise",
                ).tolist()

        seconds = wall_seconds(fit)
        accuracy = sum(accuracies) / len(accuracies)
        timing = summarize([seconds])
        return [Row(*key, *timing, value=accuracy, unit="accuracy")]

    return Job(f"{CROSSVAL}: {name}", [key], run)
