"""scikit-learn's own checks, whole: no tag is set to have fewer of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
MINI_BATCHES = (
    "a weight of 2 is one scan that counts twice, not two scans: order, batches, "
    "dropout and Adam's steps depend on the number of rows"
)
EXPECTED: dict[str, dict[str, str]] = {
    "BrainSymphonyClassifier": {WEIGHTS: MINI_BATCHES},
    "BrainSymphonyEmbedder": {},
    "BrainSymphonyRegressor": {WEIGHTS: MINI_BATCHES},
}
# The smallest models and shortest fits that still learn what some checks ask for.
# float64: the checks compare batches of other sizes to 1e-7.
FAST = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 2,
    "max_epochs": 10,
    "batch_size": 64,
    "lr": 2e-2,
    "validation_fraction": 0.0,
    "dtype": "float64",
    "random_state": 0,
}
ESTIMATORS = [
    BrainSymphonyEmbedder(**FAST | {"max_epochs": 2}),
    BrainSymphonyClassifier(**FAST, head_dropout=0.0),
    BrainSymphonyRegressor(**FAST, head_dropout=0.0),
]


def expected_failures(estimator: BaseEstimator) -> dict[str, str]:
    return EXPECTED[type(estimator).__name__]


@parametrize_with_checks(
    ESTIMATORS, expected_failed_checks=expected_failures, xfail_strict=True
)
def test_estimator_passes_sklearns_checks(
    estimator: BaseEstimator, check: Callable[[Any], None]
) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        BrainSymphonyEmbedder(dtype="float64"),
        BrainSymphonyClassifier(dtype="float64"),
        BrainSymphonyRegressor(dtype="float64"),
    ],
    expected_failed_checks=expected_failures,
    xfail_strict=True,
)
def test_default_parameters_pass_sklearns_checks(
    estimator: BaseEstimator, check: Callable[[Any], None]
) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_no_tag_reduces_the_checks(estimator: BaseEstimator) -> None:
    tags = get_tags(estimator)
    assert tags.input_tags.two_d_array
    assert not tags.non_deterministic
    assert not tags.no_validation
    assert not tags._skip_test
    names = [
        getattr(check, "func", check).__name__
        for _, check in estimator_checks_generator(estimator)
    ]
    assert len(names) >= 47
    assert "check_methods_subset_invariance" in names
    assert len(EXPECTED[type(estimator).__name__]) <= 1
    assert EXPECTED[type(estimator).__name__].keys() <= set(names)
