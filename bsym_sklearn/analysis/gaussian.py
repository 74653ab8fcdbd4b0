"""Gaussians that fill in what is missing: conditional means, and their ridge.

Shape letters: R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve
from sklearn.model_selection import GroupKFold

MAX_FOLDS = 5


def conditional_mean(values: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the expected value of what is missing in rows of centred Gaussians.

    ``x_hidden = C_hv C_vv^-1 x_visible``, solved once per pattern of what is missing.

    Parameters
    ----------
    values : ndarray of shape (n, d)
        Draws of mean 0; NaN where they are hidden.
    covariance : ndarray of shape (d, d)
        Positive definite.

    Returns
    -------
    ndarray of shape (n, d)
        `values` with the missing ones filled in; 0 in a row that is all missing.

    Examples
    --------
    >>> covariance = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> conditional_mean(np.array([[np.nan, 2.0], [np.nan, np.nan]]), covariance)
    array([[1., 2.],
           [0., 0.]])
    """
    missing = np.isnan(values)
    filled = np.where(missing, 0.0, values)
    patterns, which = np.unique(missing, axis=0, return_inverse=True)
    for k, hidden in enumerate(patterns):
        visible = ~hidden
        if hidden.any() and visible.any():
            rows = np.flatnonzero(which.ravel() == k)
            weights = solve(
                covariance[np.ix_(visible, visible)],
                covariance[np.ix_(visible, hidden)],
                assume_a="pos",
            )
            known = values[np.ix_(rows, visible)]
            filled[np.ix_(rows, hidden)] = known @ weights
    return filled


def moments(sums: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of several parts together.

    Parameters
    ----------
    sums : sequence of ndarray of shape (R + 1, R + 1)
        Of each part, the sum of ``v v^T`` over its rows, where v is a 1 followed by the
        values of the row.

    Returns
    -------
    mean : ndarray of shape (R,)
    covariance : ndarray of shape (R, R)

    Examples
    --------
    >>> rows = np.array([[1.0, 2.0], [1.0, 4.0]])
    >>> moments([rows.T @ rows])
    (array([3.]), array([[1.]]))
    """
    total = np.sum(sums, axis=0)
    mean = total[0, 1:] / total[0, 0]
    return mean, total[1:, 1:] / total[0, 0] - np.outer(mean, mean)


def with_ridge(covariance: np.ndarray, alpha: float) -> np.ndarray:
    """Return a covariance with a share of its mean variance added to each variance.

    Parameters
    ----------
    covariance : ndarray of shape (R, R)
        Positive semi-definite.
    alpha : float
        The share.

    Returns
    -------
    ndarray of shape (R, R)

    Examples
    --------
    >>> with_ridge(np.array([[1.0, 0.0], [0.0, 3.0]]), 0.5)
    array([[2., 0.],
           [0., 4.]])
    """
    ridge = alpha * (np.trace(covariance) / len(covariance) or 1.0)
    return covariance + ridge * np.eye(len(covariance))


def choose_ridge(
    sums: list[np.ndarray], owners: np.ndarray, alphas: Sequence[float]
) -> float:
    """Return the ridge that predicts a region from all others best, out of sample.

    With P the inverse of the covariance, the error of region j is (P x)_j / P_jj, so
    its mean square needs the held-out covariance S only: (P S P)_jj / P_jj^2.

    Parameters
    ----------
    sums : list of ndarray of shape (R + 1, R + 1)
        Of each part, see :func:`moments`.
    owners : ndarray of shape (n_parts,)
        Whose parts stay together; two or more.
    alphas : sequence of float
        Ridges to choose from.

    Returns
    -------
    float

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = [np.column_stack([np.ones(9), rng.normal(size=(9, 4))]) for _ in "ab"]
    >>> choose_ridge([x.T @ x for x in rows], np.arange(2), [0.01, 10.0])
    10.0
    """
    errors = np.zeros(len(alphas))
    folds = GroupKFold(min(MAX_FOLDS, len(set(owners.tolist()))))
    for train, test in folds.split(sums, groups=owners):
        _, covariance = moments([sums[i] for i in train])
        _, held_out = moments([sums[i] for i in test])
        for k, alpha in enumerate(alphas):
            precision = np.linalg.inv(with_ridge(covariance, alpha))
            square = np.sum((precision @ held_out) * precision, axis=1)
            errors[k] += np.mean(square / np.diag(precision) ** 2)
    return float(alphas[int(np.argmin(errors))])
