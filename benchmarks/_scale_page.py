"""The page on scale: every number in it comes from stored results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _scale_storage import CHUNK, ROUNDS

from bsym_sklearn.files import write_atomically

Results = dict[str, Any]
Cells = list[list[str]]
N_SCANS, N_DEVICES, N_EPOCHS = 40_000, 8, 100  # of the plan
BATCH = 16  # scans per device and step
BANDWIDTH = 10e9  # bytes per second between devices; assumed
SIZES = ("small", "base", "large")

INTRODUCTION = """\
# Scale

Written by `benchmarks/scale.py` from its results; nothing here is typed by hand. Scans
are generated: noise in float32. Read the ratios, which are of one run each; the seconds
are of this machine and of what else it did. **No GPU was measured.**
"""
LOADED = """\
**Other work loaded the machine** (load {high} on {cpus} CPUs). Memory, files and the
first table, whose ways took turns, can be read; other seconds, and ratios of different
processes, cannot until the script has run on a quiet machine.
"""
STORAGE = """\
## How to store many scans

{n} scans of {t} time points and {r} regions; windows of {w} time points at random
places, one per scan. *Cold*: the files were dropped from the page cache first. One
process reads, ours as float32 copies through `Cohort`; medians of {rounds} rounds in
which the ways take turns, and in brackets how many times that of the first way. Memory
is the most that the conversion held beyond what there was before.

{table}

`save_shards` writes the tar shards: few files, no further package, any tar program
unpacks them, and a shard is there or not, so that a killed conversion goes on. Zarr
reads through its chunks (here of {chunk} time points) and has scans of one length in an
array. One `.npy` per scan stays the format of small cohorts.
"""
MEMORY = """\
## Constant memory

Scans of {t} time points and {r} regions ({mb:.3g} MB for {most}), read in two epochs of
random windows of {w} time points by one process that may keep {cache} MB of scans.
Seconds of `load_cohort`, `check_cohort` and `fingerprint`; MB beyond the imports.

{table}

From {least} to {most} scans, memory after two epochs grows by
{growth}:
the texts and the shape of a row, and mean and deviation of its regions, which are kept
while there is room. A scan itself has {kilobytes:.3g} KB.
"""
READING = """\
## Reading

The {n} scans of above from shards, in the page cache; reading the same files from end
to end, without looking at the values, gives {raw:.0f} MB/s. The first time, a process
reads a scan whole, to check and to scale it, and from then on only windows. Processes
share out the room for scans. Memory is that of all processes together, pages that they
share counted once. There are {cpus} CPUs, of which the main process takes one.

{table}
"""
TRAINING = """\
## Training

`BrainSymphonyEmbedder` of size small, windows of {w} time points, {n} scans from
shards. CPU seconds are those of the main process: what reading processes take from it.

{table}
"""
COST = """\
## Cost model

CPU seconds of pretraining per scan and epoch with one thread, at {r} regions and {w}
time points; `n_scans x n_epochs x seconds / n_processes` is the time of a fit. The last
column is {many} scans and {epochs} epochs with {devices} such processes, were each as
fast as this one. [Speed](speed.md) has more sizes and the limit of the machine.

{table}
"""
PLAN = """\
## A plan for {many} scans and {devices} devices

With `r` scans per second and device, `n` scans, `N` devices, `b` scans per device and
step, `P` parameters in float32 and a bandwidth of `B` bytes per second between devices:

    seconds of an epoch       n / (N r e)
    efficiency e              (b / r) / (b / r + 2 (N - 1) / N * 4 P / B)
    bytes read per second     N r e * window * regions * 4
    reading processes         r * (seconds of a window), rounded up, per device

No GPU was measured: the rates in the first column are assumptions, but for the first,
and so are b = {batch} and B = {bandwidth:g} GB/s. Measure the rate of yours and name it
with `--device-rates`. Measured are the parameters, of size large, and that a window
takes {window_ms:.2g} ms of one process here from a shard in the page cache to the
model's input.

{table}

The scans take {gigabytes:.3g} GB in float32 at one window each. A node with that much
free memory reads them from the page cache after the first epoch.
"""
METHOD = """\
## How it was measured

- {cpu}, {cpus} CPUs, {system}; Python {python}, {versions}.
- {dates}, commit {commits}; load of the machine at the start of each measurement:
  {low} to {high}.
- Every measurement runs in a fresh process, with one thread per process for arithmetic.

## Again

