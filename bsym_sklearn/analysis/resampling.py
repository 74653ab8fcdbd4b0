"""Bootstrap, permutation and warnings for the predictions of one model.

Where the splits of a cross-validation do not exist (one external test set), or where a
score is to be compared with what labels without meaning would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, check_random_state

Metric = Callable[[np.ndarray, np.ndarray], float]
Seed = int | np.random.RandomState | None

# Predictions that vary by less than this share of the target are constant.
CONSTANT = 1e-6


class Bootstrap(NamedTuple):
    """Result of :func:`paired_bootstrap`.

    Parameters
    ----------
    estimate : float
        The score, or how much it exceeds that of the reference.
    low, high : float
        Percentile interval.
    p_value : float
        Two-sided, that the difference is zero; NaN without a reference.
    n_undefined : int
        Resamples that had no score (one class only) and were left out.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    n_undefined: int


class PermutationTest(NamedTuple):
    """Result of :func:`permutation_test`.

    Parameters
    ----------
    score : float
        With the true labels.
    p_value : float
        Share of the labellings, the true one included, that score at least as high.
    permuted_scores : ndarray of shape (n_permutations,)
        With permuted labels.
    """

    score: float
    p_value: float
    permuted_scores: np.ndarray


class Degeneracy(NamedTuple):
    """Result of :func:`degeneracy`.

    Parameters
    ----------
    constant_prediction : bool
        Every scan gets the same label, or values that do not vary.
    constant_output : bool
        The continuous outputs behind the labels do not vary.
    all_positive_f1 : bool
        Every scan is called positive, so that F1 is :func:`all_positive_f1`.
    """

    constant_prediction: bool
    constant_output: bool
    all_positive_f1: bool


