"""What a score costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(
    cost: ArrayLike, score: ArrayLike, *, lower_is_better: bool = False
) -> np.ndarray:
    """Say which models no other beats in score without a higher cost.

    Parameters
    ----------
    cost : array-like of shape (n_models,)
        Seconds, parameters or anything else that one wants little of.
    score : array-like of shape (n_models,)
        How good each model is.
    lower_is_better : bool, default=False
        Whether the score is a loss.

    Returns
    -------
    ndarray of bool of shape (n_models,)
        True on the front. Never for a model whose cost or score is NaN.

    Raises
    ------
    ValueError
        If lengths differ.

    Examples
    --------
    >>> pareto_front(cost=[1, 2, 3, 3], score=[0.5, 0.4, 0.9, 0.8])
    array([ True, False,  True, False])
    """
    x, y = np.asarray(cost, dtype=float), np.asarray(score, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            "pareto_front needs one cost and one score per model. Got shapes "
            f"{x.shape} and {y.shape}."
        )
    y = -y if lower_is_better else y
    no_worse = (x[:, None] <= x) & (y[:, None] >= y)
    better = (x[:, None] < x) | (y[:, None] > y)
    return ~(no_worse & better).any(axis=0) & ~np.isnan(x) & ~np.isnan(y)
