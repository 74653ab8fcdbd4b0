"""Linear models on features: tuned inside the training rows, and nowhere else."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import parametrize_with_checks

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyEmbedder,
    BrainSymphonyWarning,
    ConnectivityFeatures,
    FeatureClassifier,
    FeatureRegressor,
)
from bsym_sklearn.data import load_cohort, make_cohort
from bsym_sklearn.estimators.strength import (
    ALPHA_GRIDS,
    C_GRID,
    code_error,
    inner_splits,
    unit_rows,
)

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
EXPECTED = {
    WEIGHTS: "a weight of 2 is one scan that counts twice, not two scans: inner folds "
    "and standard deviations count rows"
}
MODELS = ("logistic", "ridge", "kernel_ridge")
each_model = pytest.mark.parametrize("model", MODELS)


@parametrize_with_checks(
    [
        FeatureClassifier(),
        FeatureClassifier(model="ridge"),
        FeatureRegressor(),
        FeatureRegressor(model="kernel_ridge"),
    ],
    expected_failed_checks=lambda _: EXPECTED,
    xfail_strict=True,
)
def test_estimator_passes_sklearns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@each_model
@pytest.mark.parametrize(
    "features", ["correlation", "partial", "tangent", "amplitude", "sc", "tangent+sc"]
)
def test_every_feature_and_model_classifies(
    features: str, model: str, cohort: Bunch
) -> None:
    fitted = FeatureClassifier(features, model=model).fit(cohort.data, cohort.target)
    probabilities = fitted.predict_proba(cohort.data)
    assert probabilities.shape == (12, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_array_equal(
        fitted.predict(cohort.data), fitted.classes_[probabilities.argmax(1)]
    )
    np.testing.assert_allclose(  # one scan alone
        fitted.predict_proba(cohort.data[:1]), probabilities[:1], rtol=1e-6
    )


@pytest.mark.parametrize("model", ["ridge", "kernel_ridge"])
def test_numbers_are_predicted_for_one_scan_too(model: str, cohort: Bunch) -> None:
    X = cohort.data
    fitted = FeatureRegressor("tangent", model=model).fit(X, X["age"])
    together = fitted.predict(X)
    assert together.shape == (12,)
    np.testing.assert_allclose(fitted.predict(X[:1]), together[:1])


def test_several_classes_are_told_apart(rng: np.random.Generator) -> None:
    X, y = make_classes(rng, 3)
    for model in MODELS:
        fitted = FeatureClassifier(model=model).fit(X, y)
        assert fitted.predict_proba(X).shape == (36, 3)
        assert fitted.score(X, y) > 0.9


def make_classes(
    rng: np.random.Generator, n_classes: int, n_each: int = 12
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return scans whose class says which two regions go together."""
    y = np.repeat(np.arange(n_classes), n_each)
    X = []
    for c in y:
        x = rng.normal(size=(60, n_classes + 1))
        x[:, c] += 2 * x[:, n_classes]
        X.append(x)
    return X, y


def test_the_strength_is_chosen_with_participants_together(
    rng: np.random.Generator,
) -> None:
    """Each participant has two nearly equal scans, and a label that means nothing.

    Folds that part the two scans can tell a participant's label by heart and prefer a
    model that does; folds that keep them together see that there is nothing to learn.
    """
    X, y, people = make_twins(rng)
    together = FeatureClassifier().fit(X, y)
    parted = FeatureClassifier(group_column="none").fit(X, y)
    assert together.best_params_["C"] == C_GRID[0]
    assert parted.best_params_["C"] > C_GRID[0]
    assert together.best_params_["C"] == together.pipeline_["linear"].C
    for train, test in inner_splits(people, y, 3) or []:
        assert not set(people[train]) & set(people[test])
        assert set(y[train]) == {0, 1}


def make_series(rng: np.random.Generator, n_scans: int) -> np.ndarray:
    """Return scans whose regions go together in another way each."""
    mixing = rng.normal(size=(n_scans, 6, 6))
    return rng.normal(size=(n_scans, 40, 6)) @ mixing


