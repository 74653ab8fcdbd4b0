from __future__ import annotations

import numpy as np
import pytest

from bsym_sklearn.analysis.cost import pareto_front


def test_front_has_all_that_nothing_dominates(rng) -> None:
    cost, score = rng.integers(0, 6, size=(2, 40)).astype(float)
    expected = [
        not any(
            c <= cost[i] and s >= score[i] and (c < cost[i] or s > score[i])
            for c, s in zip(cost, score, strict=True)
        )
        for i in range(40)
    ]
    np.testing.assert_array_equal(pareto_front(cost, score), expected)


def test_equal_models_share_the_front() -> None:
    assert pareto_front([1, 1], [0.5, 0.5]).all()


def test_front_of_a_loss_is_that_of_its_negative(rng) -> None:
    cost, loss = rng.normal(size=(2, 20))
    np.testing.assert_array_equal(
        pareto_front(cost, loss, lower_is_better=True), pareto_front(cost, -loss)
    )


def test_unknown_numbers_are_never_on_the_front() -> None:
    front = pareto_front([1, np.nan, 2, 3], [0.5, 0.9, np.nan, 0.6])
    assert front.tolist() == [True, False, False, True]


def test_front_refuses_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match=r"Got shapes \(2,\) and \(3,\)"):
        pareto_front([1, 2], [1, 2, 3])
