"""Bootstrap, permutation, and warnings about predictions that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bsym_sklearn.analysis.resampling import (
    all_positive_f1,
    degeneracy,
    paired_bootstrap,
    permutation_p_value,
    permutation_test,
    permute_labels,
)


def accuracy(y: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.mean(y == prediction))


def auc(y: np.ndarray, score: np.ndarray) -> float:
    positive, negative = score[y == 1], score[y == 0]
    if not len(positive) or not len(negative):
        return np.nan
    return float((positive[:, None] > negative).mean())


# -------------------------------------------------------------------- bootstrap


def test_bootstrap_interval_is_that_of_a_share() -> None:
    y = np.ones(400, dtype=int)
    prediction = np.r_[np.ones(300), np.zeros(100)].astype(int)
    result = paired_bootstrap(y, prediction, None, accuracy, random_state=0)
    deviation = np.sqrt(0.75 * 0.25 / 400)
    assert result.estimate == 0.75
    assert (result.low, result.high) == pytest.approx(
        (0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation), abs=0.006
    )
    assert np.isnan(result.p_value)


def test_bootstrap_pairs_the_two_models(rng: np.random.Generator) -> None:
    y = rng.normal(size=100)
    prediction = y + rng.normal(size=100)

    def score(y: np.ndarray, p: np.ndarray) -> float:
        return float(-np.mean((y - p) ** 2))

    # The second is worse by the same small amount on every scan.
    shifted = y + np.sqrt((prediction - y) ** 2 + 0.1)
    result = paired_bootstrap(y, prediction, shifted, score, random_state=0)
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.p_value == pytest.approx(2 / 2001)


def test_bootstrap_finds_no_difference_between_equal_models() -> None:
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 60)
        a, b = y + rng.normal(size=(2, 60)) * 1.5
        result = paired_bootstrap(y, a, b, auc, n_resamples=200, random_state=0)
        hits += result.p_value < 0.05
        assert (result.low <= 0 <= result.high) or result.p_value < 0.1
    assert hits <= 6


def test_bootstrap_of_identical_predictions_has_p_one() -> None:
    y = np.arange(10) % 2
    result = paired_bootstrap(y, y, y, accuracy, n_resamples=50, random_state=0)
    assert result[:4] == (0, 0, 0, 1)


def test_bootstrap_resamples_participants_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    y = np.ones(200, dtype=int)
    prediction = np.repeat(rng.integers(0, 2, 20), 10)  # right or wrong per person
    alone = paired_bootstrap(y, prediction, None, accuracy, random_state=0)
    grouped = paired_bootstrap(
        y, prediction, None, accuracy, groups=groups, random_state=0
    )
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.2)


def test_bootstrap_leaves_out_and_counts_resamples_without_a_score() -> None:
    y, score = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.9])
    result = paired_bootstrap(y, score, None, auc, n_resamples=300, random_state=0)
    # all scans of one class: (2/3)^3 + (1/3)^3 = 1/3
    assert result.n_undefined == pytest.approx(100, abs=25)
    assert result.estimate == result.low == 1
    with pytest.raises(ValueError, match="needs a metric that is defined"):
        paired_bootstrap(y * 0, score, None, auc, n_resamples=5)


def test_bootstrap_takes_probabilities_of_several_classes() -> None:
    y = np.arange(30) % 3
    probabilities = np.eye(3)[y]

    def top(y: np.ndarray, p: np.ndarray) -> float:
        return accuracy(y, p.argmax(1))

    result = paired_bootstrap(
        y, probabilities, np.roll(probabilities, 1, axis=1), top, n_resamples=20
    )
    assert result[:3] == (1, 1, 1)


# ------------------------------------------------------------------ permutation


def test_p_value_counts_the_true_labels() -> None:
    assert permutation_p_value(1.0, [0.0] * 99) == 0.01
    assert permutation_p_value(0.5, [0.5, 0.6, 0.1]) == 0.75
    assert permutation_p_value(0.5, []) == 1


def test_labels_stay_within_their_block() -> None:
    blocks = np.repeat(["a", "b"], 20)
    labels = np.r_[np.arange(20), np.arange(100, 120)]
    shuffled = permute_labels(labels, blocks=blocks, random_state=0)
    assert sorted(shuffled[:20]) == list(range(20))
    assert not (shuffled[:20] == labels[:20]).all()
    assert not (shuffled[20:] == labels[20:]).all()


def test_scans_of_a_unit_keep_a_common_label() -> None:
    units = np.repeat(np.arange(12), 3)
    labels = np.repeat(np.arange(12) % 4, 3)
    shuffled = permute_labels(labels, units=units, random_state=0).reshape(12, 3)
    assert (shuffled == shuffled[:, :1]).all()
    assert sorted(shuffled[:, 0]) == sorted(labels[::3])
    assert not (shuffled[:, 0] == labels[::3]).all()


def test_units_stay_within_their_block() -> None:
    units, blocks = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 0, 0, 1, 1, 1])
    labels = np.array(["x", "x", "y", "z", "w", "w"])
    for seed in range(5):
        shuffled = permute_labels(labels, units=units, blocks=blocks, random_state=seed)
        assert set(shuffled[:3]) == {"x", "y"}
        assert set(shuffled[3:]) == {"z", "w"}


def test_shuffles_are_uniform_and_leave_the_input_alone() -> None:
    labels = np.arange(3)
    rng = np.random.RandomState(0)
    orders = [tuple(permute_labels(labels, random_state=rng)) for _ in range(600)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert min(counts) > 60
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "blocks"), [([0, 1, 0], None), ([0, 0, 1], ["a", "b", "a"])]
)
def test_unit_with_several_labels_or_blocks_is_refused(
    labels: list[int], blocks: list[str] | None
) -> None:
    with pytest.raises(ValueError, match="Got several in unit 5, first in scan 1"):
        permute_labels(labels, blocks=blocks, units=[5, 5, 6])


def test_permutation_test_is_exact_under_the_null() -> None:
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 20))
        result = permutation_test(
            lambda labels, x=x: float(labels @ x),
            y,
            n_permutations=39,
            random_state=seed,
        )
        assert result.p_value >= 1 / 40
        rejected += result.p_value <= 0.1
    assert 3 <= rejected <= 18


def test_permuting_within_sites_does_not_reward_telling_the_sites() -> None:
    sites = np.repeat([0, 1], 50)
    rng = np.random.default_rng(0)
    labels = (rng.random(100) < np.where(sites == 0, 0.2, 0.8)).astype(int)

    def score(labels: np.ndarray) -> float:
        return accuracy(labels, sites)  # a model that knows the site alone

    free = permutation_test(score, labels, n_permutations=99, random_state=0)
    within = permutation_test(
        score, labels, blocks=sites, n_permutations=99, random_state=0
    )
    assert free.p_value == 0.01
    assert within.p_value == 1
    assert within.permuted_scores.shape == (99,)


# ------------------------------------------------------------------- degeneracy


@pytest.mark.parametrize("n_positive", [1, 5, 9])
def test_f1_of_calling_all_positive(n_positive: int) -> None:
    y = np.r_[np.ones(n_positive), np.zeros(10 - n_positive)].astype(int)
    assert all_positive_f1(y.mean()) == pytest.approx(f1_score(y, np.ones(10)))


def test_printed_f1_of_brainnetcnn_is_that_of_calling_all_positive() -> None:
    assert all_positive_f1(0.55) == pytest.approx(0.7097, abs=5e-5)


def test_constant_predictions_are_flagged() -> None:
    y = np.array(["f", "m", "m", "f"])
    assert degeneracy(y, ["f"] * 4) == (True, False, False)
    assert degeneracy(y, ["m"] * 4, np.full((4, 2), 0.5)) == (True, True, True)


def test_sound_predictions_are_not_flagged(rng: np.random.Generator) -> None:
    y = np.arange(40) % 2
    outputs = y + rng.normal(size=40)
    assert not any(degeneracy(y, (outputs > 0.5).astype(int), outputs))
    values = rng.normal(size=40)
    assert not any(degeneracy(values, 0.1 * values + 3))


def test_an_f1_that_happens_to_be_that_of_calling_all_positive_is_not_flagged() -> None:
    y = np.repeat([0, 1], 10)
    predicted = np.r_[np.zeros(15, dtype=int), np.ones(5, dtype=int)]
    assert f1_score(y, predicted) == pytest.approx(all_positive_f1(0.5))
    assert not any(degeneracy(y, predicted))


def test_predictions_near_all_positive_are_flagged_only_with_tolerance() -> None:
    y = np.arange(1000) % 2
    predicted = np.ones(1000, dtype=int)
    predicted[0] = 0
    assert not degeneracy(y, predicted).all_positive_f1
    assert degeneracy(y, predicted, tolerance=1e-3).all_positive_f1


@pytest.mark.parametrize("dtype", [float, int])
def test_regression_to_the_mean_is_flagged(dtype: type) -> None:
    ages = np.array([20, 30, 45, 70], dtype=dtype)
    constant = np.array([41.3, 41.3 + 1e-7, 41.3, 41.3])
    assert degeneracy(ages, constant) == (True, False, False)


def test_there_is_no_positive_class_among_three() -> None:
    assert degeneracy([0, 1, 2], [1, 1, 1]) == (True, False, False)


def test_the_same_for_all_may_be_right() -> None:
    assert not any(degeneracy([1, 1], [1, 1], [[0.1, 0.9]] * 2))
    assert not any(degeneracy([2.0], [2.1]))
