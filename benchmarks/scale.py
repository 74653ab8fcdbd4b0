"""Many scans: how to store them, what they take of memory, and how fast they train.

    python benchmarks/scale.py

A cohort of 20,000 scans is generated in a folder of about 4 GB and deleted at the end.
Every measurement runs in a process of its own, and speeds are ratios within one run:
close other programs, or read the ratios only. A killed run goes on where it was; parts
that are done are kept. Zarr is compared where it is installed.

    python benchmarks/scale.py --only --document docs/benchmarks/scale.md

writes the page again. No GPU is measured: the plan says what a GPU of some speed needs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _scale_cohort import (
    TABLE,
    Size,
    data_files,
    keep_rows,
    make_cohort_folder,
    read_raw,
)
from _scale_page import write_page
from _speed_measure import commit_of, in_fresh_process, machine, today

from bsym_sklearn.data import load_cohort
from bsym_sklearn.data.shards import save_shards
from bsym_sklearn.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "demo_output" / "scale"
FORMATS = ("files", "shards")
USUAL_MB = 1074  # room for scans, unless one says otherwise


class Plan(NamedTuple):
    """Sizes of all measurements."""

    numbers: tuple[int, ...]  # of scans, the last is the largest
    scan: tuple[int, int]  # time points and regions of the many scans
    window: int
    cache_mb: int  # to show what happens when scans do not fit
    stored: Size  # scans whose storage is compared
    stored_window: int
    n_trained: int
    cost: tuple[int, int, int]  # regions, time points and scans of the cost model


FULL = Plan(
    numbers=(1000, 5000, 20_000),
    scan=(200, 100),
    window=100,
    cache_mb=64,
    stored=Size(600, 1200, 100),
    stored_window=200,
    n_trained=512,
    cost=(450, 200, 8),
)
QUICK = Plan(
    numbers=(8, 16),
    scan=(40, 6),
    window=16,
    cache_mb=1,
    stored=Size(6, 120, 6),
    stored_window=20,
    n_trained=8,
    cost=(6, 16, 4),
)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    plan = QUICK if options.quick else FULL
    if options.scans:
        plan = plan._replace(numbers=tuple(sorted(options.scans)))
    path = options.out / "results.json"
    results: dict[str, Any] = {}
    if path.exists() and not options.fresh:
        results = json.loads(path.read_text())
    runner = Runner(path, results, options, plan)
    shutil.rmtree(runner.data, ignore_errors=True)  # of a run that was killed
    for part in options.only:
        PARTS[part](runner)
    if options.document:
        write_page(results, options.device_rates, options.document)
    if not options.keep:
        shutil.rmtree(runner.data, ignore_errors=True)
    print(f"{path.name} is in {options.out}")


class Runner:
    """Measure what is not measured yet; keep every result at once."""

    def __init__(
        self,
        path: Path,
        results: dict[str, Any],
        options: argparse.Namespace,
        plan: Plan,
    ) -> None:
        self.path = path
        self.results = results
        self.plan = plan
        self.threads = options.threads
        results["plan"] = {
            "window": plan.cost[1],
            "n_regions": plan.cost[0],
            "many": [*plan.scan, plan.window],
            "stored": [*plan.stored, plan.stored_window],
            "n_trained": plan.n_trained,
            "cache_mb": plan.cache_mb,
            "numbers": plan.numbers,
        }
        self.data = (options.data or options.out) / "generated"

    def measure(self, name: str, job: str, **argument: Any) -> None:
        """Run a job in a fresh process, unless its result is there."""
        if name in self.results:
            return
        print(name, flush=True)
        load = round(os.getloadavg()[0], 2)
        argument = {"job": job, "threads": self.threads, **argument}
        found = in_fresh_process("_scale_child.py", argument, self.threads)
        runs = self.results.setdefault("runs", {})
        runs[name] = {"date": today(), "commit": commit_of(ROOT), "load": load}
        self.keep(name, found)

    def keep(self, name: str, found: Any) -> None:
        """Store a result."""
        self.results[name] = found
        self.results.setdefault("machine", machine())
        write_atomically(self.path, json.dumps(self.results, indent=1) + "\n")
        print(f"    {json.dumps(found)}", flush=True)

    def cohort(self, kind: str) -> Path:
        """Return the folder of the many scans, made when it is first asked for."""
        size = Size(self.plan.numbers[-1], *self.plan.scan)
        files, shards = self.data / "files", self.data / "shards"
        if not (files / TABLE).exists():
            shutil.rmtree(files, ignore_errors=True)
            make_cohort_folder(files, size)
        if kind == "shards" and not (shards / TABLE).exists():
            save_shards(load_cohort(files), shards)
        return self.data / kind


def measure_storage(runner: Runner) -> None:
    runner.measure(
        "storage",
        "storage",
        folder=str(runner.data / "storage"),
        size=runner.plan.stored,
        window=runner.plan.stored_window,
    )


def measure_memory(runner: Runner) -> None:
    """Open and read ever more scans, with room for few of them."""
    plan = runner.plan
    for kind in FORMATS:
        folder = runner.cohort(kind)
        table = (folder / TABLE).read_text()
        try:
            for n_scans in plan.numbers:
                keep_rows(folder, table, n_scans)
                runner.measure(
                    f"memory {kind} {n_scans}",
                    "reading",
                    folder=str(folder),
                    cache_mb=plan.cache_mb,
                    workers=0,
                    window=plan.window,
                    epochs=2,
                )
        finally:
            write_atomically(folder / TABLE, table)


def measure_reading(runner: Runner) -> None:
    """Read all scans with reading processes, with little room and with the usual."""
    folder = runner.cohort("shards")
    if "raw_mb_per_s" not in runner.results:
        files = data_files(folder)
        read_raw(files)  # into the page cache
        begun = time.perf_counter()
        n_bytes = read_raw(files)
        seconds = time.perf_counter() - begun
        runner.keep("raw_mb_per_s", n_bytes / seconds / 1e6)
    for cache_mb in (runner.plan.cache_mb, USUAL_MB):
        for workers in (0, 1, 2):
            runner.measure(
                f"reading {cache_mb} {workers}",
                "reading",
                folder=str(folder),
                cache_mb=cache_mb,
                workers=workers,
                window=runner.plan.window,
                epochs=2,
            )


def measure_training(runner: Runner) -> None:
    for workers in (0, 2):
        runner.measure(
            f"training {workers}",
            "training",
            folder=str(runner.cohort("shards")),
            n_scans=runner.plan.n_trained,
            workers=workers,
            window=runner.plan.window,
            epochs=2,
        )


def measure_cost(runner: Runner) -> None:
    n_regions, window, n_scans = runner.plan.cost
    runner.measure(
        "cost",
        "cost",
        folder=str(runner.data / "window"),
        n_regions=n_regions,
        window=window,
        n_scans=n_scans,
        n_read=64,
    )


PARTS: dict[str, Callable[[Runner], None]] = {
    "storage": measure_storage,
    "memory": measure_memory,
    "reading": measure_reading,
    "training": measure_training,
    "cost": measure_cost,
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--out", type=Path, default=OUTPUT, help="folder for results")
    add("--data", type=Path, help="folder for generated scans (default: in --out)")
    add("--keep", action="store_true", help="keep the generated scans")
    add("--scans", type=int, nargs="+", help="numbers of scans (default: to 20,000)")
    add("--threads", type=int, default=1)
    add(
        "--only",
        nargs="*",
        choices=tuple(PARTS),
        default=list(PARTS),
        metavar="PART",
        help=f"some of: {', '.join(PARTS)}; none to write the page again",
    )
    add(
        "--device-rates",
        type=float,
        nargs="+",
        default=[10.0, 100.0, 1000.0],
        help="scans per second that one device trains on, for the plan",
    )
    add("--document", type=Path, help="Markdown page to write from all results")
    add("--fresh", action="store_true", help="forget earlier results in the folder")
    add("--quick", action="store_true", help="tiny sizes, to see that all works")
    return command


if __name__ == "__main__":
    main()
