"""Ways to store many scans, timed in turn on the same scans.

Every way is read as a user would: ours through a cohort, Zarr through its array.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from _scale_cohort import Size, data_files, forget, make_cohort_folder

from bsym_sklearn.analysis.memory import PeakMemory
from bsym_sklearn.data import check_cohort, load_cohort
from bsym_sklearn.data.shards import save_shards

FILES, SHARDS, ZARR = "one .npy per scan", "tar shards", "Zarr v3, sharded"
DEPENDENCIES = {FILES: 0, SHARDS: 0, ZARR: 4}  # that pip adds to those of the package
ROUNDS = 3
SCANS_PER_SHARD = 256
CHUNK = 100  # time points that Zarr reads at least

Read = Callable[[int, slice], np.ndarray]


def compare_storage(folder: Path, size: Size, window: int) -> list[dict[str, Any]]:
    """Return one row per way: conversion, files, memory, and speed of reading."""
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    make_cohort_folder(source, size)
    ways: dict[str, Callable[[Path, Path, Size], Read]] = {
        FILES: _copy_files,
        SHARDS: _write_shards,
    }
    if find_spec("zarr") is not None:
        ways[ZARR] = _write_zarr
    rows, reads, files = [], {}, {}
    for number, (name, write) in enumerate(ways.items()):
        target = folder / str(number)
        with PeakMemory() as peak:
            start, begun = peak.megabytes, time.perf_counter()
            reads[name] = write(source, target, size)
            seconds = time.perf_counter() - begun
        files[name] = data_files(target)
        rows.append(
            {
                "way": name,
                "convert_s": seconds,
                "convert_mb": peak.megabytes - start,
                "files": len(files[name]),
                "mb": sum(path.stat().st_size for path in files[name]) / 1e6,
                "dependencies": DEPENDENCIES[name],
            }
        )
    times = _time_in_turn(reads, files, size, window)
    shutil.rmtree(folder)
    return [{**row, **times[row["way"]]} for row in rows]


def _time_in_turn(
    reads: dict[str, Read], files: dict[str, Sequence[Path]], size: Size, window: int
) -> dict[str, dict[str, float]]:
    """Return the median speeds of each way; all ways are read in every round."""
    for read in reads.values():  # scans are checked when they are first read
        for i in range(size.n_scans):
            read(i, slice(None))
    rng = np.random.default_rng(1)
    whole = [(i, slice(None)) for i in range(size.n_scans)]
    last = size.n_timepoints - window
    found: dict[str, dict[str, list[float]]] = {name: {} for name in reads}
    for _ in range(ROUNDS):
        starts = rng.integers(0, last, size.n_scans, endpoint=True)
        places = zip(
            rng.permutation(size.n_scans).tolist(), starts.tolist(), strict=True
        )
        windows = [(i, slice(start, start + window)) for i, start in places]
        for name, read in reads.items():
            cold = forget(files[name])
            if cold:
                rate = _rate(read, windows)
                found[name].setdefault("windows_cold", []).append(rate)
                forget(files[name])
                rate = _rate(read, whole) * size.megabytes / size.n_scans
                found[name].setdefault("mb_per_s_cold", []).append(rate)
            _rate(read, whole)  # into the page cache
            rate = _rate(read, windows)
            found[name].setdefault("windows_warm", []).append(rate)
    return {
        name: {what: float(np.median(values)) for what, values in rates.items()}
        for name, rates in found.items()
    }


def _rate(read: Read, places: Sequence[tuple[int, slice]]) -> float:
    """Return how many of them are read in a second."""
    begun = time.perf_counter()
    for i, rows in places:
        read(i, rows)
    return len(places) / (time.perf_counter() - begun)


def _copy_files(source: Path, target: Path, size: Size) -> Read:
    """Write .npy files again: what a conversion costs that only copies."""
    cohort = check_cohort(load_cohort(source))
    (target / "fmri").mkdir(parents=True)
    for i in range(size.n_scans):
        np.save(target / "fmri" / f"sub-{i:06d}.npy", cohort.read_fmri(i))
    shutil.copy(source / "participants.tsv", target)
    return _reader(target)


def _write_shards(source: Path, target: Path, _: Size) -> Read:
    save_shards(load_cohort(source), target, scans_per_shard=SCANS_PER_SHARD)
    return _reader(target)


def _write_zarr(source: Path, target: Path, size: Size) -> Read:
    """Write one array of scans, which Zarr needs to be of one length."""
    import zarr

    cohort = check_cohort(load_cohort(source))
    shard = min(SCANS_PER_SHARD, size.n_scans)
    array = zarr.create_array(
        store=str(target),
        shape=size,
        dtype="float32",
        chunks=(1, min(CHUNK, size.n_timepoints), size.n_regions),
        shards=(shard, -(-size.n_timepoints // CHUNK) * CHUNK, size.n_regions),
        compressors=None,
    )
    for start in range(0, size.n_scans, shard):
        stop = min(start + shard, size.n_scans)
        array[start:stop] = np.stack([cohort.read_fmri(i) for i in range(start, stop)])
    return lambda i, rows: array[i, rows]


def _reader(folder: Path) -> Read:
    cohort = check_cohort(load_cohort(folder))
    return lambda i, rows: cohort.read_fmri(i, np.float32, rows)
