"""One model, on one split, with one seed, is a cell: fitted, judged and kept."""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from bsym_sklearn.analysis.fitted import chosen_parameters, count_parameters
from bsym_sklearn.analysis.identity import describe_folder
from bsym_sklearn.analysis.memory import PeakMemory, one_thread
from bsym_sklearn.analysis.problem import Problem
from bsym_sklearn.analysis.provenance import Provenance
from bsym_sklearn.analysis.resampling import degeneracy
from bsym_sklearn.analysis.scores import classification_scores, regression_scores
from bsym_sklearn.analysis.splits import Split, inner_folds
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.analysis.tuning import tune
from bsym_sklearn.exceptions import BrainSymphonyWarning

SEED_STEP = 1000  # between the parts of a model that have a seed each
# What a model may raise without stopping the others; it is raised at the end.
FAILURES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cell:
    """One model to fit on one split with one seed.

    Parameters
    ----------
    key : str
        Name in the store.
    name : str
        What messages call it.
    estimator : estimator
        Unfitted, with its seed.
    split : Split
        Rows to learn from and to be judged on.
    seed : int
        Of the search.
    pretraining : Pretraining or None, default=None
        What makes the weights that it starts from.
    pretrained_parameter : str, default="pretrained"
        Parameter that takes their folder.
    space : mapping or None, default=None
        What to search within the training rows; see
        :func:`~bsym_sklearn.analysis.tuning.tune`.
    n_trials : int, default=0
        Trials of the search.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> split = Split(np.array([0, 1]), np.array([2]), "fold 1")
    >>> Cell("ab12", "dummy, fold 1, seed 0", DummyClassifier(), split, seed=0).n_trials
    0
    """

    key: str
    name: str
    estimator: Any
    split: Split
    seed: int
    pretraining: Pretraining | None = None
    pretrained_parameter: str = "pretrained"
    space: Mapping[str, Any] | None = None
    n_trials: int = 0


@dataclass(frozen=True, eq=False)
class Pretraining:
    """One embedder to fit on some rows and to save.

    Parameters
    ----------
    key : str
        Name in the store.
    name : str
        What messages call it.
    estimator : estimator
        Unfitted embedder, with its seed.
    rows : ndarray of int
        What it sees, without targets.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> Pretraining("cd34", "pretraining, fold 1", PCA(), np.arange(3)).rows
    array([0, 1, 2])
    """

    key: str
    name: str
    estimator: Any
    rows: np.ndarray


def seed_parameters(estimator: Any) -> list[str]:
    """Return the parameters that take a seed, those of nested estimators too.

    Parameters
    ----------
    estimator : estimator
        Of any kind.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> seed_parameters(PCA())
    ['random_state']
    """
    names = estimator.get_params(deep=True)
    return sorted(name for name in names if name.split("__")[-1] == "random_state")


def with_seed(estimator: Any, seed: int) -> Any:
    """Return an unfitted copy whose parts draw from a seed.

    Parameters
    ----------
    estimator : estimator
        Not changed.
    seed : int
        Of its first part with a seed; the next have 1000 more each, so that members of
        an ensemble differ.

    Returns
    -------
    estimator

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> with_seed(PCA(), 3).random_state
    3
    """
    copy = clone(estimator)
    names = seed_parameters(copy)
    return copy.set_params(**{n: seed + SEED_STEP * i for i, n in enumerate(names)})


def run(
    cell: Cell | Pretraining,
    problem: Problem,
    store: CellStore,
    provenance: Provenance,
) -> tuple[Cell | Pretraining, str | None]:
    """Compute a cell with one thread and keep it.

    Parameters
    ----------
    cell : Cell or Pretraining
        What to compute.
    problem : Problem
        Scans and targets.
    store : CellStore
        Where it is kept, or why it failed.
    provenance : Provenance
        Kept beside it.

    Returns
    -------
    cell : Cell or Pretraining
        The same.
    error : str or None
        What the model raised.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.dummy import DummyClassifier
    >>> from bsym_sklearn.analysis.provenance import current_provenance
    >>> X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    >>> problem = Problem(X, y, np.arange(4), "classification")
    >>> split = Split(np.array([0, 1]), np.array([2, 3]), "fold 1")
    >>> cell = Cell("ab12", "dummy", DummyClassifier(strategy="prior"), split, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CellStore(folder)
    ...     _, error = run(cell, problem, store, current_provenance())
    ...     store.read("ab12")["scores"]["auroc"]
    0.5
    """
    try:
        with one_thread():
            if isinstance(cell, Pretraining):
                record = _pretrain(cell, problem, store)
            else:
                record = _judge(cell, problem, store)
    except FAILURES as error:
        logger.exception("%s failed", cell.name)
        store.write_error(cell.key, traceback.format_exc())
        return cell, f"{type(error).__name__}: {error}"
    store.write(cell.key, {"name": cell.name, **record, **provenance._asdict()})
    return cell, None


