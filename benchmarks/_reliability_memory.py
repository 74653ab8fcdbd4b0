"""Resident memory over thousands of calls of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from _reliability_children import RETURNED, count_threads, in_child
from _reliability_models import TINY, fitted, scans
from _reliability_trials import Row, Trial
from scipy import stats

import bsym_sklearn
from bsym_sklearn.data import load_cohort

CALLS, FITS = 10_000, 200
N_SAMPLES = 100  # of a curve
WARM = 0.2  # share of the calls in which caches fill, not in the slope
N_BLOCKS = 10  # of samples: their means are nearly independent of each other
HOUR = 3600.0


class Slope(NamedTuple):
    """Line through the memory after the first calls, with its 95 % interval."""

    bytes_per_call: float
    low: float
    high: float
    grown_mb: float


def memory_trials(calls: int = CALLS, fits: int = FITS) -> Iterator[Trial]:
    """Yield one trial per curve."""
    curves: dict[str, tuple[Callable[[Path], Callable[[], Any]], int]] = {
        "transform": (_transform, calls),
        "predict_proba of scans in files": (_predict_files, calls),
        "fit": (_fit, fits),
    }
    for part, (make, n_calls) in curves.items():
        yield Trial(part, 0, partial(_run, make, n_calls))


def _run(make: Callable[[Path], Callable[[], Any]], n_calls: int, folder: Path) -> Row:
    call = make(folder)
    end = in_child(watch, call, n_calls, patience=HOUR)
    if end.how != RETURNED:
        return {"outcome": f"{end.how}: {end.value}"}
    slope = fit_slope(end.value["calls"], end.value["megabytes"])
    return {"outcome": "measured", "n_calls": n_calls, **slope._asdict(), **end.value}


def watch(call: Callable[[], Any], n_calls: int) -> dict[str, Any]:
    """Return the memory of this process after some of the calls."""
    process = psutil.Process()
    every = max(1, n_calls // N_SAMPLES)
    calls, megabytes = [], []
    for i in range(1, n_calls + 1):
        call()
        if i % every == 0:
            calls.append(i)
            megabytes.append(process.memory_info().rss / 1e6)
    return {
        "calls": calls,
        "megabytes": megabytes,
        "threads": count_threads(),
        "files": process.num_fds(),
    }


def fit_slope(calls: list[int], megabytes: list[float]) -> Slope:
    """Return the growth per call over means of blocks of samples."""
    kept = np.asarray(calls) > WARM * calls[-1]
    n_blocks = min(N_BLOCKS, int(kept.sum()))
    x = np.array_split(np.asarray(calls, float)[kept], n_blocks)
    y = np.array_split(np.asarray(megabytes)[kept], n_blocks)
    times, memory = ([block.mean() for block in blocks] for blocks in (x, y))
    line = stats.linregress(times, memory)
    error = np.nan_to_num(line.stderr)  # NaN if all are equal
    margin = error * stats.t.ppf(0.975, n_blocks - 2)
    low, high = line.slope - margin, line.slope + margin
    grown = float(memory[-1] - memory[0])
    return Slope(*(float(1e6 * value) for value in (line.slope, low, high)), grown)


def _transform(_: Path) -> Callable[[], Any]:
    """Embed scans in memory."""
    return partial(fitted().transform, scans()[0])


def _predict_files(folder: Path) -> Callable[[], Any]:
    """Predict scans that are opened anew in each call."""
    X = scans()[0]
    for i, series in enumerate(X["fmri"]):
        np.save(folder / f"{i}.npy", series)
    lines = ["participant_id\tfmri", *(f"{i}\t{i}.npy" for i in range(len(X)))]
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    settings = TINY | {"max_epochs": 1}
    model = bsym_sklearn.BrainSymphonyClassifier(**settings)
    model.fit(load_cohort(folder), scans()[1])
    return lambda: model.predict_proba(load_cohort(folder))


def _fit(_: Path) -> Callable[[], Any]:
    """Fit models that are thrown away."""
    settings = TINY | {"max_epochs": 1}
    return lambda: bsym_sklearn.BrainSymphonyEmbedder(**settings).fit(scans()[0])
