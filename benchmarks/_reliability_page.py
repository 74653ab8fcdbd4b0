"""The page on reliability: every number in it comes from the stored trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _reliability_disk import CLEAR as NOTHING_LOST
from _reliability_disk import WHOLE
from _reliability_mutations import CLEAR, HOWS, OTHER, SAME
from _reliability_plot import draw
from _reliability_trials import Row, Trials

from bsym_sklearn.files import write_atomically

SAME_BITS = "same bits"
MEASURED = "measured"
MOST_LISTED = 5
INTRODUCTION = """\
# Reliability

Written by `benchmarks/reliability.py` from its stored trials; nothing here is typed by
hand. The models are the smallest that take every path, on the CPU with one thread; what
is tried are the files, the processes and the order of things, which do not depend on
size.
"""
KILLS = """\
## Killed at random moments

Work runs in a process that gets SIGKILL after a time drawn evenly from the time that it
takes by itself, and is started again, and killed again, until it ends. *same bits*:
weights and losses, or every score and prediction, equal those of a run that nobody
killed. *repeated*: what had to be computed again, per kill. *lost at once*: the most
that one kill has cost, of what may be lost. *finished, then changed*: files of finished
cells that were written again. A temporary file, whose name begins with a dot, may
remain; nothing reads it, and it can be deleted. A trial of a search that was killed in
the moment before it was signed is waited for, here three seconds instead of five
minutes.
"""
DISK = """\
## No room, or no permission

Writing stops after a share of the bytes that are needed, or at once. *clear error,
nothing lost*: an error that names the reason, the older file or none in its place, no
temporary file, and once there is room the same call gives the same bits.
"""
MUTATIONS = """\
## Damaged files

One file of a set is damaged and all are read, in a process that may take {megabytes} MB
more than it has. *clear error*: our exception, which names the file or what is wrong
with it. *same result*: to the bit, as where spaces change, a damaged cell is computed
again, or nobody needs the file. *other data*: `.npy`, tables, `.mat`, HDF5 and CIFTI
have no check of their values, so that other numbers are other data. *wrong*: any other
exception, a crash, more memory or time, or another result of files that have a check.
Pickles that make a folder when they are loaded stood in for every file; the folder was
made *{n_run}* times.
"""
MEMORY = """\
## Memory

Resident memory of one process while a fitted model is called again and again. The slope
is that of a line through the means of ten blocks of the calls after the first fifth,
with its 95 % interval; one step, as of an allocator that takes another piece, tilts it,
while a leak grows to the end.

![Resident memory against calls](reliability.png)
"""
CONCURRENCY = """\
## At once

One fitted model is asked from many threads that start together, each with rows of its
own, and is sent to other processes. *same bits*: every result equals that of one call
after the other. A child that is forked computes with one thread of torch, as OpenMP
does not survive a fork.
"""
AGAIN = """\
## Again

```bash
OMP_NUM_THREADS=1 python benchmarks/reliability.py --document docs/reliability.md
```

