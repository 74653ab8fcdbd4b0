"""Tests between models: hand-computed and published values, and error rates."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from sklearn.model_selection import RepeatedKFold

from bsym_sklearn.analysis.statistics import (
    bayesian_t_test,
    compare_to_reference,
    corrected_t_test,
    critical_difference,
    holm,
)

# Table 6 of Demsar (2006): areas under the curve of four variants of C4.5.
DEMSAR = pd.DataFrame(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975),  # a tie of printed digits, not of its ranks
        (0.957, 0.978, 0.946, 0.970),
    ],
    columns=["C4.5", "m", "cf", "m+cf"],
)


def test_corrected_t_by_hand() -> None:
    result = corrected_t_test([0.8, 0.7, 0.9], [0.7, 0.7, 0.7], test_fraction=1 / 3)
    scale = math.sqrt((1 / 3 + 1 / 2) * 0.01)  # mean .1, variance .01, n 3, rho 1/3
    assert result.difference == pytest.approx(0.1)
    assert result.statistic == pytest.approx(0.1 / scale)
    assert result.p_value == pytest.approx(2 * stats.t.sf(0.1 / scale, 2))
    assert result.high - 0.1 == pytest.approx(4.302652729696142 * scale)
    assert result.low + result.high == pytest.approx(0.2)


def test_without_overlap_the_corrected_t_is_the_paired_t(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(size=(2, 12))
    expected = stats.ttest_rel(a, b)
    result = corrected_t_test(a, b, test_fraction=1e-12)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))


def test_interval_holds_zero_exactly_when_p_exceeds_its_level(
    rng: np.random.Generator,
) -> None:
    for shift in (0.0, 0.4, 0.8, 2.0):
        a = rng.normal(shift, size=10)
        result = corrected_t_test(a, 0.0, test_fraction=0.2, confidence=0.9)
        assert (result.low <= 0 <= result.high) is (result.p_value >= 0.1)


def test_a_fixed_reference_is_the_same_as_its_repetition() -> None:
    scores = [0.6, 0.7, 0.55]
    assert corrected_t_test(scores, 0.5, test_fraction=0.2) == corrected_t_test(
        scores, [0.5] * 3, test_fraction=0.2
    )


@pytest.mark.parametrize(
    ("shift", "statistic", "p_value", "posterior"),
    [
        (0.0, 0.0, 1.0, (0, 1, 0)),
        (0.1, math.inf, 0.25, (0, 0.125, 0.875)),  # a coin, thrown three times
        (-0.1, -math.inf, 0.25, (0.875, 0.125, 0)),
        (0.005, math.inf, 0.25, (0, 1, 0)),
    ],
)
def test_differences_without_variance_are_tested_by_their_signs(
    shift: float, statistic: float, p_value: float, posterior: tuple[float, ...]
) -> None:
    scores = np.array([0.6, 0.7, 0.8])
    result = corrected_t_test(scores + shift, scores, test_fraction=0.2)
    assert (result.statistic, result.p_value) == (statistic, p_value)
    assert bayesian_t_test(scores + shift, scores, test_fraction=0.2) == posterior


def test_equal_models_are_called_different_far_less_often_than_by_the_naive_test() -> (
    None
):
    rng = np.random.default_rng(0)
    naive, corrected, n_simulations = 0, 0, 120
    for seed in range(n_simulations):
        X = rng.normal(size=(60, 8))
        y = X.sum(1) * 0.35 + rng.normal(size=60)
        scores = np.empty((25, 2))
        folds = RepeatedKFold(n_splits=5, n_repeats=5, random_state=seed)
        for i, (train, test) in enumerate(folds.split(X)):
            for model, columns in enumerate((slice(0, 4), slice(4, 8))):
                weights = np.linalg.lstsq(X[train, columns], y[train], rcond=None)[0]
                scores[i, model] = np.corrcoef(X[test, columns] @ weights, y[test])[
                    0, 1
                ]
        naive += stats.ttest_rel(*scores.T).pvalue < 0.05
        corrected += corrected_t_test(*scores.T, test_fraction=0.2).p_value < 0.05
    assert naive / n_simulations > 0.3
    assert corrected / n_simulations < 0.12


def test_posterior_is_the_integral_of_the_student_density(
    rng: np.random.Generator,
) -> None:
    a, b = rng.normal(0.7, 0.05, 10), rng.normal(0.69, 0.05, 10)
    d = a - b
    scale = math.sqrt((1 / 10 + 0.25) * d.var(ddof=1))
    density = stats.t(9, loc=d.mean(), scale=scale).pdf
    result = bayesian_t_test(a, b, test_fraction=0.2, rope=0.02)
    parts = [
        integrate.quad(density, *limits)[0]
        for limits in ((-np.inf, -0.02), (-0.02, 0.02), (0.02, np.inf))
    ]
    assert tuple(result) == pytest.approx(parts, abs=1e-7)
    assert sum(result) == pytest.approx(1)


def test_posterior_without_rope_is_half_the_p_value(rng: np.random.Generator) -> None:
    a = rng.normal(0.5, 1, 8)
    posterior = bayesian_t_test(a, np.zeros(8), test_fraction=0.2, rope=0)
    p_value = corrected_t_test(a, 0.0, test_fraction=0.2).p_value
    assert 2 * min(posterior.worse, posterior.better) == pytest.approx(p_value)
    assert posterior.equivalent == pytest.approx(0)


def test_swapping_the_models_swaps_the_posterior(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 6))
    one = bayesian_t_test(a, b, test_fraction=0.2, rope=0.1)
    other = bayesian_t_test(b, a, test_fraction=0.2, rope=0.1)
    assert tuple(one) == pytest.approx(tuple(other)[::-1])


def test_holm_gives_the_values_of_r() -> None:
    # p.adjust(c(.03, .01, .02, .05, .04), "holm")
    adjusted = holm([0.03, 0.01, 0.02, 0.05, 0.04])
    np.testing.assert_allclose(adjusted, [0.09, 0.05, 0.08, 0.09, 0.09])


def test_holm_is_capped_and_takes_an_empty_list() -> None:
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("p", [[-0.1], [1.1], [np.nan], [[0.1]]])
def test_holm_refuses_what_is_no_p_value(p: list[object]) -> None:
    with pytest.raises(ValueError, match=r"holm needs a list of p values in \[0, 1\]"):
        holm(p)


def test_table_holds_both_tests_of_every_model() -> None:
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(
        rng.normal((0.7, 0.75, 0.7), 0.02, (10, 3)), columns=["fc", "ours", "other"]
    )
    table = compare_to_reference(scores, "fc", test_fraction=0.1)
    assert list(table.index) == ["ours", "other"]
    test = corrected_t_test(scores["ours"], scores["fc"], test_fraction=0.1)
    assert tuple(table.loc["ours", list(test._fields)]) == tuple(test)
    np.testing.assert_allclose(table["p_holm"], holm(table["p_value"]))
    np.testing.assert_allclose(table[["worse", "equivalent", "better"]].sum(axis=1), 1)
    assert table.loc["ours", "score"] == scores["ours"].mean()


@pytest.mark.parametrize("columns", [["a", "b"], ["fc"]])
def test_table_needs_the_reference_and_another(columns: list[str]) -> None:
    scores = pd.DataFrame(np.zeros((3, len(columns))), columns=columns)
    with pytest.raises(ValueError, match="needs 'fc' and another model in `scores`"):
        compare_to_reference(scores, "fc", test_fraction=0.1)


def test_demsars_example() -> None:
    result = critical_difference(DEMSAR)
    expected = {"m+cf": 1.964, "m": 2.000, "cf": 2.893, "C4.5": 3.143}
    assert list(result.mean_ranks.index) == list(expected)
    np.testing.assert_allclose(result.mean_ranks, list(expected.values()), atol=5e-4)
    assert result.difference == pytest.approx(1.25, abs=5e-3)
    # The paper's statistic, which is not corrected for ties
    statistic = 12 * 14 / 20 * ((result.mean_ranks**2).sum() - 25)
    assert statistic == pytest.approx(9.28, abs=5e-3)
    assert statistic < result.statistic < 10.5
    assert result.p_value < 0.05
    assert result.cliques == [("m+cf", "m", "cf", "C4.5")]


@pytest.mark.parametrize(
    ("n_models", "q"),
    [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (10, 3.164)],
)
def test_critical_values_are_the_published_ones(n_models: int, q: float) -> None:
    scores = pd.DataFrame(np.random.default_rng(0).normal(size=(10, n_models)))
    scale = math.sqrt(n_models * (n_models + 1) / 60)
    assert critical_difference(scores).difference / scale == pytest.approx(q, abs=1e-3)


def test_cliques_are_maximal_and_leave_out_models_that_stand_alone() -> None:
    rows = 40
    scores = pd.DataFrame(
        {
            "far": np.full(rows, 9.0),
            "a": np.tile([1.0, 2.0], rows // 2),
            "b": np.tile([2.0, 1.0], rows // 2),
            "last": np.zeros(rows),
        }
    )
    assert critical_difference(scores).cliques == [("a", "b")]


def test_models_that_always_tie_are_not_different() -> None:
    result = critical_difference(pd.DataFrame(np.ones((4, 3)), columns=list("abc")))
    assert (result.statistic, result.p_value) == (0, 1)
    assert result.mean_ranks.tolist() == [2, 2, 2]


@pytest.mark.parametrize("shape", [(1, 3), (5, 2)])
def test_too_few_models_or_data_sets_are_refused(shape: tuple[int, int]) -> None:
    message = rf"Got {shape[1]} models and {shape[0]} data sets"
    with pytest.raises(ValueError, match=message):
        critical_difference(pd.DataFrame(np.zeros(shape)))


@pytest.mark.parametrize("test", [corrected_t_test, bayesian_t_test])
def test_scores_are_checked(test) -> None:
    with pytest.raises(ValueError, match=r"Got shapes \(1,\) and \(1,\)"):
        test([0.5], [0.5], test_fraction=0.2)
    with pytest.raises(ValueError, match=r"Got shapes \(3,\) and \(2,\)"):
        test([0.5, 0.6, 0.7], [0.5, 0.6], test_fraction=0.2)
    with pytest.raises(ValueError, match=r"finite scores.*first in split 1"):
        test([0.5, np.nan], [0.5, 0.6], test_fraction=0.2)
    with pytest.raises(ValueError, match=r"test_fraction == 1\.0, must be < 1"):
        test([0.5, 0.7], [0.5, 0.6], test_fraction=1.0)