def _pretrain(cell: Pretraining, problem: Problem, store: CellStore) -> dict[str, Any]:
    """Fit an embedder on some rows, without targets, and save it."""
    started = time.perf_counter()
    with PeakMemory() as peak:
        model = cell.estimator.fit(problem.rows(cell.rows))
    model.save_pretrained(store.weights(cell.key))
    return {
        "seconds": time.perf_counter() - started,
        "peak_memory_mb": peak.megabytes,
        "n_parameters": count_parameters(model),
        "rows": cell.rows,
        "files": describe_folder(store.weights(cell.key)),
    }


def _judge(cell: Cell, problem: Problem, store: CellStore) -> dict[str, Any]:
    """Fit a model on the training rows of a split and score it on the others."""
    train, test = cell.split
    model = clone(cell.estimator)
    pretraining_seconds = 0.0
    if cell.pretraining is not None:
        folder = store.weights(cell.pretraining.key)
        model.set_params(**{cell.pretrained_parameter: str(folder)})
        made = store.read(cell.pretraining.key) or {}
        pretraining_seconds = float(made["seconds"])
    X, y = problem.rows(train), problem.y[train]
    started = time.perf_counter()
    with PeakMemory() as peak:
        chosen = _search(cell, model, X, y, problem)
        model.set_params(**chosen).fit(X, y)
    seconds = time.perf_counter() - started
    return {
        **_predictions(model, problem, test),
        "rows": test,
        "seconds": seconds + pretraining_seconds,
        "seconds_pretraining": pretraining_seconds,
        "peak_memory_mb": peak.megabytes,
        "n_parameters": count_parameters(model),
        "tuned": chosen | chosen_parameters(model),
    }


def _search(
    cell: Cell, model: Any, X: Any, y: np.ndarray, problem: Problem
) -> dict[str, Any]:
    """Return the parameters that a search within the training rows chose."""
    if not cell.space or cell.n_trials == 0:
        return {}
    folds = inner_folds(y, problem.groups[cell.split.train], task=problem.task)
    if folds is None:
        warnings.warn(
            f"{cell.name} needs two participants of each class to search its "
            "parameters. Got fewer in the training rows. It is fitted as it is.",
            BrainSymphonyWarning,
            stacklevel=2,
        )
        return {}
    found = tune(model, cell.space, X, y, folds, n_trials=cell.n_trials, seed=cell.seed)
    return found.params


def _predictions(model: Any, problem: Problem, test: np.ndarray) -> dict[str, Any]:
    """Return what a fitted model says of the test rows, and how good that is."""
    X, truth = problem.rows(test), problem.y[test]
    started = time.perf_counter()
    predicted = np.asarray(model.predict(X))
    seconds = time.perf_counter() - started
    probabilities = outputs = None
    if problem.task == "classification":
        outputs, are_probabilities = class_outputs(model, X, problem.classes)
        scores = classification_scores(
            truth,
            predicted,
            outputs,
            problem.classes,
            are_probabilities=are_probabilities,
        )
        probabilities = outputs if are_probabilities else None
    else:
        scores = regression_scores(truth, predicted)
    return {
        "scores": scores,
        "y_true": truth,
        "y_pred": predicted,
        "y_proba": probabilities,
        "degenerate": any(degeneracy(truth, predicted, outputs)),
        "seconds_predict": seconds,
    }


def class_outputs(model: Any, X: Any, classes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return one column per class, whatever a classifier has and has seen.

    Parameters
    ----------
    model : classifier
        Fitted, with `predict_proba` or `decision_function`.
    X : cohort of n scans
        To predict.
    classes : ndarray of shape (n_classes,)
        Sorted labels.

    Returns
    -------
    outputs : ndarray of shape (n_scans, n_classes)
        0, or less than all others, for a class that the model has never seen.
    are_probabilities : bool
        Whether the model has probabilities.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> model = DummyClassifier(strategy="prior").fit([[0], [0]], ["a", "c"])
    >>> class_outputs(model, [[0]], np.array(["a", "b", "c"]))
    (array([[0.5, 0. , 0.5]]), True)
    """
    are_probabilities = hasattr(model, "predict_proba")
    if are_probabilities:
        values = np.asarray(model.predict_proba(X), dtype=float)
        values /= values.sum(axis=1, keepdims=True)  # float32 sums to nearly one
    else:
        values = np.asarray(model.decision_function(X), dtype=float)
        if values.ndim == 1:
            values = np.stack([-values, values], axis=1)
        last = model[-1] if isinstance(model, Pipeline) else model
        if getattr(last, "decision_function_shape", "") == "ovo" and len(classes) > 2:
            raise ValueError(
                "compare needs one score per class. Got decision_function_shape='ovo', "
                "one per pair of classes. Set it to 'ovr'."
            )
    least = 0.0 if are_probabilities else values.min() - 1
    outputs = np.full((len(values), len(classes)), least)
    outputs[:, np.searchsorted(classes, model.classes_)] = values
    return outputs, are_probabilities
