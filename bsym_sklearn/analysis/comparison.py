"""Models side by side on the same splits: fair, resumable, in parallel."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar
from tqdm import tqdm

from bsym_sklearn.analysis.cells import Cell, Pretraining, run, with_seed
from bsym_sklearn.analysis.entries import Entry, check_weights, make_entries
from bsym_sklearn.analysis.identity import describe, describe_folder, hash_of
from bsym_sklearn.analysis.memory import one_thread
from bsym_sklearn.analysis.problem import Problem, make_problem
from bsym_sklearn.analysis.provenance import Provenance, current_provenance
from bsym_sklearn.analysis.splits import Split
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.estimators.registry import PRETRAIN_EPOCHS
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model.layers import check_choice

LEVELS = ("A", "B", "C")
# Columns of the table that come from the record of a cell as they are.
KEPT = (
    "seconds",
    "seconds_pretraining",
    "seconds_predict",
    "peak_memory_mb",
    "n_parameters",
    "tuned",
    "degenerate",
    "versions",
    "code",
    "commit",
)


def compare(
    models: Sequence[str] | Mapping[str, Any],
    X: Any,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    cv: Any = 5,
    n_repeats: int = 1,
    split_seed: int = 0,
    task: str = "auto",
    size: str | None = "small",
    seeds: Sequence[int] = (0,),
    level: str = "A",
    external: tuple[Any, ArrayLike] | None = None,
    confounds: Sequence[str] = (),
    group_column: str = "participant_id",
    window: int | None = None,
    batch_size: int = 16,
    max_epochs: int | None = None,
    pretrain_epochs: int = PRETRAIN_EPOCHS,
    n_trials: int = 0,
    store: str | Path | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Fit and judge every model on the same splits.

    What a model learns, it learns from the training rows of a split, and participants
    are on one side of it. Each finished cell (model, split, seed) is kept in `store`
    and never computed again: a comparison that was stopped goes on where it was, and a
    model added later costs only its own cells.

    Parameters
    ----------
    models : list of str, or mapping of str to estimator, Candidate or str
        Names of :func:`~bsym_sklearn.estimators.registry.list_models`, or labels and
        what they stand for: any unfitted scikit-learn estimator that takes `X`. A
        Candidate brings its own label.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    y : array-like of shape (n_scans,)
        Target, one value per scan.
    groups : array-like of shape (n_scans,) or None, default=None
        Participants, or what else may not be on both sides of a split. None takes the
        column `group_column` of `X`, or each scan as its own if there is none.
    cv : int, splitter of scikit-learn, or iterable of Split or (train, test), default=5
        A number stands for :func:`~bsym_sklearn.analysis.splits.grouped_folds`.
    n_repeats : int, default=1
        Repetitions of the folds, if `cv` is a number.
    split_seed : int, default=0
        Draws those folds.
    task : {"auto", "classification", "regression"}, default="auto"
        See :func:`~bsym_sklearn.analysis.splits.task_of`.
    size : {"small", "base", "large"} or None, default="small"
        Of the models by name.
    seeds : sequence of int, default=(0,)
        All models with a `random_state` are fitted with each; the others once.
    level : {"A", "B", "C"}, default="A"
        What pretraining may have seen. ``"A"``: training rows only. ``"B"``: for models
        with given weights, other participants than the tested ones, which is checked
        with the participants that were saved with the weights. ``"C"``: the scans of
        the test rows too, without targets (transductive), or weights of which this is
        not known. Every row of the result says which.
    external : tuple (X, y) or None, default=None
        Another cohort to test on, after learning from all of the first; in place of
        `cv`.
    confounds : sequence of str, default=()
        Columns of `X` that the model ``"confounds"`` reads.
    group_column : str, default="participant_id"
        Column of `X` by which models divide their training rows. It is made from
        `groups` if it is not there.
    window, batch_size, max_epochs, pretrain_epochs
        See :func:`~bsym_sklearn.estimators.registry.make_model`.
    n_trials : int, default=0
        Trials of a search within the training rows, for every model by name that has a
        space to search. 0 searches nothing; models with a grid of their own use it.
    store : str, Path or None, default=None
        Folder for finished cells. None keeps nothing.
    n_jobs : int or None, default=None
        Cells at a time, one thread each; None is 1 unless
        :func:`joblib.parallel_config` says otherwise, also in which kind of workers.
    verbose : int, default=0
        Above 0, the progress is shown even where stderr is no terminal.

    Returns
    -------
    DataFrame
        One row per cell: ``model``, ``label``, ``family``, ``split``, ``repeat``,
        ``seed``, ``level``, the scores of
        :data:`~bsym_sklearn.analysis.scores.METRICS`, the test rows and what was said
        of them (``rows``, ``groups``, ``y_true``, ``y_pred``, ``y_proba`` with one
        column for each of ``classes``; arrays),
        ``seconds`` of the fit (with the search, and with ``seconds_pretraining``),
        ``seconds_predict``, ``peak_memory_mb`` of the worker, ``n_parameters``,
        ``tuned``, ``degenerate`` (see
        :func:`~bsym_sklearn.analysis.resampling.degeneracy`), ``versions``, ``code``,
        ``commit``, ``n_train``, ``n_test``, ``test_fraction`` and ``weights``, the
        folder in `store` of the pretrained model. ``level`` is "A" for models that
        saw nothing before their fit.

    Raises
    ------
    BrainDataError
        If scans or targets cannot be used.
    ValueError
        If a participant is on both sides of a split, pretrained weights have seen one
        that is tested, or a model lacks what it needs.
    RuntimeError
        If models failed, after all others were finished.

    Warns
    -----
    BrainSymphonyWarning
        If the cells come from different versions of the code.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> chance = DummyClassifier(strategy="prior")
    >>> results = compare({"chance": chance}, cohort.data, cohort.target, cv=2)
    >>> results[["model", "split", "auroc"]]
        model   split  auroc
    0  chance  fold 1    0.5
    1  chance  fold 2    0.5
    """
    check_choice(level, LEVELS, "level")
    check_scalar(n_trials, "n_trials", int, min_val=0)
    problem, splits = make_problem(
        X,
        y,
        groups,
        task=task,
        cv=cv,
        n_repeats=n_repeats,
        seed=split_seed,
        external=external,
        group_column=group_column,
    )
    drawn = tuple(int(seed) for seed in seeds)
    if not drawn:
        raise ValueError("compare needs at least one seed. Got none.")
    entries = make_entries(
        models,
        problem,
        tuned=n_trials > 0,
        size=size,
        group_column=group_column,
        window=window,
        batch_size=batch_size,
        max_epochs=max_epochs,
        pretrain_epochs=pretrain_epochs,
        confounds=tuple(confounds),
    )
    for entry in entries:
        check_weights(entry, problem, splits, level, group_column)
    with _open(store) as cells:
        plan = _plan(entries, problem, splits, drawn, level, n_trials)
        provenance = current_provenance()
        made = [cell for _, cell in plan]
        _run_all(made, problem, cells, provenance, n_jobs, verbose)
        rows = [
            _as_row(entry, cell, problem, level, cells.read(cell.key) or {})
            | {"weights": _weights(cell, cells) if store is not None else None}
            for entry, cell in plan
        ]
    table = pd.DataFrame(rows)
    _warn_of_versions(table, provenance)
    return table