def paired_bootstrap(
    y_true: ArrayLike,
    prediction: ArrayLike,
    reference: ArrayLike | None,
    metric: Metric,
    *,
    groups: ArrayLike | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    random_state: Seed = None,
) -> Bootstrap:
    """Compare two models' predictions of the same scans, by resampling scans.

    Both models are scored on each resample, so that what makes a sample easy or hard
    cancels. For one external test set; for cross-validation, whose models differ from
    fold to fold, use :func:`~bsym_sklearn.analysis.statistics.corrected_t_test`.

    Parameters
    ----------
    y_true : array-like of shape (n_scans,)
        Labels or values.
    prediction : array-like of shape (n_scans,) or (n_scans, n_outputs)
        What `metric` takes as its second argument.
    reference : array-like of the same shape, or None
        Predictions of the other model. None gives the interval of the score itself.
    metric : callable
        ``metric(y_true, prediction)``, higher is better. NaN where it is undefined.
    groups : array-like of shape (n_scans,) or None, default=None
        Participants, resampled as a whole. None takes every scan as its own.
    n_resamples : int, default=2000
        Resamples drawn.
    confidence : float, default=0.95
        Level of the interval, in (0, 1).
    random_state : int, RandomState or None, default=None
        Draws the resamples.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ValueError
        If lengths differ or no resample has a score.

    References
    ----------
    .. [1] Efron and Tibshirani (1993). An introduction to the bootstrap. Chapter 13.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([0, 1] * 20)
    >>> accuracy = lambda y, p: float(np.mean(y == p))
    >>> paired_bootstrap(y, y, np.zeros(40), accuracy, random_state=0).estimate
    0.5
    """
    y = np.asarray(y_true)
    predictions = [np.asarray(prediction)]
    if reference is not None:
        predictions.append(np.asarray(reference))
    check_consistent_length(y, *predictions)
    _, codes = np.unique(_or_rows(groups, len(y)), return_inverse=True)
    check_consistent_length(y, codes)
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    rng = check_random_state(random_state)

    def difference(rows: np.ndarray) -> float:
        scores = [metric(y[rows], p[rows]) for p in predictions]
        return scores[0] - scores[1] if reference is not None else scores[0]

    estimate = difference(np.arange(len(y)))
    drawn = np.array(
        [
            difference(
                np.concatenate(
                    [members[i] for i in rng.choice(len(members), len(members))]
                )
            )
            for _ in range(n_resamples)
        ]
    )
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        raise ValueError("paired_bootstrap needs a metric that is defined. Got NaN.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    p_value = np.nan
    if reference is not None:
        below = permutation_p_value(0.0, -defined)
        above = permutation_p_value(0.0, defined)
        p_value = min(1.0, 2 * min(below, above))
    return Bootstrap(
        float(estimate), float(low), float(high), p_value, len(drawn) - len(defined)
    )


def permutation_p_value(score: float, permuted_scores: ArrayLike) -> float:
    r"""Return :math:`(1 + \#\{s_\pi \ge s\}) / (1 + n)`, which is never zero.

    Parameters
    ----------
    score : float
        Of the true labels; higher is better.
    permuted_scores : array-like of shape (n_permutations,)
        Of permuted labels.

    Returns
    -------
    float
        In (0, 1].

    References
    ----------
    .. [1] Phipson and Smyth (2010). Permutation p-values should never be zero.
       Statistical Applications in Genetics and Molecular Biology 9(1).

    Examples
    --------
    >>> permutation_p_value(0.8, [0.5, 0.9, 0.4])
    0.5
    """
    permuted = np.asarray(permuted_scores, dtype=float)
    return float((1 + np.sum(permuted >= score)) / (1 + permuted.size))


def permute_labels(
    labels: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    units: ArrayLike | None = None,
    random_state: Seed = None,
) -> np.ndarray:
    """Shuffle labels among exchangeable scans only.

    Parameters
    ----------
    labels : array-like of shape (n_scans,)
        Labels or values.
    blocks : array-like of shape (n_scans,) or None, default=None
        Labels are shuffled within a block: the site, so that what differs between
        sites stays; or the participant, if labels are states of a participant.
    units : array-like of shape (n_scans,) or None, default=None
        Scans that keep a common label: the participant, if labels are traits of a
        participant. A unit lies in one block and has one label.
    random_state : int, RandomState or None, default=None
        Draws the shuffle.

    Returns
    -------
    ndarray of shape (n_scans,)
        Shuffled labels.

    Raises
    ------
    ValueError
        If a unit has several labels or lies in several blocks.

    Examples
    --------
    >>> permute_labels([0, 0, 1, 1], blocks=["a", "a", "b", "b"], random_state=0)
    array([0, 0, 1, 1])
    >>> permute_labels([0, 0, 1, 1], units=["x", "x", "y", "y"], random_state=1)
    array([0, 0, 1, 1])
    """
    y = np.asarray(labels)
    block = np.unique(
        np.zeros(len(y)) if blocks is None else np.asarray(blocks), return_inverse=True
    )[1]
    names, first, unit = np.unique(
        _or_rows(units, len(y)), return_index=True, return_inverse=True
    )
    check_consistent_length(y, block, unit)
    several = (y != y[first][unit]) | (block != block[first][unit])
    if several.any():
        row = int(several.argmax())
        raise ValueError(
            "permute_labels needs one label and one block per unit. Got several in "
            f"unit {names.tolist()[unit[row]]!r}, first in scan {row}. Shuffle within "
            "participants with `blocks` if they have several states."
        )
    rng = check_random_state(random_state)
    shuffled, unit_block = y[first].copy(), block[first]
    for code in np.unique(unit_block):
        where = np.flatnonzero(unit_block == code)
        shuffled[where] = shuffled[rng.permutation(where)]
    return shuffled[unit]


def permutation_test(
    score: Callable[[np.ndarray], float],
    labels: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    units: ArrayLike | None = None,
    n_permutations: int = 1000,
    random_state: Seed = None,
) -> PermutationTest:
    """Score a whole analysis again and again with labels that mean nothing.

    Parameters
    ----------
    score : callable
        ``score(labels)`` runs the whole analysis, splits and tuning included, and
        returns one number; higher is better.
    labels : array-like of shape (n_scans,)
        True labels.
    blocks, units
        See :func:`permute_labels`.
    n_permutations : int, default=1000
        Shuffles; p can be no smaller than 1 / (1 + n_permutations).
    random_state : int, RandomState or None, default=None
        Draws the shuffles.

    Returns
    -------
    PermutationTest

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(6)
    >>> permutation_test(
    ...     lambda labels: float(np.corrcoef(labels, y)[0, 1]),
    ...     y,
    ...     n_permutations=99,
    ...     random_state=0,
    ... ).p_value
    0.01
    """
    rng = check_random_state(random_state)
    true = score(np.asarray(labels))
    permuted = np.array(
        [
            score(permute_labels(labels, blocks=blocks, units=units, random_state=rng))
            for _ in range(n_permutations)
        ]
    )
    return PermutationTest(true, permutation_p_value(true, permuted), permuted)


def all_positive_f1(prevalence: float) -> float:
    """Return 2 p / (1 + p): the F1 of calling every scan positive.

    Parameters
    ----------
    prevalence : float
        Share p of positive scans, in [0, 1].

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(all_positive_f1(0.55), 4)
    0.7097
    """
    return 2 * prevalence / (1 + prevalence)


def degeneracy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    outputs: ArrayLike | None = None,
    *,
    tolerance: float = 0.0,
) -> Degeneracy:
    """Say whether predictions are those of a model that learned nothing.

    Parameters
    ----------
    y_true : array-like of shape (n_scans,)
        Labels, or values in regression.
    y_pred : array-like of shape (n_scans,)
        Predicted labels or values.
    outputs : array-like of shape (n_scans,) or (n_scans, n_outputs), or None
        Probabilities or logits behind the labels, of a classifier.
    tolerance : float, default=0.0
        Share of the scans that may be called negative where "every" scan is called
        positive.

    Returns
    -------
    Degeneracy
        The third is False unless there are two classes, of which the larger is the
        positive one.

    Examples
    --------
    >>> degeneracy([0, 1, 1], [1, 1, 1])
    Degeneracy(constant_prediction=True, constant_output=False, all_positive_f1=True)
    """
    y, predicted = np.asarray(y_true), np.asarray(y_pred)
    check_consistent_length(y, predicted)
    continuous = any(np.issubdtype(x.dtype, np.floating) for x in (y, predicted))
    if continuous:
        constant = bool(predicted.std() <= CONSTANT * y.std())
    else:
        constant = len(np.unique(predicted)) == 1
    flat = False
    if outputs is not None:
        columns = np.asarray(outputs, dtype=float).reshape(len(y), -1)
        flat = bool((np.ptp(columns, axis=0) <= CONSTANT).all())
    classes = np.unique(y)
    if len(classes) == 1:  # the same for all may be right
        return Degeneracy(False, False, False)
    looks_positive = False
    if not continuous and len(classes) == 2:
        n_negative = int(np.sum(predicted != classes[1]))
        looks_positive = n_negative <= tolerance * len(y)
    return Degeneracy(constant, flat, looks_positive)


def _or_rows(labels: ArrayLike | None, n_rows: int) -> np.ndarray:
    """Return `labels` as an array, or the row numbers if there are none."""
    return np.arange(n_rows) if labels is None else np.asarray(labels)
