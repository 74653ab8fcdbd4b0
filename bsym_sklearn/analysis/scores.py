"""How good predictions are."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn import metrics

METRICS = MappingProxyType(
    {
        "classification": (
            "auroc",
            "accuracy",
            "balanced_accuracy",
            "f1",
            "log_loss",
            "brier",
        ),
        "regression": ("r2", "mae", "pearson", "spearman"),
    }
)
"""Scores of a cell by kind of task."""

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "mae"})
"""Scores of which less is better."""


def headline_metric(task: str, n_classes: int = 2) -> str:
    """Return the score that sentences and pictures speak of.

    Parameters
    ----------
    task : {"classification", "regression"}
        Kind of target.
    n_classes : int, default=2
        Of a classification.

    Returns
    -------
    str
        AUROC of two classes, accuracy of more, R2 of values.

    Examples
    --------
    >>> headline_metric("classification", 12)
    'accuracy'
    """
    if task == "regression":
        return "r2"
    return "auroc" if n_classes == 2 else "accuracy"


def classification_scores(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    outputs: ArrayLike,
    classes: ArrayLike,
    *,
    are_probabilities: bool = True,
) -> dict[str, float]:
    r"""Return all scores of a classification.

    AUROC is of each class against the rest, averaged over the classes that are there.
    F1 is averaged over the classes too (macro), as is the recall in the balanced
    accuracy. The Brier score is :math:`\sum_c (p_c - [y = c])^2`, halved for two
    classes.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_scans,)
        Labels.
    outputs : array-like of shape (n_scans, n_classes)
        Probabilities, or what a classifier ranks by.
    classes : array-like of shape (n_classes,)
        Sorted labels: the columns of `outputs`.
    are_probabilities : bool, default=True
        If not, log-loss and Brier score are NaN.

    Returns
    -------
    dict of str to float
        With the keys of ``METRICS["classification"]``. NaN where a score is undefined,
        such as the AUROC of one class.

    Examples
    --------
    >>> p = [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]]
    >>> scores = classification_scores([0, 1, 0, 1], [0, 0, 0, 1], p, [0, 1])
    >>> {name: round(score, 2) for name, score in scores.items()}
    {'auroc': 1.0, 'accuracy': 0.75, 'balanced_accuracy': 0.75, 'f1': 0.73,
     'log_loss': 0.4, 'brier': 0.12}
    """
    parts = (np.asarray(y_true), np.asarray(y_pred), np.asarray(outputs, float))
    names = [n for n in CLASSIFICATION if are_probabilities or n not in PROBABILISTIC]
    labels = np.asarray(classes)
    scores = {name: CLASSIFICATION[name](*parts, labels) for name in names}
    return {name: float(scores.get(name, np.nan)) for name in CLASSIFICATION}


def regression_scores(y_true: ArrayLike, y_pred: ArrayLike) -> dict[str, float]:
    """Return all scores of a regression.

    R2 is the coefficient of determination: 1 is perfect, 0 as good as the mean of the
    tested scans, and worse is negative. A correlation alone hides a wrong scale.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_scans,)
        Values.

    Returns
    -------
    dict of str to float
        With the keys of ``METRICS["regression"]``. NaN where a score is undefined,
        such as a correlation with a constant.

    Examples
    --------
    >>> regression_scores([0.0, 1.0, 0.0, 1.0], [2.0, 3.0, 2.0, 3.0])
    {'r2': -15.0, 'mae': 2.0, 'pearson': 1.0, 'spearman': 1.0}
    """
    y, predicted = np.asarray(y_true, float), np.asarray(y_pred, float)
    return {name: float(score(y, predicted)) for name, score in REGRESSION.items()}


def one_score(
    metric: str,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    outputs: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> float:
    """Return one score only, for what computes it thousands of times.

    Parameters
    ----------
    metric : str
        Of :data:`METRICS`.
    y_true, y_pred, outputs, classes
        See :func:`classification_scores`; the first two for a regression.

    Returns
    -------
    float

    Examples
    --------
    >>> one_score("mae", np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.0
    """
    if metric in REGRESSION:
        return float(REGRESSION[metric](y_true, y_pred))
    return float(CLASSIFICATION[metric](y_true, y_pred, outputs, classes))


def _auroc(y: np.ndarray, _: Any, outputs: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean AUROC of each class that is there against the rest."""
    present = np.unique(y)
    if len(present) < 2:
        return np.nan
    if len(classes) == 2:
        return metrics.roc_auc_score(y == classes[1], outputs[:, 1])
    columns = np.searchsorted(classes, present)
    areas = [
        metrics.roc_auc_score(y == label, outputs[:, column])
        for label, column in zip(present, columns, strict=True)
    ]
    return float(np.mean(areas))


def _accuracy(y: np.ndarray, predicted: np.ndarray, *_: Any) -> float:
    return metrics.accuracy_score(y, predicted)


def _balanced_accuracy(y: np.ndarray, predicted: np.ndarray, *_: Any) -> float:
    return metrics.recall_score(y, predicted, labels=np.unique(y), average="macro")


def _f1(y: np.ndarray, predicted: np.ndarray, *_: Any) -> float:
    return metrics.f1_score(y, predicted, average="macro", zero_division=0)


def _log_loss(y: np.ndarray, _: Any, p: np.ndarray, classes: np.ndarray) -> float:
    return metrics.log_loss(y, p, labels=classes) if len(classes) > 1 else np.nan


def _brier(y: np.ndarray, _: Any, p: np.ndarray, classes: np.ndarray) -> float:
    if len(classes) < 2:
        return np.nan
    if len(classes) == 2:
        return metrics.brier_score_loss(y, p[:, 1], pos_label=classes[1])
    return metrics.brier_score_loss(y, p, labels=classes)


def _r2(y: np.ndarray, predicted: np.ndarray) -> float:
    return metrics.r2_score(y, predicted) if len(y) > 1 else np.nan


def _pearson(y: np.ndarray, predicted: np.ndarray) -> float:
    return stats.pearsonr(y, predicted)[0] if _vary(y, predicted) else np.nan


def _spearman(y: np.ndarray, predicted: np.ndarray) -> float:
    return stats.spearmanr(y, predicted)[0] if _vary(y, predicted) else np.nan


def _vary(*values: np.ndarray) -> bool:
    return all(np.ptp(x) > 0 for x in values)


CLASSIFICATION: dict[str, Callable[..., float]] = {
    "auroc": _auroc,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "log_loss": _log_loss,
    "brier": _brier,
}
REGRESSION: dict[str, Callable[..., float]] = {
    "r2": _r2,
    "mae": metrics.mean_absolute_error,
    "pearson": _pearson,
    "spearman": _spearman,
}
PROBABILISTIC = ("log_loss", "brier")  # not defined by a ranking
