"""Fitting with targets: weights, classes, units, and one call after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.model import structural
from bsym_sklearn.model.connectome import prepare_connectome

N, R, T = 12, 5, 30
TINY: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 2,
    "max_epochs": 3,
    "batch_size": 6,
    "lr": 1e-2,
    "validation_fraction": 0.0,
    "random_state": 0,
}
ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
SUPERVISED = ESTIMATORS[1:]


def make_data(n_scans: int = N, **options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(n_scans, R, T, **options)
    return cohort.data, cohort.target


def target_of(kind: type, X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    return X["age"].to_numpy() if kind is BrainSymphonyRegressor else y


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


# ------------------------------------------------------------ steps in parts


@pytest.mark.parametrize("size", [1, 4, "auto"])
@pytest.mark.parametrize("kind", SUPERVISED)
def test_parts_of_batches_change_what_is_learned_by_rounding_only(kind, size):
    X, y = make_data()
    y = target_of(kind, X, y)
    weights = np.linspace(0.5, 1.5, N)
    params = TINY | {"dtype": "float64", "validation_fraction": 0.3}
    params |= {"dropout": 0.0, "head_dropout": 0.0}
    whole, parts = (
        kind(**params, micro_batch_size=s).fit(X, y, sample_weight=weights)
        for s in (None, size)
    )
    assert clone(parts).micro_batch_size == size
    np.testing.assert_allclose(output(parts, X), output(whole, X), rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        parts.history_[["train_loss", "valid_loss"]],
        whole.history_[["train_loss", "valid_loss"]],
        rtol=1e-9,
    )


def test_pretraining_in_parts_is_saved_and_loaded_with_its_size(tmp_path):
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY, micro_batch_size=2).fit(X)
    model.save_pretrained(tmp_path)
    loaded = BrainSymphonyEmbedder.from_pretrained(tmp_path)
    assert loaded.micro_batch_size == 2
    assert loaded.compile is False
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))


# ------------------------------------------------------------------ weights


@pytest.mark.parametrize("kind", SUPERVISED)
def test_equal_sample_weights_change_nothing(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    plain = output(kind(**TINY).fit(X, y), X)
    for weight in (1.0, 7.0):
        weighted = kind(**TINY).fit(X, y, sample_weight=np.full(N, weight))
        np.testing.assert_array_equal(output(weighted, X), plain)


def test_equal_class_weights_change_nothing():
    X, y = make_data()
    plain = output(BrainSymphonyClassifier(**TINY).fit(X, y), X)
    for class_weight in ({0: 1, 1: 1}, {0: 3.0, 1: 3.0}, "balanced"):  # y is balanced
        weighted = BrainSymphonyClassifier(**TINY, class_weight=class_weight).fit(X, y)
        np.testing.assert_array_equal(output(weighted, X), plain)


def test_class_weight_equals_the_sample_weight_that_it_means():
    X, y = make_data()
    by_class = BrainSymphonyClassifier(**TINY, class_weight={0: 1.0, 1: 4.0}).fit(X, y)
    by_scan = BrainSymphonyClassifier(**TINY).fit(X, y, np.where(y == 1, 4.0, 1.0))
    np.testing.assert_array_equal(output(by_class, X), output(by_scan, X))
    plain = BrainSymphonyClassifier(**TINY).fit(X, y)
    assert output(by_class, X)[:, 1].mean() > output(plain, X)[:, 1].mean()


def test_balanced_weights_pull_towards_the_rare_class():
    X, _ = make_data()
    rare = np.zeros(N, dtype=int)
    rare[:3] = 1
    classifier = BrainSymphonyClassifier(**TINY | {"max_epochs": 10})
    plain, balanced = (
        output(classifier.set_params(class_weight=w).fit(X, rare), X)[:, 1]
        for w in (None, "balanced")
    )
    assert balanced.mean() > plain.mean()


@pytest.mark.parametrize("kind", SUPERVISED)
def test_targets_of_scans_without_weight_do_not_matter(kind):
    """Exact for the targets; the scans still count for scaling and batches."""
    X, y = make_data()
    y = target_of(kind, X, y).astype(float if kind is BrainSymphonyRegressor else int)
    weight = np.ones(N)
    weight[:4] = 0
    other = y.copy()
    if kind is BrainSymphonyRegressor:
        other[:4] = y[:4][::-1]  # the mean and spread of y stay as they are
    else:
        other[:4] = 1 - y[:4]
    first, second = (kind(**TINY).fit(X, t, sample_weight=weight) for t in (y, other))
    np.testing.assert_array_equal(output(first, X), output(second, X))
    assert not np.array_equal(output(kind(**TINY).fit(X, other), X), output(first, X))


def test_scans_without_weight_are_not_the_same_as_no_scans():
    """What sample-weight equivalence asks for, and mini-batches cannot give."""
    X, y = make_data()
    weight = np.ones(N)
    weight[:4] = 0
    weighted = BrainSymphonyClassifier(**TINY).fit(X, y, sample_weight=weight)
    removed = BrainSymphonyClassifier(**TINY).fit(X.iloc[4:], y[4:])
    difference = np.abs(output(weighted, X) - output(removed, X)).max()
    assert 0 < difference < 1


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(N), "[Ss]ample weights must contain at least one non-zero"),
        (-np.ones(N), "Negative values in data passed to `sample_weight`"),
        (np.ones(N - 1), r"sample_weight.shape == \(11,\), expected \(12,\)"),
        (np.full(N, np.nan), "sample_weight contains NaN"),
    ],
)
@pytest.mark.parametrize("kind", SUPERVISED)
def test_bad_sample_weights_raise(kind, weight, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        kind(**TINY).fit(X, y, sample_weight=weight)


# ------------------------------------------------------------------ targets


def test_three_classes_with_names_are_learned():
    X, y = make_data(18, n_classes=3)
    names = np.array(["third", "first", "second"])[y]
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 30}).fit(X, names)
    assert model.classes_.tolist() == ["first", "second", "third"]
    proba = model.predict_proba(X)
    assert proba.shape == (18, 3)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(1)])
    assert model.score(X, names) == 1


def test_labels_change_names_and_nothing_else():
    X, y = make_data()
    plain = BrainSymphonyClassifier(**TINY).fit(X, y)
    named = BrainSymphonyClassifier(**TINY).fit(X, np.array(["ctl", "pat"])[y])
    np.testing.assert_array_equal(named.predict_proba(X), plain.predict_proba(X))


def test_regression_is_equivariant_to_shift_and_scale():
    X, _ = make_data()
    age = X["age"].to_numpy()
    params = TINY | {"dtype": "float64"}
    model = BrainSymphonyRegressor(**params).fit(X, age)
    assert model.y_mean_ == age.mean()
    assert model.y_scale_ == age.std()
    for shift, scale in ((1000.0, 1.0), (0.0, 1e-3), (-5.0, 365.25)):
        other = BrainSymphonyRegressor(**params).fit(X, age * scale + shift)
        np.testing.assert_allclose(
            other.predict(X), model.predict(X) * scale + shift, rtol=1e-7
        )


def test_regression_of_a_constant_predicts_it():
    X, _ = make_data()
    model = BrainSymphonyRegressor(**TINY).fit(X, np.full(N, 42.0))
    np.testing.assert_allclose(model.predict(X), 42, atol=0.1)


def test_regression_learns_its_training_scans():
    X, y = make_data()
    model = BrainSymphonyRegressor(**TINY | {"max_epochs": 30}).fit(X, 10.0 * y)
    assert model.score(X, 10.0 * y) > 0.8


BAD_TARGETS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "other length": (
        lambda y: y[:-1],
        "needs one target per scan. Got inconsistent numbers.*: 12 scans and 11 targets"
        ". Select the same rows of both.",
    ),
    "None": (lambda y: None, "requires y to be passed, but the target y is None"),
    "NaN": (
        lambda y: np.where(np.arange(N) == 3, np.nan, y),
        "[Ii]nput y contains NaN",
    ),
    "infinite": (lambda y: np.where(y == 1, np.inf, y), "[Ii]nput y contains infinity"),
    "two columns": (lambda y: np.stack([y, y], 1), "y should be a 1d array"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
@pytest.mark.parametrize("kind", SUPERVISED)
def test_bad_targets_raise(kind, case):
    X, y = make_data()
    make_bad, message = BAD_TARGETS[case]
    for fit in (kind(**TINY).fit, kind(**TINY).partial_fit):
        with pytest.raises(ValueError, match=message):
            fit(X, make_bad(y))


def test_missing_labels_name_the_scan():
    X, y = make_data()
    labels = np.array(["ctl", "pat"], dtype=object)[y]
    labels[3] = None
    message = "needs a target for every scan. Got none, first in scan 3. Leave the scan"
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyClassifier(**TINY).fit(X, labels)


def test_column_vector_targets_warn():
    X, y = make_data()
    with pytest.warns(Warning, match="A column-vector y was passed"):
        model = BrainSymphonyClassifier(**TINY).fit(X, y[:, None])
    expected = BrainSymphonyClassifier(**TINY).fit(X, y).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)


def test_classification_refuses_what_is_no_class():
    X, y = make_data()
    with pytest.raises(BrainDataError, match=r"at least 2 classes in y\. Got 1 class"):
        BrainSymphonyClassifier(**TINY).fit(X, np.zeros(N))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        BrainSymphonyClassifier(**TINY).fit(X, X["age"] + 0.25)
    with pytest.raises(ValueError, match=r"class_weight|weights"):
        BrainSymphonyClassifier(**TINY, class_weight="unbalanced").fit(X, y)


def test_regression_refuses_text():
    X, _ = make_data()
    with pytest.raises(ValueError, match="could not convert string to float"):
        BrainSymphonyRegressor(**TINY).fit(X, np.array(["young"] * N))


# ------------------------------------------------------------------ partial_fit


@pytest.mark.parametrize("kind", SUPERVISED)
def test_partial_fit_learns_with_every_call(kind):
    X, y = make_data()
    model = kind(**TINY | {"lr": 3e-3}, head_dropout=0.0)
    for calls in range(1, 13):
        assert model.partial_fit(X, y) is model
        assert model.n_iter_ == calls
    losses = model.history_["train_loss"]
    assert losses.iloc[-3:].mean() < 0.7 * losses.iloc[0]
    assert model.history_["epoch"].tolist() == list(range(1, 13))


@pytest.mark.parametrize("kind", SUPERVISED)
def test_partial_fit_has_the_same_bits_again(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    first, second = (
        kind(**TINY).partial_fit(X, y).partial_fit(X.iloc[:6], y[:6]) for _ in range(2)
    )
    np.testing.assert_array_equal(output(first, X), output(second, X))
    assert first.participants_ == second.participants_
    assert len(first.participants_) == N


def test_partial_fit_needs_all_classes_in_the_first_call():
    X, y = make_data()
    few = np.flatnonzero(y == 0)
    model = BrainSymphonyClassifier(**TINY)
    model.partial_fit(X.iloc[few], y[few], classes=[0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.partial_fit(X, y).predict_proba(X).shape == (N, 3)
    message = (
        r"BrainSymphonyClassifier needs labels among \[0, 1, 2\]. Got \[9\]. Pass all "
        "`classes` in the first call."
    )
    with pytest.raises(BrainDataError, match=message):
        model.partial_fit(X, np.where(y == 1, 9, y))
    unseen = BrainSymphonyClassifier(**TINY).partial_fit(X, y)
    with pytest.raises(BrainDataError, match=r"Got \[2\]"):
        unseen.partial_fit(X, y + 1)


def test_partial_fit_after_fit_goes_on():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY).fit(X, y)
    before = output(model, X)
    model.partial_fit(X, y)
    assert model.n_iter_ == TINY["max_epochs"] + 1
    assert not np.array_equal(output(model, X), before)
    with pytest.raises(BrainDataError, match="needs scans of 5 regions, as in fit"):
        model.partial_fit(make_cohort(N, R + 1, T).data, y)


# What is computed once


def test_a_connectome_is_prepared_once_for_all_its_epochs(monkeypatch):
    X, y = make_data()
    calls = []

    def prepare(sc: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
        calls.append(options)
        return prepare_connectome(sc, **options)

    options = {"edge_weights": "multi_hop", "structural_positions": "spectral"}
    estimator = BrainSymphonyClassifier(**{**TINY, **options, "max_epochs": 3})
    expected = estimator.fit(X, y).predict_proba(X)
    monkeypatch.setattr(structural, "prepare_connectome", prepare)
    got = clone(estimator).fit(X, y).predict_proba(X)
    assert len(calls) == 2 * len(X)  # once for fit, once for predict_proba
    np.testing.assert_array_equal(got, expected)