def make_twins(
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    first = make_series(rng, 20)
    second = first + 0.1 * rng.normal(size=first.shape)
    people = np.array([f"sub-{i % 20:02d}" for i in range(40)])
    X = pd.DataFrame({"fmri": [*first, *second], "participant_id": people})
    return X, np.tile(np.repeat([0, 1], 10), 2), people


def test_everything_is_learned_from_the_rows_of_fit(cohort: Bunch) -> None:
    X, y = cohort.data, cohort.target
    expected = FeatureClassifier("tangent").fit(X[:8], y[:8]).predict_proba(X[8:])
    noisy = X.copy()
    noisy["fmri"] = [*X["fmri"][:8], *(x[::-1] for x in X["fmri"][8:])]
    again = FeatureClassifier("tangent").fit(noisy[:8], y[:8])
    np.testing.assert_array_equal(again.predict_proba(X[8:]), expected)


def test_too_few_groups_are_said_and_take_the_middle(cohort: Bunch) -> None:
    X, y = cohort.data.assign(participant_id="the only one"), cohort.target
    message = r"at least 2 groups .* to choose C inside `fit`.*C=1 is taken"
    with pytest.warns(BrainSymphonyWarning, match=message):
        fitted = FeatureClassifier().fit(X, y)
    assert fitted.best_params_ == {"C": 1.0}
    with pytest.warns(BrainSymphonyWarning, match="choose alpha"):
        ridge = FeatureClassifier(model="ridge").fit(X, y)
    assert np.isfinite(ridge.predict_proba(X)).all()
    with pytest.warns(BrainSymphonyWarning, match="choose alpha"):
        assert FeatureRegressor().fit(X, X["age"]).best_params_ == {"alpha": 100}


def test_enough_groups_are_not_warned_of(cohort: Bunch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = FeatureClassifier(model="ridge").fit(cohort.data, cohort.target)
    assert fitted.best_params_["alpha"] in ALPHA_GRIDS["ridge"]


def test_inner_folds_need_every_class_in_training() -> None:
    y = np.array([0, 0, 1, 1])
    assert inner_splits(np.array(list("aabc")), y, 3) is None
    assert inner_splits(np.array(list("abcd")), None, 3) is not None
    assert inner_splits(np.array(list("aaaa")), None, 3) is None


def test_the_temperature_changes_no_decision(rng: np.random.Generator) -> None:
    X, y = make_classes(rng, 3)
    fitted = FeatureClassifier(model="ridge").fit(X, y)
    rotated = fitted.pipeline_[:-1].transform(X)
    plain = RidgeClassifier(**fitted.best_params_).fit(rotated, y)
    np.testing.assert_array_equal(fitted.predict(X), plain.predict(rotated))


@each_model
@pytest.mark.parametrize(
    "labels",
    [np.array([1, 2, 3]), np.array([-7, 0, 40]), np.array(["a", "b", "c"])],
    ids=["from_1", "with_gaps", "text"],
)
def test_probabilities_do_not_depend_on_what_classes_are_called(
    model: str, labels: np.ndarray, rng: np.random.Generator
) -> None:
    X, codes = make_classes(rng, 3, n_each=6)
    X = [x + rng.normal(scale=4, size=x.shape) for x in X]  # not told apart for sure
    plain = FeatureClassifier(model=model).fit(X, codes)
    named = FeatureClassifier(model=model).fit(X, labels[codes])
    np.testing.assert_array_equal(named.classes_, labels)
    np.testing.assert_allclose(named.predict_proba(X), plain.predict_proba(X))
    np.testing.assert_array_equal(named.predict(X), labels[plain.predict(X)])


def test_kernel_ridge_is_that_with_the_correlation_kernel(
    rng: np.random.Generator,
) -> None:
    X, y = make_series(rng, 20), rng.normal(size=20)
    fitted = FeatureRegressor(model="kernel_ridge").fit(X[:15], y[:15])
    features = ConnectivityFeatures().fit_transform(X)
    kernel = np.corrcoef(features)
    # an intercept, as scikit-learn's KernelRidge has none: centred in feature space
    mean = kernel[:, :15].mean(1, keepdims=True)
    centred = kernel - mean - mean.T + kernel[:15, :15].mean()
    model = KernelRidge(kernel="precomputed", **fitted.best_params_)
    model.fit(centred[:15, :15], y[:15] - y[:15].mean())
    expected = model.predict(centred[15:, :15]) + y[:15].mean()
    np.testing.assert_allclose(fitted.predict(X[15:]), expected, rtol=1e-6)


def test_rows_that_do_not_vary_become_zero() -> None:
    rows = unit_rows(np.array([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_allclose(rows, [[0, 0], [-(0.5**0.5), 0.5**0.5]])


def test_code_error_is_zero_for_the_truth() -> None:
    X = np.array([[-1.0], [1.0]] * 6)
    y = np.array(["a", "b"] * 6)
    model = RidgeClassifier(alpha=1e-9).fit(X, y)
    assert code_error(model, X, y) == pytest.approx(0)
    assert code_error(model, X, y[::-1]) == pytest.approx(-4)


def test_rows_without_a_modality_are_predicted(cohort: Bunch) -> None:
    X = cohort.data.copy()
    X["sc"] = [None if i == 3 else x for i, x in enumerate(X["sc"])]
    fitted = FeatureClassifier("correlation+sc").fit(X, cohort.target)
    assert np.isfinite(fitted.predict_proba(X)).all()
    assert np.isfinite(fitted.predict_proba(X.iloc[[3]])).all()


def test_any_transformer_of_cohorts_makes_the_features(cohort: Bunch) -> None:
    embedder = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=0, random_state=0)
    model = FeatureClassifier(embedder)
    fitted = model.fit(cohort.data, cohort.target)
    assert fitted.pipeline_["features"].n_regions_ == 6
    assert not hasattr(embedder, "net_")  # a clone was fitted
    assert "features__random_state" in model.get_params()


def test_weights_count_and_classes_can_be_balanced(
    rng: np.random.Generator, recwarn: pytest.WarningsRecorder
) -> None:
    X, y = make_classes(rng, 2)
    X, y = X[:16], y[:16]  # 12 and 4
    plain = FeatureClassifier().fit(X, y)
    balanced = FeatureClassifier(class_weight="balanced").fit(X, y)
    weighted = FeatureClassifier().fit(X, y, sample_weight=np.where(y == 1, 2, 2 / 3))
    assert not np.allclose(plain.predict_proba(X), balanced.predict_proba(X))
    np.testing.assert_allclose(balanced.predict_proba(X), weighted.predict_proba(X))
    assert not recwarn.list
    with config_context(enable_metadata_routing=True):
        routed = FeatureClassifier(class_weight="balanced").fit(X, y)
    np.testing.assert_array_equal(routed.predict_proba(X), balanced.predict_proba(X))


def test_models_work_in_cross_validation_and_grid_search() -> None:
    cohort = make_cohort(20, 6, 40)
    scores = cross_val_score(FeatureClassifier(), cohort.data, cohort.target, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(
        FeatureRegressor(), {"features": ["correlation", "amplitude"]}, cv=2
    )
    search.fit(cohort.data, cohort.data["age"])
    assert search.best_params_["features"] in ("correlation", "amplitude")


def test_models_are_cloned_and_pickled(cohort: Bunch) -> None:
    fitted = FeatureClassifier("tangent").fit(cohort.data, cohort.target)
    copy = pickle.loads(pickle.dumps(fitted))  # noqa: S301  (our own bytes)
    np.testing.assert_array_equal(
        copy.predict_proba(cohort.data), fitted.predict_proba(cohort.data)
    )
    assert not hasattr(clone(fitted), "pipeline_")


def test_what_cannot_be_used_is_named(cohort: Bunch) -> None:
    X, y = cohort.data, cohort.target
    with pytest.raises(ValueError, match=r"`features` must be one of .* Got 'pli'"):
        FeatureClassifier("correlation+pli").fit(X, y)
    with pytest.raises(ValueError, match=r"`model` must be one of .* Got 'logistic'"):
        FeatureRegressor(model="logistic").fit(X, y)
    with pytest.raises(ValueError, match="n_inner_folds == 1"):
        FeatureClassifier(n_inner_folds=1).fit(X, y)
    with pytest.raises(BrainDataError, match=r"at least 2 classes in y\. Got 1"):
        FeatureClassifier().fit(X, np.zeros(12))
    with pytest.raises(BrainDataError, match="12 scans and 11 targets"):
        FeatureClassifier().fit(X, y[:11])
    with pytest.raises(BrainDataError, match=r"target for every scan.*scan 0"):
        FeatureClassifier().fit(X, np.array([None, *"abababababa"], dtype=object))
    X = X.assign(participant_id=[None, *X["participant_id"][1:]])
    with pytest.raises(BrainDataError, match="'participant_id' in every row"):
        FeatureClassifier().fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "features", "lowest"),
    [
        ("abide_dev", "dx", "correlation", 0.65),
        ("abide_dev", "dx", "tangent", 0.65),
        ("multitask_dev", "state", "correlation", 0.95),
        ("multitask_dev", "state", "tangent", 0.9),
    ],
)
def test_real_scans_are_classified_as_well_as_is_known(
    shared: Path, name: str, target: str, features: str, lowest: float
) -> None:
    """One fold each; the floors of five are .70-.72 (AUC) and .85-.93 (accuracy)."""
    X = load_cohort(shared / "data" / name)
    y = X[target].to_numpy()
    folds: Any = StratifiedKFold(5, shuffle=True, random_state=0)
    groups = None
    if name == "multitask_dev":
        groups = X["participant_id"]
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    train, test = next(folds.split(y, y, groups))
    model = FeatureClassifier(features).fit(X.iloc[train], y[train])
    probabilities = model.predict_proba(X.iloc[test])
    order = {"average": "macro", "multi_class": "ovr"}
    scores = probabilities[:, 1] if len(model.classes_) == 2 else probabilities
    assert roc_auc_score(y[test], scores, **order) > lowest


def test_who_counts_for_nothing_is_no_inner_fold(cohort: Bunch) -> None:
    X = cohort.data.assign(site=np.arange(len(cohort.data)) % 4)
    weights = (X["site"] > 0).astype(float).to_numpy()
    for model in MODELS:
        fitted = FeatureClassifier(model=model, group_column="site")
        alone = clone(fitted).fit(X[weights > 0], cohort.target[weights > 0])
        fitted.fit(X, cohort.target, sample_weight=weights)
        assert fitted.best_params_ == alone.best_params_


def test_kernels_of_frames_are_those_of_arrays(cohort: Bunch) -> None:
    expected = FeatureClassifier(model="kernel_ridge").fit(cohort.data, cohort.target)
    with config_context(transform_output="pandas"):
        fitted = clone(expected).fit(cohort.data, cohort.target)
        said = fitted.predict_proba(cohort.data)
    np.testing.assert_allclose(said, expected.predict_proba(cohort.data), rtol=1e-5)