def _plan(
    entries: list[Entry],
    problem: Problem,
    splits: list[Split],
    seeds: tuple[int, ...],
    level: str,
    n_trials: int,
) -> list[tuple[Entry, Cell]]:
    """Return all cells of the table."""
    data = problem.fingerprint()
    return [
        (entry, _cell(entry, split, seed, data, level, n_trials))
        for entry in entries
        for split in splits
        for seed in (seeds if entry.seeded else seeds[:1])
    ]


def _cell(
    entry: Entry, split: Split, seed: int, data: str, level: str, n_trials: int
) -> Cell:
    """Return one cell, named after all that its result depends on."""
    candidate = entry.candidate
    name = f"{candidate.label}, {split.name}, seed {seed}"
    pretraining = None
    if candidate.pretrainer is not None:
        embedder = with_seed(candidate.pretrainer, seed)
        seen = np.union1d(*split) if level == "C" else split.train
        pretraining = Pretraining(
            hash_of([data, describe(embedder), seen.tolist()]),
            f"pretraining of {name}",
            embedder,
            seen,
        )
    estimator = with_seed(candidate.estimator, seed)
    search = None
    if entry.space and n_trials:
        search = [n_trials, seed, {k: repr(v) for k, v in entry.space.items()}]
    key = hash_of(
        [
            data,
            [rows.tolist() for rows in split],
            describe(estimator),
            pretraining and [pretraining.key, candidate.pretrained_parameter],
            level if entry.starts_from_weights else None,
            search,
        ]
    )
    return Cell(
        key,
        name,
        estimator,
        split,
        seed,
        pretraining,
        candidate.pretrained_parameter,
        entry.space,
        n_trials,
    )


@contextmanager
def _open(store: str | Path | None) -> Iterator[CellStore]:
    """Open a store, one that vanishes if there is no folder for it."""
    if store is not None:
        yield CellStore(store)
        return
    with tempfile.TemporaryDirectory(prefix="bsym-") as folder:
        yield CellStore(folder)


