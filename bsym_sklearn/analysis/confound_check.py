"""Whether the confounds alone could explain what a model predicts.

Shape letters: n rows, K columns of a prediction, Q columns of a confound's design.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.utils import check_consistent_length

from bsym_sklearn.analysis.design import Design
from bsym_sklearn.analysis.resampling import permutation_p_value

Statistic = Callable[[np.ndarray], float]

N_FOLDS = 5
# What is below this share of the whole is rounding.
NOTHING = 1e-10


def confound_check(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    confounds: pd.DataFrame,
    *,
    groups: ArrayLike | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask of each confound whether it could be what the model predicts from.

    Two questions, each with a permutation test: does the prediction still follow the
    target once the confound is removed from both (full confounder test), and does it
    follow the confound beyond what the target explains (partial confounder test) [1]_.
    What is removed is linear, one column per category: an effect of age squared stays
    unless it is a column of its own.

    Parameters
    ----------
    y_true : array-like of shape (n_scans,)
        Labels or values.
    y_pred : array-like of shape (n_scans,) or (n_scans, n_classes)
        Values; predicted labels; scores of the second of two classes; or one
        probability per class, in sorted order. Of scans that the model was not fitted
        on. Numbers with a decimal point are values or scores, all else is labels.
    confounds : DataFrame of shape (n_scans, n_confounds)
        Numbers, or categories in columns of any other kind. The fold that a prediction
        comes from may be one of them.
    groups : array-like of shape (n_scans,) or None, default=None
        Participants. If each has one target, their scans are averaged to one row;
        otherwise predictions are exchanged among the scans of a participant only, and
        participants are kept together where something is cross-validated.
    n_permutations : int, default=1000
        Shuffles; p can be no smaller than 1 / (1 + n_permutations).
    seed : int, default=0
        Draws folds and shuffles.

    Returns
    -------
    DataFrame of shape (n_confounds, 7)
        One row per confound and, if there are several, a last one for ``"all"``:

        - ``prediction_r2``, ``target_r2``: variance of the prediction and of the target
          that the confound explains, cross-validated, at most 1. A prediction far above
          its target is a warning.
        - ``association``: correlation of prediction and target in [-1, 1]; for classes
          that of each with its score, averaged.
        - ``partial_association``: the same with the confound removed from both.
        - ``share_kept``: their ratio; NaN if there was no association.
        - ``p_association``: that nothing is left of it; small is good.
        - ``p_confounding``: that the prediction knows no more of the confound than the
          target does; small is bad.

    Raises
    ------
    BrainDataError
        If a confound is missing in a row.
    ValueError
        If lengths or classes do not fit, there are fewer than 4 rows, or the
        predictions or targets do not vary.

    Notes
    -----
    Residuals of the prediction are exchanged (Freedman and Lane) [2]_. Predictions of
    several folds are not independent of each other, so p is approximate.

    References
    ----------
    .. [1] Spisak (2022). Statistical quantification of confounding bias in machine
       learning models. GigaScience 11.
    .. [2] Winkler et al. (2014). Permutation inference for the general linear model.
       NeuroImage 92, 381-397.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> age = rng.normal(size=200)
    >>> y = age + rng.normal(size=200)
    >>> prediction = age + rng.normal(size=200)  # knows the age and nothing else of y
    >>> table = confound_check(y, prediction, pd.DataFrame({"age": age}))
    >>> table[["association", "partial_association"]].round(2).iloc[0].tolist()
    [0.5, 0.06]
    >>> table[["p_association", "p_confounding"]].round(2).iloc[0].tolist()
    [0.19, 0.0]
    """
    target, prediction = _paired_columns(np.asarray(y_true), np.asarray(y_pred))
    confounds = pd.DataFrame(confounds)
    parts = [Design("confound_check", "error").fit(confounds[[c]]) for c in confounds]
    check_consistent_length(target, prediction, *parts)
    names = [str(name) for name in confounds]
    if len(parts) > 1:
        names, parts = [*names, "all"], [*parts, np.hstack(parts)]
    blocks = None
    if groups is not None:
        blocks = np.unique(np.asarray(groups), return_inverse=True)[1]
        check_consistent_length(target, blocks)
    if blocks is not None and _one_value_each(target, blocks):
        target, prediction, *parts = (
            pd.DataFrame(values).groupby(blocks).mean().to_numpy()
            for values in (target, prediction, *parts)
        )
        blocks = None
    _check_variation(target, prediction, blocks)
    rows = [
        _check_one(target, prediction, part, blocks, n_permutations, seed)
        for part in parts
    ]
    return pd.DataFrame(rows, index=pd.Index(names, name="confound"))


