"""OptunaSearchCV: a search of scikit-learn like any other."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.callback import ScoringMonitor
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.analysis.search import OptunaSearchCV

pytest.importorskip("optuna", reason="the search needs optuna")
from optuna.distributions import FloatDistribution, IntDistribution

SPACE = {"C": FloatDistribution(1e-3, 1e3, log=True)}
PENALTIES = {"alpha": FloatDistribution(1e-3, 1e5, log=True)}
TINY = {"dim": 8, "depth": 1, "n_heads": 2, "max_epochs": 1, "random_state": 0}
RATES = {"lr": FloatDistribution(1e-4, 1e-2, log=True)}
# Those of GridSearchCV, in scikit-learn's own list of expected failures.
EXPECTED = {"check_supervised_y_2d": "Ridge takes several targets"}


def search(**options) -> OptunaSearchCV:
    options = {"n_trials": 3, "random_state": 0, "cv": 3} | options
    return OptunaSearchCV(LogisticRegression(), SPACE, **options)


@pytest.fixture(scope="module")
def rows():
    return make_classification(60, 4, random_state=0)


@parametrize_with_checks(
    [
        OptunaSearchCV(
            Ridge(),
            {"alpha": FloatDistribution(0.1, 1.0)},
            n_trials=2,
            cv=2,
            random_state=0,
            error_score="raise",
        )
    ],
    expected_failed_checks=lambda _: EXPECTED,
    xfail_strict=True,
)
def test_search_passes_sklearns_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow  # fits hundreds of times
@parametrize_with_checks([search(n_trials=2, cv=2, error_score="raise")])
def test_search_of_a_classifier_passes_sklearns_checks(estimator, check) -> None:
    check(estimator)


def test_candidates_follow_from_the_seed_and_start_with_the_estimator(rows) -> None:
    def tried(seed: int) -> list[float]:
        found = OptunaSearchCV(
            Ridge(), PENALTIES, n_trials=12, cv=2, random_state=seed, refit=False
        ).fit(*rows)
        return [params["alpha"] for params in found.cv_results_["params"]]

    first, other = tried(1), tried(2)
    assert tried(1) == first
    assert first[0] == other[0] == 1.0
    assert first[1:] != other[1:]


def test_it_finds_what_is_better(rng) -> None:
    X, y = rng.normal(size=(40, 30)), rng.normal(size=40)  # nothing to learn: shrink
    found = OptunaSearchCV(Ridge(), PENALTIES, n_trials=15, cv=2, random_state=0)
    found.fit(X, y)
    assert found.best_params_["alpha"] > 100
    assert found.best_score_ == found.cv_results_["mean_test_score"].max()
    assert found.best_params_["alpha"] == found.best_estimator_.alpha


def test_a_classifier_stays_one_and_is_stratified() -> None:
    X, y = np.zeros((30, 1)), np.repeat([0, 1], [24, 6])
    model = OptunaSearchCV(DummyClassifier(strategy="prior"), {}, n_trials=1, cv=2)
    assert is_classifier(model)
    assert is_classifier(clone(model).set_params(estimator__strategy="uniform"))
    assert not is_classifier(OptunaSearchCV(Ridge(), {}))
    scores = cross_val_score(model, X, y, cv=3, scoring="accuracy")
    np.testing.assert_allclose(scores, 0.8)  # as many of each class in each fold


def test_random_splits_are_the_same_for_all_candidates(rows) -> None:
    splitter = ShuffleSplit(3)  # draws anew each time it is asked
    found = search(cv=splitter, n_trials=3)
    found.param_distributions = {"C": FloatDistribution(1.0, 1.0)}
    results = found.fit(*rows).cv_results_
    for i in range(3):
        assert len(set(results[f"split{i}_test_score"])) == 1


def test_groups_reach_the_splitter_by_both_ways(rows) -> None:
    X, y = rows
    groups = np.tile(np.arange(6), 10)
    model = search(cv=GroupKFold(3))
    with pytest.raises(ValueError, match="groups"):
        model.fit(X, y)
    first = model.fit(X, y, groups=groups).cv_results_["mean_test_score"]
    with config_context(enable_metadata_routing=True):
        results = cross_validate(
            model,
            X,
            y,
            params={"groups": groups},
            cv=GroupKFold(2),
            return_estimator=True,
        )
        assert [found.n_splits_ for found in results["estimator"]] == [3, 3]
        again = model.fit(X, y, groups=groups).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "kind", ["table", pytest.param("list", marks=pytest.mark.slow)]
)
def test_cohorts_are_searched(cohort, kind) -> None:
    X = cohort.data if kind == "table" else list(cohort.data["fmri"])
    model = BrainSymphonyClassifier(**TINY)
    found = OptunaSearchCV(model, RATES, n_trials=2, cv=2, random_state=0)
    found.fit(X, cohort.target)
    assert found.predict_proba(X).shape == (12, 2)
    assert found.classes_.tolist() == found.best_estimator_.classes_.tolist()


def test_a_pipeline_is_searched(cohort) -> None:
    model = make_pipeline(
        BrainSymphonyEmbedder(**TINY), StandardScaler(), LogisticRegression()
    )
    space = {
        "brainsymphonyembedder__lr": RATES["lr"],
        "logisticregression__C": SPACE["C"],
    }
    found = OptunaSearchCV(model, space, n_trials=2, cv=2, random_state=0)
    found.fit(cohort.data, cohort.target)
    assert set(found.best_params_) == set(space)
    assert found.predict(cohort.data).shape == (12,)


class Picky(ClassifierMixin, BaseEstimator):
    """Refuses a `level` above 5."""

    def __init__(self, level=0):
        self.level = level

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if self.level > 5:
            raise ValueError("the level is too high")
        return self

    def predict(self, X):
        return np.resize(self.classes_, len(X))


@pytest.mark.filterwarnings("ignore:.*fits failed")
def test_candidates_that_cannot_be_fitted_are_left_out(rows) -> None:
    space = {"level": IntDistribution(0, 10)}
    found = OptunaSearchCV(Picky(), space, n_trials=10, cv=2, random_state=0)
    levels = [params["level"] for params in found.fit(*rows).cv_results_["params"]]
    assert 0 < len(levels) < 10
    assert max(levels) <= 5
    with pytest.raises(ValueError, match="the level is too high"):
        found.set_params(error_score="raise").fit(*rows)
    always = {"level": IntDistribution(8, 10)}
    hopeless = OptunaSearchCV(Picky(level=9), always, n_trials=2, cv=2)
    with pytest.raises(ValueError, match="All the 2 fits failed"):
        hopeless.fit(*rows)


def test_several_scores_need_one_to_search_by(rows) -> None:
    scoring = ["accuracy", "neg_log_loss"]
    found = search(scoring=scoring, refit="neg_log_loss").fit(*rows)
    losses = found.cv_results_["mean_test_neg_log_loss"]
    assert found.best_score_ == losses.max()
    assert "mean_test_accuracy" in found.cv_results_
    with pytest.raises(TypeError, match=r"one score to search by\. Got several and"):
        search(scoring=scoring, refit=False).fit(*rows)


def test_time_is_limited(rows) -> None:
    found = search(timeout=0, n_trials=99).fit(*rows)
    assert len(found.cv_results_["params"]) == 1


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"n_trials": 0}, "n_trials"), ({"timeout": -1.0}, "timeout")],
)
def test_wrong_parameters_raise(rows, wrong, name) -> None:
    with pytest.raises(ValueError, match=f"The '{name}' parameter of OptunaSearchCV"):
        search(**wrong).fit(*rows)


def test_search_names_what_to_install(rows, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[tune\]"'):
        search().fit(*rows)


class StopAfter:
    """Asks for an end after some candidates."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.names: list[str] = []

    max_propagation_depth = None

    def setup(self, estimator, context) -> None: ...

    def teardown(self, estimator, context) -> None: ...

    def on_fit_task_begin(self, estimator, context) -> None: ...

    def on_fit_task_end(self, estimator, context) -> bool:
        self.names.append(context.task_name)
        is_candidate = context.task_name == "candidate"
        return is_candidate and self.names.count("candidate") == self.n


def test_callbacks_see_candidates_and_can_end_the_search(cohort) -> None:
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 2})
    stop = StopAfter(2)
    found = OptunaSearchCV(model, RATES, n_trials=5, cv=KFold(2), random_state=0)
    found.set_callbacks(stop).fit(cohort.data, cohort.target)
    assert len(found.cv_results_["params"]) == 2
    assert stop.names.count("epoch") == 2 * (2 * 2 + 1)  # and those of the refit


def test_scores_of_epochs_are_watched_within_the_search(cohort) -> None:
    monitor = ScoringMonitor(scoring="neg_log_loss")
    model = BrainSymphonyClassifier(**TINY).set_callbacks(monitor)
    found = OptunaSearchCV(model, RATES, n_trials=1, cv=KFold(2), random_state=0)
    found.fit(cohort.data, cohort.target)
    log = monitor.get_logs().data_as_pandas
    assert isinstance(log, pd.DataFrame)
    assert (log["task_name"] == "epoch").sum() == 3