```bash
python benchmarks/scale.py --document docs/benchmarks/scale.md
```

It needs about 4 GB of disk for generated scans, which it deletes, and compares Zarr
where `pip install zarr` was done. `--only` measures parts, `--device-rates` changes the
plan.
"""


def write_page(results: Results, rates: Sequence[float], path: Path) -> None:
    """Write the page in Markdown, with the sections whose results are there."""
    parts = [INTRODUCTION, *_warn_of_load(results)]
    if "storage" in results:
        parts.append(_storage(results))
    if _memory_rows(results):
        parts.append(_memory(results))
    if "raw_mb_per_s" in results:
        parts.append(_reading(results))
    if "training 2" in results:
        parts.append(_training(results))
    if "cost" in results:
        parts += [_cost(results), _plan(results, rates)]
    parts.append(_method(results))
    write_atomically(path, "\n".join(parts))


def _warn_of_load(results: Results) -> list[str]:
    """Say so if more was running than the machine has processors for."""
    high = max(run["load"] for run in results["runs"].values())
    cpus = results["machine"]["cpus"]
    return [LOADED.format(high=high, cpus=cpus)] if high > cpus else []


def _storage(results: Results) -> str:
    n_scans, n_timepoints, n_regions, window = results["plan"]["stored"]
    rows = results["storage"]
    first = rows[0]
    cells = [
        [
            "",
            "files",
            "MB",
            "conversion, s",
            "memory, MB",
            "windows/s, cold",
            "windows/s, warm",
            "whole scans, MB/s, cold",
            "packages to install",
        ]
    ]
    for row in rows:
        measured = ("convert_s", "windows_cold", "windows_warm", "mb_per_s_cold")
        seconds, cold, warm, whole = (_with_ratio(row, first, m) for m in measured)
        facts = [str(row["files"]), _number(row["mb"]), seconds]
        facts += [_number(max(row["convert_mb"], 0)), cold, warm, whole]
        cells.append([row["way"], *facts, str(row["dependencies"])])
    return STORAGE.format(
        n=n_scans,
        t=n_timepoints,
        r=n_regions,
        w=window,
        chunk=CHUNK,
        rounds=ROUNDS,
        table=_table(cells),
    )


def _memory_rows(results: Results) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name.split()[1], found)
        for name, found in results.items()
        if name.startswith("memory ")
    ]


def _memory(results: Results) -> str:
    cells = [["cells", "scans", "load, s", "check, s", "fingerprint, s"]]
    cells[0] += ["checked, MB", "after 1 epoch, MB", "after 2, MB", "peak, MB"]
    rows = _memory_rows(results)
    for kind, row in rows:
        seconds = [row["load_s"], row["check_s"], row["fingerprint_s"]]
        megabytes = [row["door_mb"], *row["held_mb"], row["peak_mb"]]
        numbers = [_number(value) for value in (*seconds, *megabytes)]
        cells.append([KINDS[kind], str(row["n_scans"]), *numbers])
    plan = results["plan"]
    n_timepoints, n_regions, window = plan["many"]
    least, most = min(plan["numbers"]), max(plan["numbers"])
    return MEMORY.format(
        t=n_timepoints,
        r=n_regions,
        w=window,
        kilobytes=n_timepoints * n_regions * 4 / 1e3,
        mb=most * n_timepoints * n_regions * 4 / 1e6,
        cache=plan["cache_mb"],
        least=least,
        most=most,
        growth=" and ".join(_growth(rows, kind) for kind in KINDS),
        table=_table(cells),
    )


KINDS = {"files": "`.npy` files", "shards": "tar shards"}


def _growth(rows: Sequence[tuple[str, dict[str, Any]]], kind: str) -> str:
    """Return what one more scan takes of memory, in words."""
    found = [row for name, row in rows if name == kind]
    more = found[-1]["n_scans"] - found[0]["n_scans"]
    kilobytes = (found[-1]["held_mb"][-1] - found[0]["held_mb"][-1]) * 1e3 / more
    return f"{_number(kilobytes)} KB per scan ({KINDS[kind]})"


def _reading(results: Results) -> str:
    raw = results["raw_mb_per_s"]
    cells = [["room, MB", "reading processes", "windows/s, epoch 1", "epoch 2"]]
    cells[0] += ["MB/s, epoch 2", "of reading raw", "memory, MB"]
    for name, row in results.items():
        if name.startswith("reading "):
            _, room, workers = name.split()
            rates = [_number(rate) for rate in row["windows_per_s"]]
            speed = row["mb_per_s"][-1]
            share = f"{100 * speed / raw:.0f} %"
            held = _number(max(row["held_mb"]))
            cells.append([room, workers, *rates, _number(speed), share, held])
    return READING.format(
        n=max(results["plan"]["numbers"]),
        raw=raw,
        cpus=results["machine"]["cpus"],
        table=_table(cells),
    )


def _training(results: Results) -> str:
    cells = [["reading processes", "ms per scan and epoch", "scans/s", "times faster"]]
    cells[0] += ["CPU ms", "times less"]
    alone = results["training 0"]
    for workers in (0, 2):
        found = results[f"training {workers}"]
        wall, cpu = found["wall_s"], found["cpu_s"]
        times = (alone["wall_s"] / wall, alone["cpu_s"] / cpu)
        numbers = (1e3 * wall, 1 / wall, times[0], 1e3 * cpu, times[1])
        cells.append([str(workers), *map(_number, numbers)])
    plan = results["plan"]
    return TRAINING.format(w=plan["many"][2], n=plan["n_trained"], table=_table(cells))


def _cost(results: Results) -> str:
    cells = [["size", "parameters", "seconds", "times small", "days"]]
    small = results["cost"]["small"]["cpu_s"]
    for size in SIZES:
        found = results["cost"][size]
        seconds = found["cpu_s"]
        days = N_SCANS * N_EPOCHS * seconds / N_DEVICES / 86_400
        numbers = [_number(x) for x in (seconds, seconds / small, days)]
        cells.append([size, f"{found['n_parameters']:,}", *numbers])
    plan = results["plan"]
    return COST.format(
        r=plan["n_regions"],
        w=plan["window"],
        many=f"{N_SCANS:,}",
        epochs=N_EPOCHS,
        devices=N_DEVICES,
        table=_table(cells),
    )


def _plan(results: Results, rates: Sequence[float]) -> str:
    cells = [["r, scans/s", "efficiency", "epoch", f"{N_EPOCHS} epochs"]]
    cells[0] += ["MB/s to read", "reading processes per device"]
    plan = results["plan"]
    n_bytes = plan["window"] * plan["n_regions"] * 4
    large = results["cost"]["large"]
    gradient = 4 * large["n_parameters"]
    exchange = 2 * (N_DEVICES - 1) / N_DEVICES * gradient / BANDWIDTH
    for rate in (1 / large["cpu_s"], *rates):
        step = BATCH / rate
        efficiency = step / (step + exchange)
        together = N_DEVICES * rate * efficiency
        epoch = N_SCANS / together
        measured = ", this CPU, measured" if rate not in rates else ""
        cells.append(
            [
                f"{_number(rate)}{measured}",
                f"{efficiency:.2f}",
                _duration(epoch),
                _duration(N_EPOCHS * epoch),
                _number(together * n_bytes / 1e6),
                str(math.ceil(rate * results["cost"]["window_s"])),
            ]
        )
    return PLAN.format(
        many=f"{N_SCANS:,}",
        devices=N_DEVICES,
        window_ms=1e3 * results["cost"]["window_s"],
        batch=BATCH,
        bandwidth=BANDWIDTH / 1e9,
        gigabytes=N_SCANS * n_bytes / 1e9,
        table=_table(cells),
    )


def _method(results: Results) -> str:
    here, runs = results["machine"], results["runs"].values()
    versions = [f"{name} {v}" for name, v in here["versions"].items() if v]
    loads = [run["load"] for run in runs]
    return METHOD.format(
        cpu=here["cpu"],
        cpus=here["cpus"],
        system=here["system"],
        python=here["python"],
        versions=", ".join(versions),
        dates=", ".join(sorted({run["date"] for run in runs})),
        commits=", ".join(sorted({str(run["commit"] or "unknown") for run in runs})),
        low=min(loads),
        high=max(loads),
    )


def _with_ratio(row: Results, first: Results, name: str) -> str:
    """Return a number and how many times that of the first row it is."""
    if name not in row:
        return "-"
    ratio = "" if row is first else f" ({row[name] / first[name]:.2f}x)"
    return f"{_number(row[name])}{ratio}"


def _number(value: float) -> str:
    """Return three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{_number(seconds / length)} {unit}"
    return f"{_number(seconds)} s"


def _table(cells: Cells) -> str:
    header, *body = cells
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