A campaign that was stopped goes on where it was. `--only` names campaigns, `--seed`
draws other moments and damages. The tests run a few trials of each.
"""
MEGABYTES = 1000


def write_page(
    found: Mapping[str, Trials], runs: Sequence[dict[str, Any]], path: Path
) -> None:
    """Write the page and its picture."""
    damaged = found["mutations"].rows
    n_run = sum(row["outcome"] == "code was run" for row in damaged)
    parts = [
        INTRODUCTION,
        KILLS,
        _table(_kills(found["kills"])),
        _exceptions(found["kills"], (SAME_BITS,)),
        DISK,
        _table(_disk(found["disk"])),
        _exceptions(found["disk"], (NOTHING_LOST, WHOLE)),
        MUTATIONS.format(megabytes=MEGABYTES, n_run=n_run),
        _table(_mutations("files", "part", damaged)),
        _table(_mutations("damage", "how", damaged)),
        _exceptions(found["mutations"], (CLEAR, SAME, OTHER)),
        MEMORY,
        _table(_memory(found["memory"])),
        _exceptions(found["memory"], (MEASURED,)),
        CONCURRENCY,
        _table(_concurrency(found["concurrency"])),
        _exceptions(found["concurrency"], (SAME_BITS,)),
        _method(runs),
        AGAIN,
    ]
    write_atomically(path, "\n".join(part for part in parts if part))
    draw(found["memory"], path.with_suffix(".png"))


Cells = list[list[str]]


def _table(cells: Cells) -> str:
    """Return a table in Markdown."""
    header, *body = cells
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _kills(trials: Trials) -> Cells:
    header = ["what", "runs", "kills", "same bits", "repeated", "lost at once"]
    cells = [[*header, "finished, then changed", "temporary files left"]]
    for part, rows in trials.parts():
        n_kills = sum(row["kills"] for row in rows)
        per_kill = lost = changed = "-"
        if "repeated" in rows[0]:
            share = sum(row["repeated"] for row in rows) / max(n_kills, 1)
            per_kill = f"{share:.1f} of {rows[0]['needed']} {rows[0]['unit']}"
            changed = str(sum(row["finished_and_changed"] for row in rows))
        if rows[0].get("most_lost") is not None:
            most = max(row["lost_at_once"] for row in rows)
            lost = f"{most} of {rows[0]['most_lost']}"
        same = _count(rows, SAME_BITS)
        left = sum(row["files_left"] for row in rows)
        counts = [str(len(rows)), str(n_kills), str(same)]
        cells.append([part, *counts, per_kill, lost, changed, str(left)])
    return cells


def _disk(trials: Trials) -> Cells:
    header = ["what", "trials", NOTHING_LOST, "error names the file", WHOLE]
    cells = [[*header, "anything else"]]
    for part, rows in trials.parts():
        clear, room = _count(rows, NOTHING_LOST), _count(rows, WHOLE)
        named = sum(row["names_file"] for row in rows)
        counts = [len(rows), clear, named, room, len(rows) - clear - room]
        cells.append([part, *map(str, counts)])
    return cells


def _mutations(title: str, key: str, rows: Sequence[Row]) -> Cells:
    """Return outcomes by one of the columns."""
    cells = [[title, "damaged", CLEAR, SAME, OTHER, "wrong"]]
    names = HOWS if key == "how" else dict.fromkeys(row[key] for row in rows)
    for name in names:
        some = [row for row in rows if row[key] == name]
        good = [_count(some, outcome) for outcome in (CLEAR, SAME, OTHER)]
        counts = [len(some), *good, len(some) - sum(good)]
        cells.append([name, *map(str, counts)])
    return cells


def _memory(trials: Trials) -> Cells:
    header = ["what", "calls", "MB in the end", "MB grown after the first fifth"]
    header.append("in the last third")
    cells = [[*header, "bytes per call", "threads", "open files"]]
    for part, rows in trials.parts():
        for row in rows:
            if row["outcome"] != MEASURED:
                continue
            megabytes = row["megabytes"]
            interval = f"{row['low']:.0f} to {row['high']:.0f}"
            cells.append(
                [
                    part,
                    str(row["n_calls"]),
                    f"{megabytes[-1]:.1f}",
                    f"{row['grown_mb']:.2f}",
                    f"{megabytes[-1] - megabytes[-1 - len(megabytes) // 3]:.2f}",
                    f"{row['bytes_per_call']:.0f} ({interval})",
                    str(row["threads"]),
                    str(row["files"]),
                ]
            )
    return cells


def _concurrency(trials: Trials) -> Cells:
    cells = [["what", "runs", "same bits", "results compared"]]
    for part, rows in trials.parts():
        n_results = sum(row["results"] for row in rows)
        counts = [len(rows), _count(rows, SAME_BITS), n_results]
        cells.append([part, *map(str, counts)])
    return cells


def _count(rows: Sequence[Row], outcome: str) -> int:
    return sum(row["outcome"] == outcome for row in rows)


def _exceptions(trials: Trials, good: Sequence[str]) -> str:
    """Return what else came out, and how often."""
    found = Counter(
        f"{row['part']}: {row['outcome']}"
        for row in trials.rows
        if row["outcome"] not in good
    )
    if not found:
        return ""
    lines = [f"- {n} x {text}" for text, n in found.most_common(MOST_LISTED)]
    return "\n".join(["What else came out:", "", *lines, ""])


def _method(runs: Sequence[dict[str, Any]]) -> str:
    """Return when and where the trials were made."""
    lines = ["## Where", ""]
    for run in runs:
        versions = [f"{name} {v}" for name, v in run["versions"].items() if v]
        lines.append(
            f"- {run['date']}, commit {run['commit'] or 'unknown'}: "
            f"{', '.join(run['campaigns'])}; {run['cpu']}, {run['cpus']} CPUs, "
            f"{run['system']}; Python {run['python']}, {', '.join(versions)}."
        )
    return "\n".join(lines) + "\n"
