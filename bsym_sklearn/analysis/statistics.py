"""The statistics of a fair comparison between models.

Scores of two models are paired: the same split, the same scans. Average the seeds of a
model within a split first, since seeds are not further test sets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.utils import check_scalar


class TTest(NamedTuple):
    """Result of :func:`corrected_t_test`.

    Parameters
    ----------
    difference : float
        Mean difference, positive if the model is better than the reference.
    low, high : float
        Its confidence interval.
    statistic : float
        t, with one degree of freedom less than there are splits.
    p_value : float
        Two-sided, in [0, 1].
    """

    difference: float
    low: float
    high: float
    statistic: float
    p_value: float


class Posterior(NamedTuple):
    """Result of :func:`bayesian_t_test`: three probabilities that sum to one.

    Parameters
    ----------
    worse, equivalent, better : float
        That the model is worse than the reference by more than the region of
        practical equivalence, within it, or better.
    """

    worse: float
    equivalent: float
    better: float


class CriticalDifference(NamedTuple):
    """Result of :func:`critical_difference`.

    Parameters
    ----------
    mean_ranks : Series
        Per model, best first; 1 is best.
    statistic, p_value : float
        Friedman's test that all models are equally good.
    difference : float
        Mean ranks that differ by more are different at the chosen level (Nemenyi).
    cliques : list of tuple of str
        Largest sets of models that do not differ, for the bars of a diagram.
    """

    mean_ranks: pd.Series
    statistic: float
    p_value: float
    difference: float
    cliques: list[tuple[str, ...]]


def corrected_t_test(
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    test_fraction: float,
    confidence: float = 0.95,
) -> TTest:
    r"""Compare two models over the same splits, whose training sets overlap.

    The variance of the mean is corrected for the overlap [1]_,

    .. math::
        t = \bar d \Big/ \sqrt{\left(\frac1n + \frac{\rho}{1 - \rho}\right) s_d^2},

    with :math:`\rho` the test fraction. The ordinary paired t test takes 25 splits of
    the same scans for 25 samples, and errs many times more often than it says.

    Parameters
    ----------
    scores : array-like of shape (n_splits,)
        Score of the model on each split; higher is better.
    reference : array-like of shape (n_splits,), or float
        Scores of the other model on the same splits, or a fixed value such as chance.
    test_fraction : float
        Share of the scans that each split tests on, in (0, 1): 1 / k in k-fold.
    confidence : float, default=0.95
        Level of the interval, in (0, 1).

    Returns
    -------
    TTest

    Raises
    ------
    ValueError
        If there are fewer than two splits or a score is not finite.

    Notes
    -----
    Where the difference is the same on all n splits, there is no spread to test with,
    and p is that of a sign test, :math:`2^{1 - n}`.

    References
    ----------
    .. [1] Nadeau and Bengio (2003). Inference for the generalization error. Machine
       Learning 52, 239-281.

    Examples
    --------
    >>> result = corrected_t_test([0.8, 0.7, 0.9], [0.7, 0.7, 0.7], test_fraction=1 / 3)
    >>> round(result.difference, 2), round(result.p_value, 2)
    (0.1, 0.39)
    """
    difference = _differences(scores, reference)
    mean, scale = _corrected_moments(difference, test_fraction)
    check_scalar(
        confidence,
        "confidence",
        float,
        min_val=0,
        max_val=1,
        include_boundaries="neither",
    )
    n_free = len(difference) - 1
    half = scale * float(stats.t.ppf((1 + confidence) / 2, n_free))
    if scale > 0:
        statistic = mean / scale
        p_value = 2 * float(stats.t.sf(abs(statistic), n_free))
    else:
        statistic = 0.0 if mean == 0 else math.copysign(math.inf, mean)
        p_value = 1.0 if mean == 0 else 2 * _all_on_one_side(difference)
    return TTest(mean, mean - half, mean + half, statistic, p_value)


def bayesian_t_test(
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    test_fraction: float,
    rope: float = 0.01,
) -> Posterior:
    r"""Return how probably a model is worse, practically equal, or better.

    The posterior of the mean difference is a Student distribution with n - 1 degrees
    of freedom, mean :math:`\bar d` and the corrected variance of
    :func:`corrected_t_test` [1]_.

    Parameters
    ----------
    scores, reference : array-like of shape (n_splits,)
        Scores of the two models on the same splits; higher is better.
    test_fraction : float
        Share of the scans that each split tests on, in (0, 1).
    rope : float, default=0.01
        Half width of the region of practical equivalence, at least 0, in units of the
        score.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        If there are fewer than two splits or a score is not finite.

    References
    ----------
    .. [1] Benavoli et al. (2017). Time for a change: a tutorial for comparing multiple
       classifiers through Bayesian analysis. JMLR 18(77).

    Examples
    --------
    >>> result = bayesian_t_test([0.8, 0.7, 0.9], [0.7, 0.7, 0.7], test_fraction=1 / 3)
    >>> [round(p, 2) for p in result]
    [0.18, 0.04, 0.79]
    """
    difference = _differences(scores, reference)
    mean, scale = _corrected_moments(difference, test_fraction)
    check_scalar(rope, "rope", (int, float), min_val=0)
    if scale == 0:
        sure = 1 - _all_on_one_side(difference)
        worse, better = sure * float(mean < -rope), sure * float(mean > rope)
    else:
        n_free = len(difference) - 1
        worse = float(stats.t.cdf((-rope - mean) / scale, n_free))
        better = float(stats.t.sf((rope - mean) / scale, n_free))
    return Posterior(worse, max(0.0, 1 - worse - better), better)


def _all_on_one_side(difference: np.ndarray) -> float:
    """Return the chance that signs are those of equal differences, by a coin.

    Scores move in steps, so that the difference can be the same on all of a few splits:
    a spread of zero that says nothing about the next split.
    """
    return 0.5 ** len(difference)


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""Adjust p values for the number of tests, by Holm's step-down procedure.

    :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)
        In [0, 1].

    Returns
    -------
    ndarray of shape (n_tests,)
        Adjusted, in the given order.

    Raises
    ------
    ValueError
        If a value is not in [0, 1].

    References
    ----------
    .. [1] Holm (1979). A simple sequentially rejective multiple test procedure.
       Scandinavian Journal of Statistics 6, 65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(2)
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"holm needs a list of p values in [0, 1]. Got {p_values!r}.")
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def compare_to_reference(
    scores: pd.DataFrame,
    reference: str,
    *,
    test_fraction: float,
    rope: float = 0.01,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Test every model against one of them.

    Parameters
    ----------
    scores : DataFrame of shape (n_splits, n_models)
        One column per model; higher is better.
    reference : str
        Column to compare with.
    test_fraction, rope, confidence
        See :func:`corrected_t_test` and :func:`bayesian_t_test`.

    Returns
    -------
    DataFrame of shape (n_models - 1, 10)
        Per model: its mean score, the fields of the two tests, and the p value after
        Holm's adjustment over the rows.

    Raises
    ------
    ValueError
        If there is no such column, or no other.

    Examples
    --------
    >>> scores = pd.DataFrame({"ours": [0.8, 0.7, 0.9], "linear": [0.7, 0.7, 0.7]})
    >>> compare_to_reference(scores, "linear", test_fraction=1 / 3)["p_holm"].round(2)
    ours    0.39
    Name: p_holm, dtype: float64
    """
    others = [name for name in scores.columns if name != reference]
    if reference not in scores or not others:
        raise ValueError(
            f"compare_to_reference needs {reference!r} and another model in `scores`. "
            f"Got {list(scores.columns)}."
        )
    rows = {}
    for name in others:
        pair = (scores[name], scores[reference])
        test = corrected_t_test(
            *pair, test_fraction=test_fraction, confidence=confidence
        )
        posterior = bayesian_t_test(*pair, test_fraction=test_fraction, rope=rope)
        rows[name] = {
            "score": float(scores[name].mean()),
            **test._asdict(),
            "p_holm": math.nan,
            **posterior._asdict(),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["p_holm"] = holm(table["p_value"])
    return table


def critical_difference(
    scores: pd.DataFrame, *, alpha: float = 0.05
) -> CriticalDifference:
    r"""Rank models over independent data sets, and say which ranks differ.

    Friedman's test over all models, then Nemenyi's critical difference
    :math:`q_\alpha \sqrt{k (k + 1) / (6 N)}` for k models and N data sets [1]_. Folds
    of one data set are not independent: use one row per data set.

    Parameters
    ----------
    scores : DataFrame of shape (n_datasets, n_models)
        At least two rows and three models; higher is better.
    alpha : float, default=0.05
        Level, in (0, 1).

    Returns
    -------
    CriticalDifference

    Raises
    ------
    ValueError
        If there are too few rows or models, or a score is not finite.

    References
    ----------
    .. [1] Demsar (2006). Statistical comparisons of classifiers over multiple data
       sets. JMLR 7, 1-30.

    Examples
    --------
    >>> scores = pd.DataFrame({"a": [0.9, 0.8], "b": [0.7, 0.7], "c": [0.5, 0.6]})
    >>> result = critical_difference(scores)
    >>> result.mean_ranks.to_dict(), round(result.difference, 2), result.cliques
    ({'a': 1.0, 'b': 2.0, 'c': 3.0}, 2.34, [('a', 'b', 'c')])
    """
    values = scores.to_numpy(dtype=float)
    n_rows, n_models = values.shape
    if n_rows < 2 or n_models < 3 or not np.isfinite(values).all():
        raise ValueError(
            "critical_difference needs finite scores of 3 models or more on 2 data "
            f"sets or more. Got {n_models} models and {n_rows} data sets."
        )
    check_scalar(
        alpha, "alpha", float, min_val=0, max_val=1, include_boundaries="neither"
    )
    ranks = stats.rankdata(-values, axis=1)
    if (ranks == ranks[:, :1]).all():
        statistic, p_value = 0.0, 1.0  # ties only, where the statistic is 0 / 0
    else:
        statistic, p_value = map(float, stats.friedmanchisquare(*values.T))
    quantile = float(stats.studentized_range.ppf(1 - alpha, n_models, np.inf))
    difference = quantile / math.sqrt(2)
    difference *= math.sqrt(n_models * (n_models + 1) / (6 * n_rows))
    mean_ranks = pd.Series(ranks.mean(axis=0), index=scores.columns, name="rank")
    mean_ranks = mean_ranks.sort_values(kind="stable")
    cliques = _cliques(mean_ranks, difference)
    return CriticalDifference(mean_ranks, statistic, p_value, difference, cliques)


def _cliques(mean_ranks: pd.Series, difference: float) -> list[tuple[str, ...]]:
    """Return the largest runs of sorted ranks that span at most `difference`."""
    ranks = mean_ranks.to_numpy()
    ends = [int((ranks <= rank + difference).sum()) for rank in ranks]
    return [
        tuple(mean_ranks.index[start:end])
        for start, end in enumerate(ends)
        if end - start > 1 and (start == 0 or end > ends[start - 1])
    ]


def _differences(scores: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """Return the paired differences, checked."""
    a, b = np.asarray(scores, dtype=float), np.asarray(reference, dtype=float)
    if a.ndim != 1 or len(a) < 2 or b.shape not in ((), a.shape):
        raise ValueError(
            "A paired test needs two lists of scores of the same length, 2 or more. "
            f"Got shapes {a.shape} and {b.shape}."
        )
    difference = a - b
    if not np.isfinite(difference).all():
        raise ValueError(
            "A paired test needs finite scores. Got one that is not, first in split "
            f"{int(np.argmin(np.isfinite(difference)))}. Run that split again."
        )
    return difference


def _corrected_moments(
    difference: np.ndarray, test_fraction: float
) -> tuple[float, float]:
    """Return the mean difference and its corrected standard error."""
    check_scalar(
        test_fraction,
        "test_fraction",
        float,
        min_val=0,
        max_val=1,
        include_boundaries="neither",
    )
    mean = float(difference.mean())
    overlap = test_fraction / (1 - test_fraction)
    deviation = float(difference.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        deviation = 0.0  # equal but for rounding
    return mean, deviation * math.sqrt(1 / len(difference) + overlap)
