"""One row of a comparison, on one fold, with one seed, is a cell.

Cells run side by side, and each is kept in one JSON file under a name that hashes all
that it depends on, so that a killed run goes on where it was.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from _models import (
    ROWS,
    Fold,
    Settings,
    count_parameters,
    pretraining,
    probabilities,
    tuned,
)
from _scores import classification_scores, regression_scores
from _tasks import Task, check_disjoint, inner_splits
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import bsym_sklearn
from bsym_sklearn.data import check_cohort

PRETRAINING = "pretraining"  # the cell that makes the weights that others start from
LIBRARIES = ("bsym_sklearn", "numpy", "scikit-learn", "torch", "skorch", "nilearn")


class Cell(NamedTuple):
    """One row, on one fold, with one seed."""

    row: str
    fold: int
    seed: int


class Comparison:
    """A comparison: rows of one task, their seeds and where results are kept.

    Parameters
    ----------
    task : Task
        What to predict.
    rows : sequence of str
        Keys of `ROWS`.
    settings : Settings
        Of BrainSymphony.
    folder : Path
        For results.
    seeds : sequence of int, default=(0,)
        Of BrainSymphony; the other rows use the first.
    """

    def __init__(
        self,
        task: Task,
        rows: Sequence[str],
        settings: Settings,
        folder: Path,
        seeds: Sequence[int] = (0,),
    ) -> None:
        for row in rows:
            lacking = set(ROWS[row].needs) - set(task.has)
            if lacking:
                raise ValueError(
                    f"The row {row!r} needs {sorted(lacking)}. Got a task with "
                    f"{list(task.has)}. Leave the row out."
                )
        self.task = task
        self.rows = tuple(rows)
        self.settings = settings
        self.folder = folder
        self.seeds = tuple(seeds)
        self._everything = self._hash_of_everything()

    @property
    def cells(self) -> list[Cell]:
        """Return the cells of the table, those that make weights first."""
        folds = range(len(self.task.folds))
        names = self.rows
        if any(ROWS[row].pretrained for row in names):
            names = (PRETRAINING, *names)
        return [
            Cell(row, fold, seed)
            for row in names
            for fold in folds
            for seed in (self.seeds if _is_seeded(row) else self.seeds[:1])
        ]

    def path(self, cell: Cell) -> Path:
        """Return the file that holds the result of a cell."""
        return self.folder / "cells" / f"{self._name(cell)}.json"

    def weights(self, cell: Cell) -> Path:
        """Return the folder of the model pretrained for a cell's fold and seed."""
        source = cell._replace(row=PRETRAINING)
        return self.folder / "pretrained" / self._name(source)

    def read(self, cell: Cell) -> dict[str, Any]:
        """Return the result of a finished cell."""
        return json.loads(self.path(cell).read_text())

    def records(self) -> list[dict[str, Any]]:
        """Return the results of all rows."""
        return [self.read(cell) for cell in self.cells if cell.row != PRETRAINING]

    def _name(self, cell: Cell) -> str:
        key = joblib.hash((self._everything, tuple(cell)))
        return f"{cell.row}-fold{cell.fold}-seed{cell.seed}-{key[:16]}"

    def _hash_of_everything(self) -> str:
        """Return a name for all that a result depends on, the code included."""
        here = Path(__file__).parent
        code = [*Path(bsym_sklearn.__file__).parent.rglob("*.py"), *here.glob("_*.py")]
        task = self.task
        others = task.X.drop(columns=["fmri", "sc"], errors="ignore")
        parts = (
            [path.read_bytes() for path in sorted(code)],
            [version(name) for name in LIBRARIES],
            asdict(self.settings),
            check_cohort(task.X).fingerprint(),
            others.astype(str).to_dict("list"),
            (task.y.tolist(), task.kind, task.confounds, task.groups.tolist()),
            [(train.tolist(), test.tolist()) for train, test in task.folds],
        )
        return str(joblib.hash(parts))


def _is_seeded(row: str) -> bool:
    return row == PRETRAINING or ROWS[row].seeded


def _waits(row: str) -> bool:
    """Return whether a row starts from weights that another cell makes."""
    return row != PRETRAINING and ROWS[row].pretrained


def run(comparison: Comparison, *, n_jobs: int = 1) -> list[dict[str, Any]]:
    """Compute the cells that are not there yet, in parallel; return all results."""
    (comparison.folder / "cells").mkdir(parents=True, exist_ok=True)
    todo = [c for c in comparison.cells if not comparison.path(c).exists()]
    # What starts from pretrained weights waits for them; what takes long goes first.
    first = [c for c in todo if not _waits(c.row)]
    then = [c for c in todo if _waits(c.row)]
    first.sort(key=lambda c: (c.row != PRETRAINING, c.row != "scratch"))
    then.sort(key=lambda c: c.row != "finetuned")
    n_cells = len(comparison.cells)
    with (
        # disable=None: quiet unless stderr is a terminal
        tqdm(total=n_cells, unit="fit", disable=None, desc="comparing") as bar,
        joblib.parallel_config(backend="loky", inner_max_num_threads=1),
    ):
        bar.update(n_cells - len(todo))
        for cells in (first, then):
            parallel = joblib.Parallel(n_jobs, return_as="generator_unordered")
            for cell in parallel(
                joblib.delayed(run_cell)(comparison, c) for c in cells
            ):
                bar.set_postfix_str(f"{cell.row}, fold {cell.fold + 1}")
                bar.update()
    return comparison.records()


def run_cell(comparison: Comparison, cell: Cell) -> Cell:
    """Fit one row on the training rows of one fold, judge it on the others, keep it."""
    task = comparison.task
    train, test = task.folds[cell.fold]
    check_disjoint(task.groups, train, test)
    fold = Fold(
        kind=task.kind,
        settings=comparison.settings,
        seed=cell.seed,
        inner_splits=inner_splits(task, train),
        confounds=task.confounds,
        weights=comparison.weights(cell),
    )
    record: dict[str, Any] = cell._asdict()
    torch.set_num_threads(1)  # cells run side by side, and sums keep their order
    started = time.perf_counter()
    with threadpool_limits(1):
        if cell.row == PRETRAINING:
            model = pretraining(fold).fit(task.X.iloc[train])
            model.save_pretrained(fold.weights)
        else:
            model = ROWS[cell.row].make(fold)
            model.fit(task.X.iloc[train], task.y[train])
            record |= _predictions(model, task, test)
            record["tuned"] = tuned(model)
    seconds = time.perf_counter() - started
    if _waits(cell.row):
        seconds += comparison.read(cell._replace(row=PRETRAINING))["seconds"]
    record["seconds"] = seconds
    record["parameters"] = count_parameters(model)
    # of this process so far, in MB; Linux counts in kB, macOS in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record["peak_memory"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
    write_atomically(comparison.path(cell), json.dumps(record))
    return cell


def _predictions(model: Any, task: Task, test: np.ndarray) -> dict[str, Any]:
    """Return what a fitted model says of the test rows, and how good that is."""
    X, truth = task.X.iloc[test], task.y[test]
    probability = None
    if task.kind == "classification":
        probability = probabilities(model, X, task.classes)
        predicted = task.classes[probability.argmax(axis=1)]
        scores = classification_scores(truth, predicted, probability, task.classes)
    else:
        predicted = np.asarray(model.predict(X), dtype=float)
        scores = regression_scores(truth, predicted)
    return {
        "scores": scores,
        "test": test.tolist(),
        "truth": truth.tolist(),
        "predicted": predicted.tolist(),
        "probability": None if probability is None else probability.tolist(),
    }


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)
