"""Compare BrainSymphony with what must be beaten, on any cohort folder.

Whole scans, with people (or sites, ...) on one side of a fold only:

    python benchmarks/compare.py --cohort FOLDER --target COLUMN --groups COLUMN

Without labels: name the person from a window of 50 time points of the other half of
the scan:

    python benchmarks/compare.py --cohort FOLDER --target participant_id --windows 50
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from _cells import Comparison, run
from _models import ROWS, Settings
from _tables import conclusions, write_results
from _tasks import Task, cohort_task, identification_task

from bsym_sklearn.data import load_cohort

OUTPUT = Path(__file__).resolve().parents[1] / "demo_output"


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    task = make_task(options)
    rows = options.rows or [
        name for name, row in ROWS.items() if set(row.needs) <= set(task.has)
    ]
    settings = Settings(
        modalities=options.modalities,
        window=options.window,
        pretrain_epochs=options.pretrain_epochs,
        max_epochs=options.max_epochs,
        dim=options.dim,
        n_heads=options.n_heads,
        depth=options.depth,
        lr=options.lr,
        validation_fraction=options.validation_fraction,
    )
    folder = options.out or OUTPUT / f"{options.cohort.resolve().name}-{options.target}"
    comparison = Comparison(task, rows, settings, folder, options.seeds)
    records = run(comparison, n_jobs=options.n_jobs)
    print(write_results(comparison, records, conclusions(comparison, records)))
    print(f"\nTables, predictions and settings are in {folder}")


def make_task(options: argparse.Namespace) -> Task:
    """Read the cohort and say what is to be predicted."""
    cohort = load_cohort(options.cohort)
    if options.windows is not None:
        return identification_task(cohort, options.windows, target=options.target)
    return cohort_task(
        cohort,
        options.target,
        groups=options.groups,
        kind=options.task,
        n_folds=options.folds,
        confounds=options.confounds,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    settings = Settings()
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --window and --windows are two things
    )
    add = command.add_argument
    add("--cohort", type=Path, required=True, help="folder with participants.tsv")
    add("--target", required=True, help="column to predict")
    add("--groups", help="column whose rows stay together (default: participant_id)")
    add("--task", choices=("auto", "classification", "regression"), default="auto")
    add("--confounds", nargs="+", default=[], metavar="COLUMN", help="a row of its own")
    add("--windows", type=int, metavar="N", help="identify from windows of N points")
    add("--folds", type=int, default=5, help="of whole scans; windows have two")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="of BrainSymphony")
    add("--rows", nargs="+", choices=tuple(ROWS), help="default: all that apply")
    add("--out", type=Path, help="folder for results; finished cells in it are kept")
    add("--n-jobs", type=int, default=2, help="fits side by side, one thread each")
    model = command.add_argument_group("BrainSymphony")
    add = model.add_argument
    add("--modalities", choices=("auto", "fmri", "sc", "both"), default="auto")
    add("--window", type=int, help="time points seen at once (default: at most 200)")
    add("--pretrain-epochs", type=int, default=settings.pretrain_epochs)
    add("--max-epochs", type=int, default=settings.max_epochs, help="with targets")
    add("--dim", type=int, default=settings.dim)
    add("--depth", type=int, default=settings.depth)
    add("--n-heads", type=int, default=settings.n_heads)
    add("--lr", type=float, default=settings.lr)
    add("--validation-fraction", type=float, default=settings.validation_fraction)
    return command


if __name__ == "__main__":
    main()
