"""One measurement of scale.py in a process of its own; prints its result as JSON."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from _scale_cohort import Size, make_cohort_folder
from _scale_storage import compare_storage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.memory import PeakMemory
from bsym_sklearn.data import RegionScaler, check_cohort, load_cohort
from bsym_sklearn.data.shards import save_shards
from bsym_sklearn.training.reading import ScanReader

BATCH = 16
MB = 1e6
SIZES: dict[str, dict[str, int]] = {  # as make_model names them
    "small": {"dim": 32, "depth": 1, "n_heads": 2},
    "base": {},
    "large": {"dim": 128, "depth": 6, "n_heads": 4},
}


def main() -> None:
    argument: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(argument.pop("threads"))
    job = JOBS[argument.pop("job")]
    print(json.dumps(job(**argument)))


def storage(folder: str, size: Sequence[int], window: int) -> list[dict[str, Any]]:
    """Compare ways to store scans."""
    return compare_storage(Path(folder), Size(*size), window)


def reading(
    folder: str, cache_mb: int, workers: int, window: int, epochs: int
) -> dict[str, Any]:
    """Open a cohort and read random windows of all its scans, some epochs long.

    Memory is that beyond what the process had before, of all processes together:
    pages that they share count once.
    """
    empty, resident = _held(), psutil.Process().memory_info().rss / MB
    begun = time.perf_counter()
    X = load_cohort(folder)
    loaded = time.perf_counter()
    cohort = check_cohort(X)
    checked = time.perf_counter()
    cohort.fingerprint()
    hashed = time.perf_counter()
    gc.collect()
    door = _held()
    scaler = RegionScaler().fit(cohort)
    reader = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=int(cache_mb * MB))
    n_bytes = len(cohort) * window * cohort.n_regions * 4
    seconds, held = [], []
    loader = DataLoader(
        _Windows(reader, window),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
    )
    with PeakMemory() as peak:
        for _ in range(epochs):
            started = time.perf_counter()
            for _batch in loader:
                pass
            seconds.append(time.perf_counter() - started)
            held.append(_held() - empty)
    return {
        "n_scans": len(cohort),
        "load_s": loaded - begun,
        "check_s": checked - loaded,
        "fingerprint_s": hashed - checked,
        "door_mb": door - empty,
        "held_mb": held,
        "peak_mb": peak.megabytes - resident,
        "windows_per_s": [len(cohort) / s for s in seconds],
        "mb_per_s": [n_bytes / s / MB for s in seconds],
    }


def training(
    folder: str, n_scans: int, workers: int, window: int, epochs: int
) -> dict[str, float]:
    """Pretrain the small model on the first scans of a cohort."""
    X = load_cohort(folder).iloc[:n_scans]
    settings = {**SIZES["small"], "window": window, "n_jobs": workers or None}
    return _train(X, settings, epochs)


def cost(
    folder: str, n_regions: int, window: int, n_scans: int, n_read: int
) -> dict[str, Any]:
    """Pretrain models of all sizes on scans in memory; time windows of shards."""
    rng = np.random.default_rng(0)
    X = list(rng.standard_normal((n_scans, window, n_regions), np.float32))
    found: dict[str, Any] = {
        name: _train(X, {**size, "window": window, "batch_size": 4}, epochs=2)
        for name, size in SIZES.items()
    }
    size = Size(n_read, 2 * window, n_regions)
    return {**found, "window_s": _window_seconds(Path(folder), size, window)}


def _window_seconds(root: Path, size: Size, window: int) -> float:
    """Return the CPU seconds of a window from a shard to the model's input."""
    shutil.rmtree(root, ignore_errors=True)
    make_cohort_folder(root / "files", size)
    cohort = check_cohort(save_shards(load_cohort(root / "files"), root / "shards"))
    scaler = RegionScaler().fit(cohort)
    reader = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=0)
    for i in range(len(cohort)):
        reader.window(i, 0, window)  # checks the scan, keeps its statistics
    begun = time.process_time()
    for i in range(len(cohort)):
        reader.window(i, i % (size.n_timepoints - window + 1), window)
    seconds = (time.process_time() - begun) / len(cohort)
    shutil.rmtree(root)
    return seconds


def _train(X: Any, settings: dict[str, Any], epochs: int) -> dict[str, float]:
    """Return seconds per scan and epoch: of longer training, less those of shorter.

    The first fit loads and compiles all code and does not count.
    """
    walls, cpus = [], []
    for n_epochs in (1, 1, 1 + epochs):
        model = BrainSymphonyEmbedder(
            **settings, max_epochs=n_epochs, validation_fraction=0.0, random_state=0
        )
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(X)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    n_parameters = sum(p.numel() for p in model.net_.module_.parameters())
    return {
        "wall_s": (walls[2] - walls[1]) / epochs / len(X),
        "cpu_s": (cpus[2] - cpus[1]) / epochs / len(X),
        "n_parameters": n_parameters,
    }


class _Windows(Dataset):
    """Random windows of scans as tensors."""

    def __init__(self, reader: ScanReader, window: int) -> None:
        self.reader = reader
        self.window = window

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, i: int) -> Tensor:
        last = int(self.reader.cohort.fmri[i].shape[0]) - self.window
        start = int(torch.randint(last + 1, ()))
        return torch.from_numpy(self.reader.window(i, start, self.window))


def _held() -> float:
    """Return the MB that this process and its children hold."""
    gc.collect()
    this = psutil.Process()
    return sum(_memory(p) for p in (this, *this.children(recursive=True))) / MB


def _memory(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return getattr(full, "pss", full.rss)


JOBS = {job.__name__: job for job in (storage, reading, training, cost)}
if __name__ == "__main__":
    main()