def _run_all(
    cells: list[Cell],
    problem: Problem,
    store: CellStore,
    provenance: Provenance,
    n_jobs: int | None,
    verbose: int,
) -> None:
    """Compute what is not there, the weights that others start from first."""
    unfinished = {c.key: c for c in cells if store.read(c.key) is None}
    sources = [c.pretraining for c in unfinished.values() if c.pretraining is not None]
    waiting = {c.key: c for c in sources}  # several models start from one
    pretraining = {k: c for k, c in waiting.items() if not _has_weights(c, store)}
    free = [c for c in unfinished.values() if c.pretraining is None]
    then = [c for c in unfinished.values() if c.pretraining is not None]
    failed: dict[str | None, str] = {}  # names of cells, by their key
    errors = []
    bar = tqdm(
        total=len(cells) + len(pretraining),
        initial=len(cells) - len(unfinished),
        desc="comparing",
        unit="fit",
        disable=None if verbose == 0 else False,  # None: unless at a terminal
    )
    with bar, one_thread():
        first: list[Cell | Pretraining] = [*pretraining.values(), *free]
        for batch in (first, then):
            ready = [c for c in batch if _source(c) not in failed]
            parallel = joblib.Parallel(n_jobs, return_as=_return_as())
            jobs = (joblib.delayed(run)(c, problem, store, provenance) for c in ready)
            for cell, error in parallel(jobs):
                bar.set_postfix_str(cell.name)
                bar.update()
                if error is not None:
                    failed[cell.key] = cell.name
                    errors.append(f"{cell.name}: {error}")
    if errors:
        raise RuntimeError(
            f"compare needs models that can be fitted. Got {len(errors)} fits that "
            f"failed: {list(failed.values())}, first {errors[0]}. All others are "
            "finished and kept, if there is a `store`, which has the tracebacks too. "
            "Correct the model and call compare again."
        )


def _has_weights(cell: Pretraining, store: CellStore) -> bool:
    """Say whether weights are there, as they were written."""
    record, folder = store.read(cell.key), store.weights(cell.key)
    if record is None or not folder.is_dir():
        return False
    # one of older versions does not say what was written
    return record.get("files") in (None, describe_folder(folder))


def _return_as() -> str:
    """Say how to take results: one by one where the workers can, as Ray's cannot."""
    backend, _ = joblib.parallel.get_active_backend()
    return "generator_unordered" if backend.supports_return_generator else "list"


def _source(cell: Cell | Pretraining) -> str | None:
    """Return the key of the cell that makes the weights that one starts from."""
    if isinstance(cell, Pretraining) or cell.pretraining is None:
        return None
    return cell.pretraining.key


def _as_row(
    entry: Entry, cell: Cell, problem: Problem, level: str, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one row of the table."""
    split, kind = cell.split, problem.y.dtype
    probabilities = record["y_proba"]
    return {
        "model": entry.name,
        "label": entry.candidate.label,
        "family": entry.candidate.family,
        "split": split.name,
        "repeat": split.repeat,
        "seed": cell.seed,
        "level": level if entry.starts_from_weights else "A",
        **record["scores"],
        "rows": split.test,
        "groups": problem.groups[split.test],
        "y_true": problem.y[split.test],
        "y_pred": np.asarray(record["y_pred"], dtype=kind),
        "y_proba": None if probabilities is None else np.asarray(probabilities),
        "classes": problem.classes if problem.task == "classification" else None,
        **{name: record[name] for name in KEPT},
        "n_train": len(split.train),
        "n_test": len(split.test),
        "test_fraction": split.test_fraction,
    }


def _weights(cell: Cell, store: CellStore) -> str | None:
    """Return the folder of the model that a cell started from."""
    if cell.pretraining is None:
        return None
    return str(store.weights(cell.pretraining.key))


def _warn_of_versions(table: pd.DataFrame, now: Provenance) -> None:
    """Warn if not all cells were made by the code and the libraries of now."""
    versions = table["versions"].map(lambda v: json.dumps(v, sort_keys=True))
    made = table["code"] + versions
    others = table[made != now.code + json.dumps(now.versions, sort_keys=True)]
    if len(others):
        commits = sorted({str(commit) for commit in others["commit"]})
        warnings.warn(
            f"compare needs cells of this code and these libraries. Got {len(others)} "
            f"of {len(table)} that others made, of the commits {commits}. Use another "
            "store to compute them again.",
            BrainSymphonyWarning,
            stacklevel=3,
        )
