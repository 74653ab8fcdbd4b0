"""Kill it, fill its disk, damage its files, call it ten thousand times, all at once.

    OMP_NUM_THREADS=1 python benchmarks/reliability.py --document docs/reliability.md

A campaign that was stopped goes on where it was. As root, disks in memory are mounted
to be filled and to be made read-only; without, these trials are left out. It runs on
Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from _reliability_children import check_one_thread
from _reliability_concurrency import concurrency_trials
from _reliability_disk import can_mount, disk_trials
from _reliability_kills import kill_trials
from _reliability_memory import memory_trials
from _reliability_models import warm_up
from _reliability_mutations import mutation_trials, remove_originals
from _reliability_page import write_page
from _reliability_trials import Trial, Trials
from _speed_measure import commit_of, machine, today

from bsym_sklearn.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "demo_output" / "reliability"
CAMPAIGNS = ("kills", "disk", "mutations", "memory", "concurrency")


class Plan(NamedTuple):
    """How often everything is tried."""

    kills: int = 50
    levels: int = 10
    mutations: int = 1000
    calls: int = 10_000
    fits: int = 200
    threads: int = 64
    rounds: int = 10
    starts: tuple[str, ...] = ("fork", "spawn", "forkserver")
    parts: frozenset[str] | None = None  # all


FULL = Plan()
QUICK = Plan(
    *(1, 1, 12, 20, 1, 16, 1),
    starts=(),
    parts=frozenset(
        {
            *("pretraining", "a comparison", "a save over an older one"),
            "save_pretrained over an older: files may not grow",
            "save_pretrained over an older: a folder of someone else",
            *("saved models", "checkpoints", "cohort folders", "derivatives"),
            *("transform", "predict_proba in 16 threads"),
            "2 forks of a process that has computed with 2 threads",
        }
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    command = parser()
    options = command.parse_args(argv)
    if not sys.platform.startswith("linux"):
        command.error("the campaigns need Linux")
    plan = QUICK if options.quick else FULL
    folder = options.out
    if options.only:
        warm_up()
        check_one_thread()
        note_run(folder, options.only)
    for campaign in options.only:
        trials = Trials(folder / f"{campaign}.jsonl")
        chosen = [
            trial
            for trial in make_trials(campaign, plan, options.seed)
            if plan.parts is None or trial.part in plan.parts
        ]
        run(campaign, chosen, trials)
    if options.document:
        found = {name: Trials(folder / f"{name}.jsonl") for name in CAMPAIGNS}
        runs = json.loads((folder / "runs.json").read_text())
        write_page(found, runs, options.document)


def make_trials(campaign: str, plan: Plan, seed: int) -> Iterator[Trial]:
    """Return all that a campaign has."""
    if campaign == "kills":
        return kill_trials(plan.kills, seed)
    if campaign == "disk":
        return disk_trials(plan.levels, mounts=can_mount())
    if campaign == "mutations":
        return mutation_trials(plan.mutations, seed)
    if campaign == "memory":
        return memory_trials(plan.calls, plan.fits)
    return concurrency_trials(plan.rounds, plan.threads, plan.starts)


def run(campaign: str, plan: list[Trial], trials: Trials) -> None:
    """Try what was not tried yet, and keep what came out at once."""
    todo = [trial for trial in plan if not trials.has(trial.part, trial.number)]
    for i, trial in enumerate(todo, start=1):
        check_one_thread()
        with TemporaryDirectory(prefix="reliability-") as name:
            folder = Path(name, "trial")
            folder.mkdir()
            row = trial.run(folder)
        trials.put(trial, row)
        told = f"{campaign} {i}/{len(todo)}: {trial.part}: {row['outcome']}"
        print(told, flush=True)
    if campaign == "mutations":
        remove_originals()


def note_run(folder: Path, campaigns: Sequence[str]) -> None:
    """Write where, when and with what this run is made."""
    path = folder / "runs.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    note = {"date": today(), "commit": commit_of(ROOT), "campaigns": list(campaigns)}
    write_atomically(path, json.dumps([*runs, {**note, **machine()}], indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--out", type=Path, default=OUTPUT, help="folder for results; kept ones count")
    add(
        "--only",
        nargs="*",
        choices=CAMPAIGNS,
        default=list(CAMPAIGNS),
        metavar="CAMPAIGN",
        help=f"some of: {', '.join(CAMPAIGNS)}; none to write the page again",
    )
    add("--seed", type=int, default=0, help="of the moments and of the damages")
    add("--document", type=Path, help="Markdown page to write, its picture beside it")
    add("--quick", action="store_true", help="a few trials, to see that all works")
    return command


if __name__ == "__main__":
    main()
