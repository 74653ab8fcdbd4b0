"""Scores of predictions whose worth is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bsym_sklearn.analysis.scores import (
    METRICS,
    classification_scores,
    headline_metric,
    regression_scores,
)


def test_two_classes() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    y = np.array(["a", "a", "a", "b"])
    scores = classification_scores(y, y, p, ["a", "b"])
    assert tuple(scores) == METRICS["classification"]
    perfect = ("accuracy", "balanced_accuracy", "auroc", "f1")
    assert all(scores[name] == 1 for name in perfect)
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.8, 0.7]).mean())
    assert scores["brier"] == pytest.approx(np.mean([0.01, 0.16, 0.04, 0.09]))


def test_three_classes_of_which_one_is_not_tested() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores([0, 1], [0, 2], p, [0, 1, 2])
    assert scores["auroc"] == 1
    assert scores["accuracy"] == scores["balanced_accuracy"] == 0.5
    assert scores["f1"] == pytest.approx(1 / 3)  # of 0: 1, of 1 and 2: 0
    expected = [0.25 + 0.09 + 0.04, 0.01 + 0.04 + 0.01]
    assert scores["brier"] == pytest.approx(np.mean(expected))


def test_one_class_has_no_area() -> None:
    scores = classification_scores([1, 1], [1, 1], [[0.2, 0.8]] * 2, [0, 1])
    assert np.isnan(scores["auroc"])
    assert scores["accuracy"] == 1


def test_what_is_no_probability_has_no_loss() -> None:
    ranks = [[-3.0, 3.0], [5.0, -5.0]]
    scores = classification_scores(
        [1, 0], [1, 0], ranks, [0, 1], are_probabilities=False
    )
    assert scores["auroc"] == 1
    assert np.isnan(scores["log_loss"])
    assert np.isnan(scores["brier"])


def test_values() -> None:
    scores = regression_scores([1.0, 2.0, 3.0], [2.0] * 3)
    assert tuple(scores) == METRICS["regression"]
    assert scores["r2"] == 0
    assert scores["mae"] == pytest.approx(2 / 3)
    assert np.isnan(scores["pearson"])
    monotone = regression_scores([1.0, 2.0, 3.0], [1.0, 10.0, 100.0])
    assert monotone["spearman"] == 1
    assert monotone["pearson"] < 1


def test_the_headline_follows_the_task() -> None:
    assert headline_metric("regression") == "r2"
    assert headline_metric("classification", 2) == "auroc"
    assert headline_metric("classification", 3) == "accuracy"