def _paired_columns(
    y_true: np.ndarray, y_pred: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return target and prediction as numbers (n, K), column by column comparable."""
    check_consistent_length(y_true, y_pred)
    y_pred = y_pred[:, 0] if y_pred.ndim == 2 and y_pred.shape[1] == 1 else y_pred
    continuous = [np.issubdtype(y.dtype, np.floating) for y in (y_true, y_pred)]
    if y_pred.ndim == 1 and not any(continuous):
        classes = np.unique(np.concatenate([y_true, y_pred]))
        return _one_hot(y_true, classes), _one_hot(y_pred, classes)
    numeric = all(np.issubdtype(y.dtype, np.number) for y in (y_true, y_pred))
    if y_pred.ndim == 1 and numeric:
        return y_true.astype(float)[:, None], y_pred.astype(float)[:, None]
    classes = np.unique(y_true)
    n_columns = 2 if y_pred.ndim == 1 else y_pred.shape[1]
    if len(classes) != n_columns:
        raise ValueError(
            "confound_check needs one column of scores per class, or one in all for "
            f"two classes. Got shape {y_pred.shape} and the classes "
            f"{classes.tolist()[:5]}."
        )
    target = _one_hot(y_true, classes)
    return (target, y_pred) if y_pred.ndim == 2 else (target[:, 1:], y_pred[:, None])


def _one_hot(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 0 and 1 (n, K)."""
    return (labels[:, None] == classes).astype(float)


def _one_value_each(target: np.ndarray, codes: np.ndarray) -> bool:
    """Say whether all scans of a participant have one target."""
    _, first = np.unique(codes, return_index=True)
    return bool((target == target[first][codes]).all())


def _check_variation(
    target: np.ndarray, prediction: np.ndarray, blocks: np.ndarray | None
) -> None:
    """Raise unless there is something to explain."""
    n_groups = len(target) if blocks is None else len(np.unique(blocks))
    if len(target) < 4 or n_groups < 2:
        raise ValueError(
            "confound_check needs 4 rows or more, of 2 participants or more. Got "
            f"{len(target)} rows of {n_groups} participants."
        )
    for name, values in (("y_true", target), ("y_pred", prediction)):
        if not np.isfinite(values).all() or not np.ptp(values, axis=0).any():
            raise ValueError(
                f"confound_check needs finite values that vary in `{name}`. Got "
                f"{values[0].tolist()} in row 0 and a smallest and largest of "
                f"{values.min()} and {values.max()}."
            )


def _check_one(
    target: np.ndarray,
    prediction: np.ndarray,
    confound: np.ndarray,
    blocks: np.ndarray | None,
    n_permutations: int,
    seed: int,
) -> dict[str, float]:
    """Return the row of one confound."""

    def p_value(score: float, removed: np.ndarray, statistic: Statistic) -> float:
        rng = np.random.default_rng(seed)
        residual = _residual(prediction, removed)
        permuted = [
            statistic(
                _residual(residual[_shuffled(blocks, len(residual), rng)], removed)
            )
            for _ in range(n_permutations)
        ]
        # Ties but for rounding count against the true score.
        return permutation_p_value(score - NOTHING, permuted)

    of_confound, of_target = _basis(confound), _basis(target)
    target_left = _residual(target, of_confound)
    confound_left = _basis(_residual(confound, of_target))

    def follows_target(residual: np.ndarray) -> float:
        return _mean_correlation(residual, target_left)

    def follows_confound(residual: np.ndarray) -> float:
        return _share_within(residual, confound_left)

    association = _mean_correlation(
        prediction - prediction.mean(axis=0), target - target.mean(axis=0)
    )
    partial = follows_target(_residual(prediction, of_confound))
    known = follows_confound(_residual(prediction, of_target))
    return {
        "prediction_r2": _cross_validated_r2(confound, prediction, blocks, seed),
        "target_r2": _cross_validated_r2(confound, target, blocks, seed),
        "association": association,
        "partial_association": partial,
        "share_kept": partial / association if association else np.nan,
        "p_association": p_value(partial, of_confound, follows_target),
        "p_confounding": p_value(known, of_target, follows_confound),
    }


def _shuffled(
    blocks: np.ndarray | None, n_rows: int, rng: np.random.Generator
) -> np.ndarray:
    """Return row numbers, shuffled within blocks."""
    if blocks is None:
        return rng.permutation(n_rows)
    shuffled = np.empty(n_rows, dtype=int)
    shuffled[np.argsort(blocks, kind="stable")] = np.lexsort(
        (rng.random(n_rows), blocks)
    )
    return shuffled


def _basis(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (n, rank) of the columns without their means."""
    centred = columns - columns.mean(axis=0)
    scale = np.linalg.norm(centred, axis=0)
    real = scale > NOTHING * np.linalg.norm(columns, axis=0)
    left, sizes, _ = np.linalg.svd(centred[:, real] / scale[real], full_matrices=False)
    return left[:, sizes > NOTHING]


def _residual(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return `values` (n, K) without their means and what lies in `basis`."""
    centred = values - values.mean(axis=0)
    residual = centred - basis @ (basis.T @ centred)
    size, left = np.linalg.norm(centred, axis=0), np.linalg.norm(residual, axis=0)
    residual[:, left <= NOTHING * size] = 0.0
    return residual


def _mean_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of centred columns, averaged; 0 for a constant one."""
    products = (a * b).sum(axis=0)
    sizes = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(np.mean(np.where(sizes > 0, products / np.where(sizes, sizes, 1), 0)))


def _share_within(values: np.ndarray, basis: np.ndarray) -> float:
    """Return the share of the variance that lies in `basis`."""
    total = float((values**2).sum())
    return float(((basis.T @ values) ** 2).sum()) / total if total else 0.0


def _cross_validated_r2(
    design: np.ndarray, values: np.ndarray, blocks: np.ndarray | None, seed: int
) -> float:
    """Return how much of `values` a linear model of the design explains."""
    n_groups = len(values) if blocks is None else len(np.unique(blocks))
    folds = (KFold if blocks is None else GroupKFold)(
        min(N_FOLDS, n_groups), shuffle=True, random_state=seed
    )
    predicted = cross_val_predict(
        LinearRegression(), design, values, cv=folds, groups=blocks
    )
    return float(r2_score(values, predicted, multioutput="variance_weighted"))
