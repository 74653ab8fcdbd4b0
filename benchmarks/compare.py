"""Compare models by name on any cohort folder.

Whole scans, with people on one side of a fold only:

    python benchmarks/compare.py --cohort FOLDER --target COLUMN --groups COLUMN

Leaving one site out at a time, or testing on another cohort:

    python benchmarks/compare.py --cohort FOLDER --target COLUMN --leave-out site
    python benchmarks/compare.py --cohort FOLDER --target COLUMN --external FOLDER

Without labels: name the person from a window of 50 time points of the other half of
the scan:

    python benchmarks/compare.py --cohort FOLDER --target participant_id --windows 50

Finished fits are kept in --out: the same command goes on where it was stopped, and with
more --models computes only those.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from _output import describe, draw, write_results
from _tasks import GROUP, Task, cohort_task, identification_task

from bsym_sklearn import list_models
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.tables import conclusions, strongest_rival
from bsym_sklearn.data import load_cohort

OUTPUT = Path(__file__).resolve().parents[1] / "demo_output"


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    task = make_task(options)
    models = options.models or list_models(task.kind, has=task.has)
    folder = options.out or OUTPUT / f"{options.cohort.resolve().name}-{options.target}"
    results = run(task, models, folder, options)
    tests = {"metric": options.metric, "rope": options.rope}
    reference = options.reference or strongest_rival(
        summarize(results, metric=options.metric, n_resamples=0)
    )
    notes = conclusions(results, reference=reference, **tests)
    summary = summarize(results, reference=reference, **tests)
    settings = describe(task, vars(options))
    print(write_results(folder, results, summary, notes, settings))
    if importlib.util.find_spec("matplotlib") is not None:
        draw(folder, summary)
    print(f"\nTables, predictions, pictures and settings are in {folder}")


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
        n_repeats=options.repeats,
        leave_out=options.leave_out,
        external=load_cohort(options.external) if options.external else None,
        confounds=options.confounds,
    )


def run(
    task: Task, models: Sequence[str], folder: Path, options: argparse.Namespace
) -> pd.DataFrame:
    """Compute what is not there yet."""
    return compare(
        models,
        task.X,
        task.y,
        groups=task.groups,
        cv=task.splits,
        task=task.kind,
        size=options.size,
        seeds=options.seeds,
        level=options.level,
        confounds=task.confounds,
        group_column=GROUP,
        window=options.window,
        batch_size=options.batch_size,
        max_epochs=options.max_epochs,
        pretrain_epochs=options.pretrain_epochs,
        n_trials=options.n_trials,
        store=folder,
        n_jobs=options.n_jobs,
        verbose=options.verbose,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
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
    add("--repeats", type=int, default=1, help="of the folds, each shuffled anew")
    add("--leave-out", metavar="COLUMN", help="test on each of its values in turn")
    add("--external", type=Path, metavar="FOLDER", help="test on another cohort")
    add("--models", nargs="+", metavar="NAME", help="default: all that apply")
    add("--size", choices=("small", "base", "large"), default="small")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of what has one")
    add(
        "--level", choices=("A", "B", "C"), default="A", help="C: pretrain on all scans"
    )
    add("--window", type=int, help="time points that a network sees at once")
    add("--batch-size", type=int, default=16)
    add("--max-epochs", type=int, help="with targets (default: each model's own)")
    add("--pretrain-epochs", type=int, default=50)
    add("--n-trials", type=int, default=0, help="of a search, for all with a space")
    add("--reference", help="model to beat (default: the best classical one)")
    add("--metric", help="to test by (default: AUROC, accuracy or R2)")
    add("--rope", type=float, default=0.01, help="a difference that is none")
    add("--out", type=Path, help="folder for results; finished fits in it are kept")
    add("--n-jobs", type=int, default=2, help="fits side by side, one thread each")
    add("--verbose", action="count", default=0, help="show the progress everywhere")
    return command


if __name__ == "__main__":
    main()
