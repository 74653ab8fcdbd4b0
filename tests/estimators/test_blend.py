"""Late fusion: weights and confidence come from scans that members have not seen."""

from __future__ import annotations

import pickle
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.model_selection import cross_val_score
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.helper import SliceDict

from bsym_sklearn import (
    BlendClassifier,
    BlendRegressor,
    BrainDataError,
    BrainSymphonyWarning,
    FeatureClassifier,
    FeatureRegressor,
    NetworkClassifier,
)
from bsym_sklearn.data import check_cohort
from bsym_sklearn.estimators.blend import _weights

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
N = 60
FITS: list[list[int]] = []  # rows that each fit of `Noted` has seen


def make_frame(seed: int = 0, n_each: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Return scans with columns that say the class well, badly and not at all."""
    rng = np.random.default_rng(seed)
    y = np.arange(N) % 2
    X = pd.DataFrame(
        {
            "participant_id": [f"sub-{i // n_each}" for i in range(N)],
            "row": np.arange(N),
            "good": y + 0.4 * rng.normal(size=N),
            "fair": y + 0.9 * rng.normal(size=N),
            "useless": rng.normal(size=N),
        }
    )
    return X, y


class Says(ClassifierMixin, BaseEstimator):
    """Read the class from one column, with a confidence that is given."""

    def __init__(self, column: str = "good", slope: float = 4.0) -> None:
        self.column = column
        self.slope = slope

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> Self:
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        second = 1 / (1 + np.exp(-self.slope * (X[self.column].to_numpy() - 0.5)))
        made = np.zeros((len(X), len(self.classes_)))
        made[:, 0], made[:, -1] = 1 - second, second
        return made / made.sum(1, keepdims=True)


class Noted(Says):
    """Write down the rows of every fit."""

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> Self:
        FITS.append(X["row"].tolist())
        return super().fit(X, y)


class Reads(RegressorMixin, BaseEstimator):
    """Predict one column."""

    def __init__(self, column: str = "good") -> None:
        self.column = column

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> Self:
        self.is_fitted_ = True
        return self

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        return X[self.column].to_numpy()


def blend(*columns: str, **options: Any) -> BlendClassifier:
    return BlendClassifier([(name, Says(name)) for name in columns], **options)


# ------------------------------------------------------------- weights


def test_a_member_that_knows_nothing_gets_little_weight() -> None:
    X, y = make_frame()
    fitted = blend("good", "useless").fit(X, y)
    assert fitted.weights_.sum() == pytest.approx(1)
    assert fitted.weights_[0] > 0.85
    order = blend("fair", "useless", "good").fit(X, y).weights_
    assert order[2] > order[0] > order[1] > 0
    numbers = BlendRegressor([(c, Reads(c)) for c in ("good", "useless")])
    weights = numbers.fit(X, y).weights_
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.85


def test_members_that_are_alike_weigh_the_same() -> None:
    X, y = make_frame()
    twins = [("one", Says()), ("two", Says())]
    np.testing.assert_allclose(BlendClassifier(twins).fit(X, y).weights_, 0.5)
    twins = [("one", Reads()), ("two", Reads())]
    np.testing.assert_allclose(BlendRegressor(twins).fit(X, y).weights_, 0.5)


def test_a_member_that_is_too_sure_is_cooled() -> None:
    X, y = make_frame()
    members = [("sure", Says("fair", 10.0)), ("shy", Says("fair", 0.2))]
    fitted = BlendClassifier(members).fit(X, y)
    sure, shy = fitted.temperatures_
    assert sure > 1 > shy
    calibrated = fitted._calibrated(
        np.stack([member.predict_proba(X) for member in fitted.members_])
    )
    np.testing.assert_allclose(calibrated[0], calibrated[1], atol=0.05)


def test_probabilities_are_the_weighted_average_of_calibrated_ones() -> None:
    X, y = make_frame()
    fitted = blend("good", "fair").fit(X, y)
    expected = 0
    for member, weight, temperature in zip(
        fitted.members_, fitted.weights_, fitted.temperatures_, strict=True
    ):
        cooled = member.predict_proba(X) ** (1 / temperature)
        expected = expected + weight * cooled / cooled.sum(1, keepdims=True)
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities, expected)
    np.testing.assert_array_equal(fitted.predict(X), probabilities.argmax(1))
    numbers = BlendRegressor([(c, Reads(c)) for c in ("good", "fair")]).fit(X, y)
    average = X[["good", "fair"]].to_numpy() @ numbers.weights_
    np.testing.assert_allclose(numbers.predict(X), average)


def test_networks_and_features_are_blended(cohort: Bunch) -> None:
    X, y = cohort.data, cohort.target
    members = [(kind, FeatureClassifier(kind)) for kind in ("correlation", "sc")]
    network = NetworkClassifier("mean_mlp", max_epochs=2, random_state=0)
    fitted = BlendClassifier([*members, ("network", network)]).fit(X, y)
    assert fitted.weights_.shape == fitted.temperatures_.shape == (3,)
    assert fitted.predict_proba(X).shape == (12, 2)
    assert fitted.n_features_in_ == 6
    one = fitted.predict_proba(X[:1])
    np.testing.assert_allclose(one, fitted.predict_proba(X)[:1], rtol=1e-4)
    regressor = BlendRegressor(
        [(kind, FeatureRegressor(kind)) for kind in ("tangent", "sc")]
    )
    assert regressor.fit(X, X["age"]).predict(X[:1]).shape == (1,)
    assert cross_val_score(fitted, X, y, cv=2).shape == (2,)


def test_scans_come_in_any_form(cohort: Bunch) -> None:
    X, y = cohort.data, cohort.target
    model = BlendClassifier([(f, FeatureClassifier(f)) for f in ("tangent", "sc")])
    expected = model.fit(X, y).predict_proba(X)
    for form in (
        check_cohort(X),
        SliceDict(**{name: X[name].to_numpy() for name in X}),
    ):
        np.testing.assert_allclose(clone(model).fit(form, y).predict_proba(X), expected)
    series = list(X["fmri"])
    model = BlendClassifier([("tangent", FeatureClassifier("tangent"))])
    fitted = [clone(model).fit(x, y) for x in (series, np.stack(series))]
    np.testing.assert_allclose(
        fitted[0].predict_proba(series), fitted[1].predict_proba(series)
    )


# ------------------------------------------------------------- inner folds


def test_a_participants_scans_stay_together() -> None:
    X, y = make_frame(n_each=4)
    people = X["participant_id"].to_numpy()
    FITS.clear()
    BlendClassifier([("a", Noted())], n_inner_folds=4).fit(X, y)
    assert len(FITS) == 5
    assert FITS[0] == list(range(N))
    for rows in FITS[1:]:
        others = np.setdiff1d(np.arange(N), rows)
        assert len(others) > 0
        assert not set(people[rows]) & set(people[others])
        assert set(y[rows]) == {0, 1}


def test_too_few_groups_weigh_all_the_same() -> None:
    X, y = make_frame()
    X["family"] = "one"
    message = (
        r"BlendClassifier needs at least 2 groups of scans \(of each class\) to weigh "
        r"its members. Got fewer in 'family'. All weigh the same."
    )
    with pytest.warns(BrainSymphonyWarning, match=message):
        fitted = blend("good", "useless", group_column="family").fit(X, y)
    assert fitted.weights_.tolist() == [0.5, 0.5]
    assert fitted.temperatures_.tolist() == [1, 1]
    members = [("a", Reads()), ("b", Reads("fair"))]
    with pytest.warns(BrainSymphonyWarning, match="BlendRegressor needs at least 2"):
        numbers = BlendRegressor(members, group_column="family").fit(X, y)
    assert numbers.weights_.tolist() == [0.5, 0.5]


def test_a_class_of_one_participant_weighs_all_the_same() -> None:
    """It could not be both learned and judged."""
    X, y = make_frame()
    y[:3] = 2
    X.loc[:2, "participant_id"] = "sub-0"
    with pytest.warns(BrainSymphonyWarning, match="All weigh the same"):
        fitted = blend("good", "fair").fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(fitted.predict_proba(X).sum(1), 1)


def test_a_class_that_a_member_has_not_seen_has_no_probability() -> None:
    X, y = make_frame()
    fitted = blend("good").fit(X, np.where(y, "c", "a"))
    fitted.classes_ = np.array(["a", "b", "c"])
    aligned = fitted._probabilities(fitted.members_[0], X)
    assert aligned.shape == (N, 3)
    assert not aligned[:, 1].any()
    np.testing.assert_array_equal(
        aligned[:, [0, 2]], fitted.members_[0].predict_proba(X)
    )


# ------------------------------------------------------------- as an estimator


def test_parameters_of_members_are_parameters_of_the_blend() -> None:
    model = blend("good", "fair")
    assert model.get_params()["good__slope"] == 4
    model.set_params(good__slope=2.0, fair=Says("useless"), n_inner_folds=2)
    params = clone(model).get_params()
    assert (params["good__slope"], params["fair__column"]) == (2.0, "useless")
    assert params["n_inner_folds"] == 2
    assert "good__slope" not in model.get_params(deep=False)


def test_members_that_are_given_are_left_as_they_were() -> None:
    X, y = make_frame()
    model = blend("good", "fair").fit(X, y)
    assert all(not hasattr(member, "classes_") for _, member in model.members)
    again = clone(model)
    assert not hasattr(again, "weights_")
    np.testing.assert_array_equal(
        again.fit(X, y).predict_proba(X), model.predict_proba(X)
    )


def test_pickled_blends_predict_the_same() -> None:
    X, y = make_frame()
    model = blend("good", "fair").fit(X, y)
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))


@parametrize_with_checks(
    [
        BlendClassifier([("a", FeatureClassifier())]),
        BlendRegressor([("a", FeatureRegressor())]),
    ],
    expected_failed_checks=lambda _: {},
)
def test_estimator_passes_sklearns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


# ------------------------------------------------------------- what goes wrong


def test_what_cannot_be_blended_is_named() -> None:
    X, y = make_frame()
    with pytest.raises(BrainDataError, match=r"at least 2 classes in y\. Got 1 class"):
        blend("good").fit(X, np.zeros(N))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        blend("good").fit(X, y + 0.25)
    with pytest.raises(BrainDataError, match="inconsistent numbers: 60 scans and 59"):
        blend("good").fit(X, y[:-1])
    with pytest.raises(ValueError, match="n_inner_folds == 1, must be >= 2"):
        blend("good", n_inner_folds=1).fit(X, y)
    with pytest.raises(ValueError, match="Names provided are not unique"):
        blend("good", "good").fit(X, y)
    X.loc[3, "participant_id"] = None
    with pytest.raises(BrainDataError, match="BlendClassifier needs 'participant_id'"):
        blend("good").fit(X, y)


@pytest.mark.parametrize("factor", [1e2, 1e3, 3e3, 3e4, 1e6, 1e9])
def test_a_member_that_has_diverged_gets_no_weight(factor: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=N)
    said = np.stack([y + 0.5 * rng.normal(size=N), factor * rng.normal(size=N)])

    def loss(w: np.ndarray) -> float:
        return float(((w @ said - y) ** 2).mean())

    weights = _weights(loss, 2, N)
    assert loss(weights) < 0.5
    assert weights[1] < 0.02
