"""Low-data curves: the same test scans, ever fewer people to learn from.

    python benchmarks/low_data.py --cohort FOLDER --target COLUMN

For every seed the people of a training fold are put in a random order, class by class,
and a share of them is the beginning of it: the first 10 % are among the first 20 %. All
scans of a person go together. Pretraining sees the share too, and no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
from _curves import report_curves
from _runs import make_parser, output_folder, run
from _tasks import Task, cohort_task

from bsym_sklearn import list_models
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.data import load_cohort

SHARES = (0.1, 0.2, 0.5, 1.0)
MODELS = (
    *("dummy", "tangent", "sc", "tangent+sc", "mean_mlp"),
    *(f"brainsymphony-{row}" for row in ("scratch", "frozen", "finetuned")),
)
N_BINS = 5  # of a continuous target
# People of a class, so that training rows can be divided again, or of a bin.
LEAST = {"classification": 2, "regression": 1}
NOTES = (
    "A share has two people of each class at least, which can be more than it says.",
    "Pretraining sees the share only: it is not only labels that are few.",
    "p values in share-* are adjusted over the models of a share, not over shares.",
)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    task = cohort_task(
        load_cohort(options.cohort),
        options.target,
        groups=options.groups,
        kind=options.task,
        n_folds=options.folds,
        n_repeats=options.repeats,
    )
    folder = output_folder(options, "low_data")
    possible = list_models(task.kind, has=task.has)
    models = options.models or [name for name in MODELS if name in possible]
    parts = []
    for seed in options.seeds:
        splits = make_splits(task, options.shares, seed)
        parts.append(run(models, task, folder, options, splits=splits, seeds=[seed]))
    results = by_share(pd.concat(parts, ignore_index=True))
    axis = "share of the training people"
    print(report_curves(folder, task, results, options, axis=axis, notes=NOTES))
    print(f"\nTables, predictions and the figure are in {folder}")


def make_splits(task: Task, shares: Sequence[float], seed: int) -> list[Split]:
    """Return every split with every share of its training rows."""
    return [
        Split(rows, split.test, f"{split.name} @ {share:g}", split.repeat)
        for split in task.splits
        for share, rows in zip(
            shares, nested_rows(task, split.train, shares, seed), strict=True
        )
    ]


def by_share(results: pd.DataFrame) -> pd.DataFrame:
    """Return the results with the share in a column, and splits by their own names."""
    names = results["split"].str.rsplit(" @ ", n=1, expand=True)
    return results.assign(split=names[0], share=names[1].astype(float))


def nested_rows(
    task: Task, rows: np.ndarray, shares: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Return the rows of each share of the people in `rows`."""
    people = task.groups[rows]
    target = pd.Series(task.y[rows]).groupby(people)
    if task.kind == "regression":
        n_bins = min(N_BINS, len(target) // 2)
        classes = pd.qcut(target.mean(), n_bins, labels=False, duplicates="drop")
    else:  # of a person: all that the scans have
        classes = target.agg(lambda y: " ".join(sorted(set(y))))
    least = LEAST[task.kind]
    rng = np.random.default_rng(seed)
    shuffled = classes.iloc[rng.permutation(len(classes))]
    place = shuffled.groupby(shuffled).cumcount()
    size = shuffled.groupby(shuffled).transform("size")
    chosen = [
        shuffled.index[place < np.maximum((share * size).round(), least)]
        for share in shares
    ]
    return [rows[np.isin(people, names)] for names in chosen]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = make_parser(__doc__)
    add = command.add_argument
    add("--models", nargs="+", metavar="NAME", help=f"default: {', '.join(MODELS)}")
    add("--shares", nargs="+", type=share_of, default=list(SHARES), metavar="SHARE")
    return command


def share_of(text: str) -> float:
    """Return a number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


if __name__ == "__main__":
    main()
