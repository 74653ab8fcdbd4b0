"""Seconds and memory of a function, and the machine that they are of."""

from __future__ import annotations

import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

import bsym_sklearn

HERE = Path(__file__).parent
SLOW = 20.0  # seconds for one round of all variants, from which on there are FEW
FEW = 3
# What the numbers depend on; the others only tell them.
MEASURING = (
    "works",
    "import",
    "official",
    "standins",
    "measure",
    "memory",
    "limits",
    "jobs",
)
LIBRARIES = ("bsym_sklearn", "torch", "numba", "numpy", "scikit-learn", "skorch")


class Timing(NamedTuple):
    """Seconds of one function."""

    median: float
    q1: float
    q3: float
    n: int


def clock(threads: int) -> Callable[[], float]:
    """Return the clock to use: that of the process where it has one thread.

    Then other work on the machine matters less.
    """
    return time.process_time if threads == 1 else time.perf_counter


def clock_name(threads: int) -> str:
    """Return the same in words."""
    return "CPU time of the process" if threads == 1 else "wall time"


def alternate(
    calls: Mapping[str, Callable[[], object]], repeats: int, threads: int
) -> dict[str, Timing]:
    """Time functions in turn, after one call of each that does not count."""
    now = clock(threads)
    started = time.perf_counter()
    for call in calls.values():
        call()
    if time.perf_counter() - started > SLOW:
        repeats = min(repeats, FEW)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.freeze()  # only what the calls leave is looked at for garbage
    for _ in range(repeats):
        for name, call in calls.items():
            gc.collect()
            begun = now()
            call()
            seconds[name].append(now() - begun)
    gc.unfreeze()
    return {name: summarize(values) for name, values in seconds.items()}


def wall_seconds(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def summarize(seconds: Sequence[float]) -> Timing:
    """Return the median and the quartiles."""
    q1, median, q3 = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    return Timing(median, q1, q3, len(seconds))


def in_fresh_process(script: str, argument: Any, threads: int) -> Any:
    """Run a script of this folder by itself; return what it prints as JSON."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(sys.path),  # of tests, and of a source tree
    }
    done = subprocess.run(
        [sys.executable, str(HERE / script), json.dumps(argument)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Return where and with what something is measured."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "code": joblib.hash([path.read_bytes() for path in _measuring_files()]),
    }


def today() -> str:
    """Return the date in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit_of(folder: Path) -> str | None:
    """Return the commit of a checkout, with a mark if files differ from it."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _measuring_files() -> list[Path]:
    package = Path(bsym_sklearn.__file__).parent
    files = [HERE / f"_speed_{name}.py" for name in MEASURING]
    return [*sorted(package.rglob("*.py")), *files]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or "unknown"
