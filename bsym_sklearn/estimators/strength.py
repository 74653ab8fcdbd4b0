"""How strongly a linear model is regularised: grids, inner folds and what they compare.

Shape letters: n scans, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
ALPHA_GRIDS = {
    "ridge": (1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5),
    "kernel_ridge": (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3),  # of a kernel in [-1, 1]
}
Splits = list[tuple[np.ndarray, np.ndarray]]


def unit_rows(X: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and norm 1; rows that do not vary become 0."""
    X = np.asarray(X)  # a DataFrame, if scikit-learn is set to return them
    centred = X - X.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)


def divide(groups: np.ndarray, strata: Any, n_folds: int) -> Splits | None:
    """Divide training rows, groups undivided; None if there are too few of them."""
    if strata is None:
        n = min(n_folds, len(np.unique(groups)))
        return list(GroupKFold(n).split(groups, groups=groups)) if n > 1 else None
    classes = np.unique(strata)
    n = min(n_folds, *(len(np.unique(groups[strata == c])) for c in classes))
    return (
        list(StratifiedGroupKFold(n).split(groups, strata, groups)) if n > 1 else None
    )


def inner_splits(groups: np.ndarray, strata: Any, n_folds: int) -> Splits | None:
    """Divide training rows; None also if a part to learn from lacks a class."""
    splits = divide(groups, strata, n_folds)
    if splits is None or strata is None:
        return splits
    n_classes = len(np.unique(strata))
    complete = all(len(np.unique(strata[train])) == n_classes for train, _ in splits)
    return splits if complete else None


def log_likelihood(
    model: Any, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
) -> float:
    """Return the mean log-probability of the truth, which may lack some classes."""
    probabilities = model.predict_proba(X)
    return -log_loss(
        y, probabilities, labels=model.classes_, sample_weight=sample_weight
    )


def code_error(
    model: Any, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
) -> float:
    """Return the negative mean squared error of the scores, -1 or 1 in truth."""
    scores = model.decision_function(X)
    if scores.ndim == 1:
        scores = np.column_stack([-scores, scores])
    codes = np.where(y[:, None] == model.classes_, 1.0, -1.0)
    errors = ((scores - codes) ** 2).mean(1)
    return -float(np.average(errors, weights=sample_weight))
