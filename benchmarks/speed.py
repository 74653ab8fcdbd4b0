"""Time BrainSymphony: against the official code, against stand-ins, and as it grows.

Everything of ours, with random weights:

    python benchmarks/speed.py

The same side by side with a checkout of the official implementation, whose weights
ours then has:

    python benchmarks/speed.py --reference FOLDER

A killed run goes on where it was. Close other programs first. With one thread, seconds
are CPU time of the process, with more they are wall time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _speed_derived import DERIVED, derive
from _speed_jobs import GROUPS, Context, Job, make_jobs
from _speed_measure import clock_name, commit_of, machine, today
from _speed_page import write_page
from _speed_plan import FULL, QUICK
from _speed_plot import draw
from _speed_table import Table
from threadpoolctl import threadpool_limits

from bsym_sklearn.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "speed_output"


def main(argv: Sequence[str] | None = None) -> None:
    command = parser()
    options = command.parse_args(argv)
    if options.reference and not (options.reference / "models").is_dir():
        command.error(f"--reference needs a folder with models/: {options.reference}")
    plan = QUICK if options.quick else FULL
    folder = options.output
    if options.fresh:
        for name in ("speed.csv", "machine.json"):
            (folder / name).unlink(missing_ok=True)
    table = Table(folder / "speed.csv")
    how = Context(options.reference, options.threads, options.repeats)
    jobs = list(make_jobs(plan, options.only, how))
    todo = [job for job in jobs if not table.has(job.keys)]
    if not (todo or table.rows):
        command.error(f"--only without a part needs earlier results in {folder}")
    if todo:
        note_run(folder, options)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        run(todo, table, n_kept=len(jobs) - len(todo))
    torch.set_num_threads(before)
    table.drop_works(DERIVED)
    table.put(derive(table.rows, plan))
    draw(table.rows, plan, folder / "speed.png")
    if options.document:
        facts = json.loads((folder / "machine.json").read_text())
        write_page(table.rows, facts, plan, options.document)
        draw(table.rows, plan, options.document.with_name("speed.png"))
    print(f"{table.path.name}, machine.json and speed.png are in {folder}")


def run(jobs: Sequence[Job], table: Table, n_kept: int) -> None:
    """Do the jobs one after the other; keep the rows of each at once."""
    n_jobs = n_kept + len(jobs)
    for i, job in enumerate(jobs, start=n_kept + 1):
        print(f"[{i}/{n_jobs}] {job.name}", flush=True)
        rows = job.run()
        table.put(rows)
        for row in rows:
            seconds = (
                "" if row.seconds_median is None else f"{row.seconds_median:.4g} s"
            )
            value = "" if row.value is None else f"{row.value:.4g} {row.unit}"
            faster = row.ratio_to_reference
            ratio = "" if faster is None else f"{faster:.1f}x"
            memory = "" if row.extra_mb is None else f"{row.extra_mb:.0f} MB"
            print(f"    {row.variant}:", seconds, ratio, memory, value, flush=True)


def note_run(folder: Path, options: argparse.Namespace) -> None:
    """Write where and how this run measures; refuse to mix machines or code."""
    path = folder / "machine.json"
    here = {**machine(), "sizes": "tiny" if options.quick else "published"}
    facts: dict[str, Any] = {"machine": here, "runs": []}
    if path.exists():
        facts = json.loads(path.read_text())
        changed = [name for name in here if here[name] != facts["machine"].get(name)]
        if changed:
            raise SystemExit(
                f"The results in {folder} are of other {', '.join(changed)}. Name "
                "another --output, or measure all anew with --fresh."
            )
    reference = options.reference
    facts["runs"].append(
        {
            "date": today(),
            "commit": commit_of(ROOT),
            "reference_commit": None if reference is None else commit_of(reference),
            "threads": options.threads,
            "clock": clock_name(options.threads),
            "repeats": options.repeats,
            "only": options.only,
            "load_at_start": round(os.getloadavg()[0], 2),
        }
    )
    write_atomically(path, json.dumps(facts, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--reference", type=Path, help="checkout of the official code, never changed")
    add("--output", type=Path, default=OUTPUT, help="folder for results")
    add("--threads", type=int, default=1, help="of everything but cross-validation")
    add("--repeats", type=int, default=7, help="timings of each; 3 where it is slow")
    add(
        "--only",
        nargs="*",
        choices=GROUPS,
        default=list(GROUPS),
        metavar="PART",
        help=f"some of: {', '.join(GROUPS)}; none to write the page again",
    )
    add("--document", type=Path, help="Markdown page to write, with its plot beside it")
    add("--fresh", action="store_true", help="forget earlier results in the folder")
    add("--quick", action="store_true", help="tiny sizes, to see that all works")
    return command


if __name__ == "__main__":
    main()
