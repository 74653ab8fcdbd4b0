"""A missing modality: fusion tested while ever more scans lack their connectome.

    python benchmarks/missing_modality.py --cohort FOLDER --target COLUMN
    python benchmarks/missing_modality.py --cohort FOLDER --target COLUMN --drop fmri

All scans have both modalities at first. A model trained on complete scans is fitted
once per fold and seed and predicts every test scan with and without the modality; a
share mixes the two. The same model is fitted again for every share of which its
training scans lack as much. Beside them stand models that read the other modality
only; they are also what is left where all training scans lack it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _curves import report_curves
from _runs import (
    CLASSICAL,
    brainsymphony,
    make_parser,
    output_folder,
    read_complete_task,
    run,
)
from _tasks import GROUP, Task

from bsym_sklearn import make_candidate
from bsym_sklearn.analysis.resampling import degeneracy
from bsym_sklearn.analysis.scores import classification_scores, regression_scores
from bsym_sklearn.analysis.splits import Split

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
OTHER = {"fmri": "sc", "sc": "fmri"}
FUSION = {"brainsymphony": "BrainSymphony", "linear": "tangent, SC + linear"}
COMPLETE, AS_MANY = "trained on complete scans", "as many missing in training"
NOTES = (
    "Scans lose the modality at random; those of a smaller share are among those of a "
    "larger one.",
    "Linear models take the mean of the training scans for what a scan lacks.",
    "p values in share-* are adjusted over the models of a share, not over shares.",
)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    task, notes = read_complete_task(options, ("fmri", "sc"))
    folder = output_folder(options, "missing_modality")
    parts = [
        part for seed in options.seeds for part in run_seed(task, seed, folder, options)
    ]
    results = pd.concat(parts, ignore_index=True)
    axis = f"share of the scans without {options.drop}"
    text = report_curves(
        folder,
        task,
        results,
        options,
        axis=axis,
        reference=single_label(OTHER[options.drop]),  # what the modality is worth
        notes=[*notes, *NOTES],
    )
    print(text)
    print(f"\nTables, predictions and the figure are in {folder}")


def run_seed(
    task: Task, seed: int, folder: Path, options: argparse.Namespace
) -> list[pd.DataFrame]:
    """Return the results of all shares with one seed."""
    n = len(task.y)
    place = np.random.default_rng(seed).permutation(n)
    twice = with_copies(task, options.drop)
    fusion = make_models(task.kind, "both", options)
    single = make_models(task.kind, OTHER[options.drop], options)
    seeds = [seed]
    both = [replace(s, test=np.append(s.test, s.test + n)) for s in task.splits]
    complete = run(fusion, twice, folder, options, splits=both, seeds=seeds)
    alone = run(single, twice, folder, options, splits=task.splits, seeds=seeds)
    parts = []
    for share in options.shares:
        mixed = pd.DataFrame(
            [mix(cell, share, place, task) for cell in complete.to_dict("records")]
        )
        if share == 0:
            as_many = mixed
        elif share == 1:
            as_many = alone[alone["model"].isin(fusion)]
        else:
            splits = [thinned(split, share, place) for split in task.splits]
            as_many = run(fusion, twice, folder, options, splits=splits, seeds=seeds)
        found = [named(mixed, COMPLETE), named(as_many, AS_MANY), alone]
        parts += [part.assign(share=share) for part in found]
    return parts


def make_models(
    kind: str, modality: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Return BrainSymphony and a linear model, and chance beside a single modality."""
    label = FUSION["brainsymphony"] if modality == "both" else single_label(modality)
    linear = make_candidate(CLASSICAL[modality], kind, group_column=GROUP)
    models = {
        "brainsymphony": brainsymphony(
            label, kind, options, pretraining=not options.scratch, modalities=modality
        ),
        "linear": linear,
    }
    if modality != "both":
        models["dummy"] = make_candidate("dummy", kind)
    return models


def single_label(modality: str) -> str:
    """Return what BrainSymphony with one modality is called."""
    return f"BrainSymphony, {modality} only"


def with_copies(task: Task, drop: str) -> Task:
    """Return the task with every scan again, without a modality: row i as row n + i."""
    without = task.X.assign(**{drop: pd.Series([None] * len(task.X), dtype=object)})
    return replace(
        task,
        X=pd.concat([task.X, without], ignore_index=True),
        y=np.append(task.y, task.y),
        groups=np.append(task.groups, task.groups),
    )


def lacks(rows: np.ndarray, share: float, place: np.ndarray) -> np.ndarray:
    """Return which of some rows lose the modality, in an order drawn once."""
    return place[rows].argsort().argsort() < round(share * len(rows))


def thinned(split: Split, share: float, place: np.ndarray) -> Split:
    """Return a split with copies in the place of the rows that lose the modality."""
    train, test = (rows + len(place) * lacks(rows, share, place) for rows in split)
    return replace(split, train=train, test=test)


def mix(
    cell: dict[str, Any], share: float, place: np.ndarray, task: Task
) -> dict[str, Any]:
    """Return a cell of scans and their copies as one of that share of copies."""
    n_test = len(cell["rows"]) // 2
    rows = cell["rows"][:n_test]
    chosen = np.arange(n_test) + n_test * lacks(rows, share, place)
    truth, predicted = cell["y_true"][:n_test], cell["y_pred"][chosen]
    probabilities = None
    if task.kind == "regression":
        scores = regression_scores(truth, predicted)
    else:
        probabilities = cell["y_proba"][chosen]
        scores = classification_scores(truth, predicted, probabilities, cell["classes"])
    return (
        cell
        | scores
        | {
            "rows": rows,
            "groups": cell["groups"][:n_test],
            "y_true": truth,
            "y_pred": predicted,
            "y_proba": probabilities,
            "degenerate": any(degeneracy(truth, predicted, probabilities)),
            "n_test": n_test,
            "test_fraction": n_test / (cell["n_train"] + n_test),
        }
    )


def named(results: pd.DataFrame, training: str) -> pd.DataFrame:
    """Return fusion results under a label that says what the training scans had."""
    return results.assign(
        label=results["model"].map(FUSION) + f", {training}",
        model=results["model"] + f", {training}",
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = make_parser(__doc__)
    add = command.add_argument
    add("--drop", choices=tuple(OTHER), default="sc", help="modality that is removed")
    add(
        "--shares",
        nargs="+",
        type=float,
        choices=SHARES,
        default=list(SHARES),
        metavar="SHARE",
        help=f"some of {SHARES}",
    )
    add("--scratch", action="store_true", help="BrainSymphony without pretraining")
    return command


if __name__ == "__main__":
    main()
