"""The search: what it finds, what it survives, and that it is the same again."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bsym_sklearn import BrainSymphonyClassifier
from bsym_sklearn.analysis.tuning import Tuned, log_likelihood, tune

pytest.importorskip("optuna", reason="the search needs optuna")
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


class Constant(RegressorMixin, BaseEstimator):
    """Predicts `level`; refuses levels above `highest`."""

    def __init__(self, level=0.0, highest=10.0, error=ValueError):
        self.level = level
        self.highest = highest
        self.error = error

    def fit(self, X, y):
        if self.level > self.highest:
            raise self.error("the level is too high")
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.full(len(X), float(self.level))


SPACE = {"level": FloatDistribution(-10.0, 10.0)}


@pytest.fixture
def rows():
    return np.zeros((10, 1)), np.full(10, 3.0)


@pytest.fixture
def splits():
    return list(KFold(2).split(np.zeros(10)))


def test_search_comes_near_the_best_parameter(rows, splits) -> None:
    tuned = tune(Constant(), SPACE, *rows, splits, n_trials=40)
    assert isinstance(tuned, Tuned)
    assert tuned.params["level"] == pytest.approx(3.0, abs=0.5)
    assert tuned.score == pytest.approx(-((tuned.params["level"] - 3.0) ** 2))
    assert list(tuned.trials.columns) == ["level", "score", "seconds", "error"]
    assert tuned.trials["score"].max() == tuned.score
    assert (tuned.trials["seconds"] > 0).all()


def test_first_trial_is_the_estimator_as_it_came(rows, splits) -> None:
    tuned = tune(Constant(level=2.9), SPACE, *rows, splits, n_trials=4)
    assert tuned.trials["level"][0] == 2.9
    assert tuned.score >= tuned.trials["score"][0]
    only = tune(Constant(level=2.9), SPACE, *rows, splits, n_trials=1)
    assert only.params == {"level": 2.9}


@pytest.mark.parametrize("level", [20.0, None, "middle", True])
def test_a_value_outside_of_the_space_is_not_tried(rows, splits, level) -> None:
    tuned = tune(Constant(level=level), SPACE, *rows, splits, n_trials=2)
    assert tuned.trials["level"].between(-10, 10).all()
    assert tuned.trials["level"].dtype == float
    assert tuned.trials["level"][0] not in (0.0, 1.0)


def test_same_seed_gives_the_same_trials(rows, splits) -> None:
    def levels(seed: int) -> list[float]:
        tuned = tune(Constant(), SPACE, *rows, splits, n_trials=15, seed=seed)
        return tuned.trials["level"].tolist()

    assert levels(1) == levels(1)
    assert levels(1)[1:] != levels(2)[1:]


@pytest.mark.parametrize("error", [ValueError, FloatingPointError])
def test_a_failing_trial_is_a_bad_one_and_not_a_crash(rows, splits, error) -> None:
    picky = Constant(highest=0.0, error=error)
    tuned = tune(picky, SPACE, *rows, splits, n_trials=40)
    failed = tuned.trials["score"].isna()
    assert 0 < failed.sum() < 20  # the sampler learns to keep away
    assert (tuned.trials["level"][failed] > 0).all()
    assert (
        tuned.trials["error"][failed] == f"{error.__name__}: the level is too high"
    ).all()
    assert (tuned.trials["error"][~failed] == "").all()
    assert -1.0 < tuned.params["level"] <= 0.0


def test_other_errors_are_bugs_and_raised(rows, splits) -> None:
    picky = Constant(highest=-20.0, error=KeyError)
    with pytest.raises(KeyError, match="the level is too high"):
        tune(picky, SPACE, *rows, splits, n_trials=2)


def test_scores_that_are_not_finite_count_as_failed(rows, splits) -> None:
    def scoring(model, X, y) -> float:
        return np.inf if model.level > 0 else float(model.level)

    start = Constant(level=-1.0)
    tuned = tune(start, SPACE, *rows, splits, n_trials=10, scoring=scoring)
    assert tuned.score <= 0
    assert tuned.trials["score"].isna().any()


def test_no_trial_that_works_is_an_error_with_its_cause(rows, splits) -> None:
    picky = Constant(highest=-20.0)
    message = r"Got none in 3, first ValueError: the level is too high"
    with pytest.raises(ValueError, match=message) as caught:
        tune(picky, SPACE, *rows, splits, n_trials=3)
    assert str(caught.value.__cause__) == "the level is too high"
    with pytest.raises(ValueError, match="first a score that is not finite"):
        tune(Constant(), SPACE, *rows, splits, n_trials=2, scoring=lambda *_: np.nan)


def test_nothing_to_search_is_an_error(rows, splits) -> None:
    with pytest.raises(ValueError, match="Got 0 parameters and 2 splits"):
        tune(Constant(), {}, *rows, splits)
    with pytest.raises(ValueError, match="Got 1 parameters and 0 splits"):
        tune(Constant(), SPACE, *rows, [])
    with pytest.raises(ValueError, match="n_trials == 0, must be >= 1"):
        tune(Constant(), SPACE, *rows, splits, n_trials=0)


def test_estimator_and_the_words_of_optuna_are_left_alone(
    rows, splits, caplog, capfd
) -> None:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    estimator = Constant()
    with caplog.at_level(logging.DEBUG):
        tune(estimator, SPACE, *rows, splits, n_trials=2)
    assert estimator.get_params() == Constant().get_params()
    assert not hasattr(estimator, "fitted_")
    assert optuna.logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_search_names_what_to_install(rows, splits, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[tune\]"'):
        tune(Constant(), SPACE, *rows, splits)


def test_classifiers_are_searched_by_likelihood(rng) -> None:
    X = pd.DataFrame(rng.normal(size=(60, 3)))
    y = np.where(X[0] + rng.normal(size=60) > 0, "patient", "control")
    model = make_pipeline(StandardScaler(), LogisticRegression())
    space = {"logisticregression__C": FloatDistribution(1e-4, 1e2, log=True)}
    folds = list(KFold(3).split(X))
    tuned = tune(model, space, X, y, folds, n_trials=5)
    best = model.set_params(**tuned.params)
    scores = [
        log_likelihood(best.fit(X.iloc[train], y[train]), X.iloc[test], y[test])
        for train, test in folds
    ]
    assert tuned.score == pytest.approx(np.mean(scores))


def test_regressors_are_searched_by_squared_error(rng) -> None:
    X = rng.normal(size=(40, 30))
    y = rng.normal(size=40)  # nothing to learn: the strongest penalty is best
    space = {"alpha": FloatDistribution(1e-3, 1e5, log=True)}
    tuned = tune(Ridge(), space, X, y, list(KFold(4).split(X)), n_trials=15)
    assert tuned.params["alpha"] > 100
    assert tuned.score == pytest.approx(-np.var(y), rel=0.2)


def test_cohorts_and_parameters_of_every_kind_are_searched(cohort) -> None:
    model = BrainSymphonyClassifier(
        dim=4, depth=1, n_heads=2, max_epochs=1, batch_size=6, random_state=0
    )
    space = {
        "depth": IntDistribution(1, 2),
        "dim": CategoricalDistribution([4, 6]),
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
    }
    folds = list(KFold(2).split(cohort.target))
    tuned = tune(model, space, cohort.data, cohort.target, folds, n_trials=2)
    assert tuned.trials[["depth", "dim"]].iloc[0].tolist() == [1, 4]
    assert set(tuned.params) == set(space)
    assert np.isfinite(tuned.score)


def test_likelihood_is_that_of_scikit_learn(rng) -> None:
    X, y = rng.normal(size=(40, 2)), rng.integers(3, size=40)
    model = LogisticRegression().fit(X, y)
    expected = -log_loss(y, model.predict_proba(X))
    assert log_likelihood(model, X, y) == pytest.approx(expected)


def test_likelihood_is_defined_for_classes_never_seen() -> None:
    model = DummyClassifier(strategy="prior").fit([[0], [0]], ["b", "c"])
    score = log_likelihood(model, [[0], [0]], ["b", "a"])
    assert score == pytest.approx((np.log(0.5) + np.log(1e-12)) / 2)


def test_likelihood_scores_any_order_of_classes() -> None:
    class Backwards(ClassifierMixin, BaseEstimator):
        classes_ = np.array(["z", "a"])

        def predict_proba(self, X):
            return np.tile([0.25, 0.75], (len(X), 1))

    assert log_likelihood(Backwards(), [[0]], ["a"]) == pytest.approx(np.log(0.75))
