"""Each tool of scikit-learn on each form of X that holds scans."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import (
    ColumnTransformer,
    TransformedTargetRegressor,
    make_column_transformer,
)
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    train_test_split,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import resample, shuffle
from skorch.helper import SliceDict

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import make_cohort

N, R, T = 16, 4, 12
DIM = 4
TINY = {
    "dim": DIM,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 1,
    "max_epochs": 1,
    "lr": 1e-2,
    "validation_fraction": 0.0,
    "random_state": 0,
}
GROUPS = np.repeat(np.arange(N // 2), 2)


def classifier(**params: Any) -> BrainSymphonyClassifier:
    return BrainSymphonyClassifier(**TINY | params)


def embedder(**params: Any) -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(**TINY | params)


def regressor(**params: Any) -> BrainSymphonyRegressor:
    return BrainSymphonyRegressor(**TINY | params)


# ------------------------------------------------------------------ formats


def frame_with_missing_cells() -> pd.DataFrame:
    cohort = make_cohort(N, R, T, unequal=True, missing_sc=0.2, missing_fmri=0.2)
    return cohort.data.rename(index=lambda i: f"row{i}")


def object_array(cells: list[np.ndarray]) -> np.ndarray:
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def stacked(column: str) -> np.ndarray:
    return np.stack(make_cohort(N, R, T).data[column].tolist())


FORMATS: dict[str, Callable[[], Any]] = {
    "frame": frame_with_missing_cells,
    "list": lambda: make_cohort(N, R, T, unequal=True).data["fmri"].tolist(),
    "object array": lambda: object_array(
        make_cohort(N, R, T, unequal=True).data["fmri"].tolist()
    ),
    "3-D array": lambda: stacked("fmri"),
    "SliceDict": lambda: SliceDict(fmri=stacked("fmri"), sc=stacked("sc")),
}


def target() -> np.ndarray:
    return np.array(["control", "patient"])[np.arange(N) % 2]


# ------------------------------------------------------------------ tools

Tool = Callable[[Any, np.ndarray], None]
TOOLS: dict[str, Tool] = {}


def tool(function: Tool) -> Tool:
    """Put a tool into the table; it asserts on what the tool returns."""
    TOOLS[function.__name__] = function
    return function


def assert_scores(scores: np.ndarray, shape: tuple[int, ...] = (2,)) -> None:
    assert np.shape(scores) == shape
    assert ((scores >= 0) & (scores <= 1)).all()


def assert_labels(labels: np.ndarray) -> None:
    assert labels.shape == (N,)
    assert set(labels) <= {"control", "patient"}


@tool
def fit_predict(X: Any, y: np.ndarray) -> None:
    model = classifier().fit(X, y)
    assert_labels(model.predict(X))
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    assert model.score(X, y) == np.mean(model.predict(X) == y)


@tool
def split_train_test(X: Any, y: np.ndarray) -> None:
    parts = train_test_split(X, y, stratify=y, test_size=0.25, random_state=0)
    assert_scores(classifier().fit(parts[0], parts[2]).predict_proba(parts[1]), (4, 2))


@tool
def shuffle_rows(X: Any, y: np.ndarray) -> None:
    model = classifier(dtype="float64").fit(X, y)
    order = shuffle(np.arange(N), random_state=0)
    np.testing.assert_allclose(
        model.predict_proba(shuffle(X, random_state=0)),
        model.predict_proba(X)[order],
        atol=1e-10,
    )


@tool
def resample_rows(X: Any, y: np.ndarray) -> None:
    some, labels = resample(X, y, n_samples=12, stratify=y, random_state=0)
    assert classifier().fit(some, labels).predict(some).shape == (12,)


@tool
def cross_val_scores(X: Any, y: np.ndarray) -> None:
    assert_scores(cross_val_score(classifier(), X, y, cv=2, error_score="raise"))


@tool
def cross_val_scores_in_processes(X: Any, y: np.ndarray) -> None:
    options = {"cv": 2, "scoring": "neg_log_loss", "error_score": "raise"}
    parallel = cross_val_score(classifier(), X, y, n_jobs=2, **options)
    np.testing.assert_array_equal(
        parallel, cross_val_score(classifier(), X, y, **options)
    )


@tool
def cross_validate_returning_estimators(X: Any, y: np.ndarray) -> None:
    result = cross_validate(
        classifier(), X, y, cv=2, return_estimator=True, return_indices=True
    )
    assert_scores(result["test_score"])
    assert sorted(np.concatenate(result["indices"]["test"])) == list(range(N))
    assert all(e.n_regions_ == R for e in result["estimator"])


@tool
def cross_validate_by_group(X: Any, y: np.ndarray) -> None:
    folds = GroupKFold(2)
    result = cross_validate(
        classifier(), X, y, groups=GROUPS, cv=folds, return_indices=True
    )
    assert_scores(result["test_score"])
    for name in ("train", "test"):
        assert len(np.unique(GROUPS[result["indices"][name][0]])) == N // 4


@tool
def cross_val_scores_with_weights(X: Any, y: np.ndarray) -> None:
    scores = cross_val_score(
        classifier(), X, y, cv=2, params={"sample_weight": np.ones(N)}
    )
    np.testing.assert_array_equal(scores, cross_val_score(classifier(), X, y, cv=2))


@tool
def cross_val_probabilities(X: Any, y: np.ndarray) -> None:
    proba = cross_val_predict(classifier(), X, y, cv=2, method="predict_proba")
    assert proba.shape == (N, 2)
    np.testing.assert_allclose(proba.sum(1), 1)


@tool
def pipeline_of_embedder_and_linear_model(X: Any, y: np.ndarray) -> None:
    model = make_pipeline(embedder(), StandardScaler(), LogisticRegression())
    assert_scores(cross_val_score(model, X, y, cv=2, error_score="raise"))
    assert model.fit(X, y)[-1].coef_.shape == (1, R * DIM)


@tool
def pipeline_with_memory(X: Any, y: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cached, plain = (
            GridSearchCV(
                make_pipeline(embedder(), LogisticRegression(), memory=memory),
                {"logisticregression__C": [0.1, 10]},
                cv=2,
                scoring="neg_log_loss",
                error_score="raise",
            ).fit(X, y)
            for memory in (folder, None)
        )
    np.testing.assert_array_equal(
        cached.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )


@tool
def feature_union(X: Any, y: np.ndarray) -> None:
    union = FeatureUnion([("regions", embedder()), ("mean", embedder(pooling="mean"))])
    features = union.fit_transform(X)
    assert features.shape == (N, R * DIM + DIM)
    regions = features[:, : R * DIM].reshape(N, R, DIM)
    np.testing.assert_allclose(regions.mean(1), features[:, R * DIM :], atol=1e-5)
    assert union.get_feature_names_out()[-1] == f"mean__brainsymphonyembedder{DIM - 1}"


@tool
def column_transformer_by_name(X: Any, y: np.ndarray) -> None:
    model = make_column_transformer((embedder(), ["fmri", "sc"]))
    assert model.fit_transform(X).shape == (N, R * DIM)


@tool
def grid_search(X: Any, y: np.ndarray) -> None:
    search = GridSearchCV(
        classifier(), {"lr": [1e-3, 1e-2]}, cv=2, error_score="raise"
    ).fit(X, y)
    assert search.best_params_["lr"] in (1e-3, 1e-2)
    assert_labels(search.predict(X))


@tool
def grid_search_in_processes(X: Any, y: np.ndarray) -> None:
    one, two = (
        GridSearchCV(
            classifier(),
            {"lr": [1e-3, 1e-2]},
            cv=2,
            n_jobs=n_jobs,
            scoring="neg_log_loss",
            error_score="raise",
        ).fit(X, y)
        for n_jobs in (None, 2)
    )
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(one.cv_results_[name], two.cv_results_[name])


@tool
def grid_search_of_pretraining(X: Any, y: np.ndarray) -> None:
    search = GridSearchCV(
        embedder(), {"mask_ratio": [0.2, 0.5]}, cv=2, error_score="raise"
    ).fit(X)
    assert (search.cv_results_["mean_test_score"] < 1).all()
    assert search.transform(X).shape == (N, R * DIM)


@tool
def randomized_search(X: Any, y: np.ndarray) -> None:
    search = RandomizedSearchCV(
        classifier(),
        {"dropout": [0.0, 0.1, 0.2]},
        n_iter=2,
        cv=2,
        random_state=0,
        error_score="raise",
    ).fit(X, y)
    assert_scores(search.cv_results_["mean_test_score"])


@tool
def halving_search_by_scans(X: Any, y: np.ndarray) -> None:
    search = HalvingGridSearchCV(
        classifier(),
        {"lr": [1e-3, 1e-2]},
        cv=2,
        factor=2,
        min_resources=8,
        random_state=0,
        error_score="raise",
    ).fit(X, y)
    assert search.n_resources_ == [8, 16]


@tool
def halving_search_by_epochs(X: Any, y: np.ndarray) -> None:
    search = HalvingGridSearchCV(
        classifier(),
        {"lr": [1e-3, 1e-2]},
        cv=2,
        factor=2,
        resource="max_epochs",
        max_resources=2,
        random_state=0,
        error_score="raise",
    ).fit(X, y)
    assert search.best_estimator_.n_iter_ == 2


@tool
def learning_curves(X: Any, y: np.ndarray) -> None:
    sizes, train, test = learning_curve(
        classifier(),
        X,
        y,
        cv=2,
        train_sizes=[4, 8],
        shuffle=True,
        random_state=0,
        error_score="raise",
    )
    assert sizes.tolist() == [4, 8]
    assert_scores(train, (2, 2))
    assert_scores(test, (2, 2))


@tool
def validation_curves(X: Any, y: np.ndarray) -> None:
    train, test = validation_curve(
        classifier(),
        X,
        y,
        param_name="max_epochs",
        param_range=[1, 2],
        cv=2,
        error_score="raise",
    )
    assert_scores(train, (2, 2))
    assert_scores(test, (2, 2))


@tool
def permutation_test(X: Any, y: np.ndarray) -> None:
    score, permuted, p = permutation_test_score(
        classifier(), X, y, cv=2, n_permutations=3, random_state=0
    )
    assert_scores(permuted, (3,))
    assert p == (np.sum(permuted >= score) + 1) / 4


@tool
def permutation_importances(X: Any, y: np.ndarray) -> None:
    model = classifier(max_epochs=3).fit(X, y)
    result = permutation_importance(
        model, X, y, n_repeats=2, random_state=0, scoring="neg_log_loss"
    )
    importance = dict(zip(X.columns, result.importances_mean, strict=True))
    assert importance["age"] == importance["site"] == 0  # not read
    assert importance["fmri"] != 0
    assert importance["sc"] != 0


@tool
def partial_dependence_of_a_region(X: Any, y: np.ndarray) -> None:
    feature = "fmri" if isinstance(X, pd.DataFrame) else 0
    partial_dependence(classifier().fit(X, y), X, [feature])


@tool
def calibration(X: Any, y: np.ndarray) -> None:
    model = CalibratedClassifierCV(classifier(), cv=2).fit(X, y)
    assert_scores(model.predict_proba(X), (N, 2))


@tool
def calibration_of_a_frozen_model(X: Any, y: np.ndarray) -> None:
    base = classifier().fit(X, y)
    model = CalibratedClassifierCV(FrozenEstimator(base)).fit(X, y)
    assert_scores(model.predict_proba(X), (N, 2))


@tool
def tuned_threshold(X: Any, y: np.ndarray) -> None:
    model = TunedThresholdClassifierCV(
        classifier(),
        cv=2,
        scoring="balanced_accuracy",
    ).fit(X, y)
    assert 0 <= model.best_threshold_ <= 1
    assert_labels(model.predict(X))


@tool
def fixed_threshold(X: Any, y: np.ndarray) -> None:
    always = FixedThresholdClassifier(classifier(), threshold=0.0, pos_label="patient")
    assert set(always.fit(X, y).predict(X)) == {"patient"}


@tool
def stacking(X: Any, y: np.ndarray) -> None:
    members = [("a", classifier()), ("b", classifier(random_state=1))]
    model = StackingClassifier(members, cv=2).fit(X, y)
    assert model.transform(X).shape == (N, 2)
    assert_labels(model.predict(X))


@tool
def stacking_with_passthrough(X: Any, y: np.ndarray) -> None:
    StackingClassifier([("a", classifier())], cv=2, passthrough=True).fit(X, y)


@tool
def voting(X: Any, y: np.ndarray) -> None:
    members = [classifier(random_state=seed) for seed in (0, 1)]
    named = [(f"m{i}", member) for i, member in enumerate(members)]
    model = VotingClassifier(named, voting="soft").fit(X, y)
    expected = np.mean([m.fit(X, y).predict_proba(X) for m in members], axis=0)
    np.testing.assert_allclose(model.predict_proba(X), expected)


@tool
def bagging(X: Any, y: np.ndarray) -> None:
    BaggingClassifier(classifier(), n_estimators=2, random_state=0).fit(X, y)


@tool
def adaptive_boosting(X: Any, y: np.ndarray) -> None:
    model = AdaBoostClassifier(
        classifier(max_epochs=20), n_estimators=2, random_state=0
    )
    assert_labels(model.fit(X, y).predict(X))


@tool
def one_versus_rest(X: Any, y: np.ndarray) -> None:
    three = np.array(["a", "b", "c"])[np.arange(N) % 3]
    model = OneVsRestClassifier(classifier()).fit(X, three)
    assert len(model.estimators_) == 3
    assert set(model.predict(X)) <= {"a", "b", "c"}


@tool
def self_training(X: Any, y: np.ndarray) -> None:
    labels = np.where(np.arange(N) < 4, -1, np.arange(N) % 2)
    SelfTrainingClassifier(classifier()).fit(X, labels)


@tool
def function_transformer_first(X: Any, y: np.ndarray) -> None:
    model = make_pipeline(FunctionTransformer(), classifier()).fit(X, y)
    np.testing.assert_array_equal(
        model.predict_proba(X), classifier().fit(X, y).predict_proba(X)
    )


@tool
def recursive_elimination(X: Any, y: np.ndarray) -> None:
    RFECV(classifier(), cv=2, importance_getter="coef_").fit(X, y)


@tool
def sequential_selection(X: Any, y: np.ndarray) -> None:
    SequentialFeatureSelector(classifier(), cv=2, n_features_to_select=1).fit(X, y)


@tool
def pandas_output(X: Any, y: np.ndarray) -> None:
    model = embedder().set_output(transform="pandas")
    features = model.fit_transform(X)
    assert list(features.columns) == list(model.get_feature_names_out())
    index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(N)
    pd.testing.assert_index_equal(features.index, index)
    plain = clone(model).set_output(transform="default").fit_transform(X)
    np.testing.assert_array_equal(features.to_numpy(), plain)


@tool
def transformed_target(X: Any, y: np.ndarray) -> None:
    age = np.linspace(20, 60, N)
    model = TransformedTargetRegressor(regressor(), func=np.log, inverse_func=np.exp)
    predicted = model.fit(X, age).predict(X)
    plain = regressor().fit(X, np.log(age)).predict(X)
    np.testing.assert_allclose(predicted, np.exp(plain))


@tool
def pickle_round_trip(X: Any, y: np.ndarray) -> None:
    model = make_pipeline(embedder(), LogisticRegression()).fit(X, y)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@tool
def clone_of_a_fitted_model(X: Any, y: np.ndarray) -> None:
    model = classifier().fit(X, y)
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


# ---------------------------------------------------- what scikit-learn cannot do

ALL = tuple(FORMATS)
VALIDATES = "validates X itself, as a 2-D table, before our estimator is asked"
# tool -> formats that it cannot take, and why; the others must work
IMPOSSIBLE: dict[str, tuple[tuple[str, ...], str]] = {
    "permutation_importances": (
        ALL[1:],
        "permutes columns; only a DataFrame has any (then: one per modality)",
    ),
    "partial_dependence_of_a_region": (ALL, "wants a grid of values of a column"),
    "stacking_with_passthrough": (ALL, "stacks X beside the predictions"),
    "bagging": (ALL, VALIDATES),
    "adaptive_boosting": (tuple(f for f in ALL if f != "3-D array"), VALIDATES),
    "self_training": (ALL, VALIDATES),
    "recursive_elimination": (ALL, VALIDATES),
    "sequential_selection": (ALL, VALIDATES),
}
NOT_A_TABLE = (
    "Expected 2D array|with dim 3|be a 2D NumPy array|inhomogeneous shape|"
    "same number of dimensions|array element with a sequence|ambiguous|"
    "convert string to float|broadcast together|tuple index out of range"
)
# ours: a permuted column of cells can put two missing cells side by side
MEETS_MISSING = "at least one modality per row. Got neither 'fmri' nor 'sc'"


@pytest.fixture(scope="module", autouse=True)
def _seed_tools_without_random_state() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


def cases() -> Iterator[Any]:
    """Yield every tool on every form; what says little more than another is slow."""
    for name in TOOLS:
        for form in FORMATS:
            alike = form == "object array"  # to scikit-learn, a list of its cells
            costly = "in_processes" in name
            costly &= (name, form) != ("cross_val_scores_in_processes", "frame")
            marks = pytest.mark.slow if alike or costly else ()
            yield pytest.param(name, form, marks=marks, id=f"{name}-{form}")


@pytest.mark.parametrize(("name", "form"), list(cases()))
def test_tool_works_or_is_known_not_to(name: str, form: str) -> None:
    X, y = FORMATS[form](), target()
    if name == "column_transformer_by_name" and form != "frame":
        pytest.skip("only a DataFrame has columns")
    refused = form in IMPOSSIBLE.get(name, ((), ""))[0]
    if refused:
        with pytest.raises((ValueError, IndexError), match=NOT_A_TABLE) as caught:
            TOOLS[name](X, y)
        assert "sklearn" in str(caught.traceback[1].path)
    elif (name, form) == ("permutation_importances", "frame"):
        with pytest.raises(BrainDataError, match=MEETS_MISSING):
            TOOLS[name](X, y)
        TOOLS[name](make_cohort(N, R, T).data, y)
    else:
        TOOLS[name](X, y)


@pytest.mark.parametrize("name", TOOLS)
def test_no_tool_takes_a_plain_dict(name: str) -> None:
    cells = make_cohort(N, R, T).data
    X = {"fmri": cells["fmri"].tolist(), "sc": cells["sc"].tolist()}
    message = (
        "Got dict, which scikit-learn cannot split. Pass a DataFrame"  # ours
        "|inconsistent numbers of samples: .2, 16.|got scalar array instead|0|1"
    )
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        TOOLS[name](X, target())


@pytest.mark.parametrize("make", [classifier, embedder, regressor])
def test_a_plain_dict_raises_naming_the_accepted_forms(make: Any) -> None:
    cells = make_cohort(N, R, T).data
    X = {"fmri": cells["fmri"].tolist(), "sc": cells["sc"].tolist()}
    message = (
        "needs X in a form that it knows. Got dict, which scikit-learn cannot split. "
        "Pass a DataFrame with the columns 'fmri' and/or 'sc', a list, Series or "
        r"object array .*, an \(n_scans, n_timepoints, n_regions\) array or tensor, "
        r"skorch's SliceDict\(fmri=..., sc=...\), or a 2-D numeric array"
    )
    with pytest.raises(TypeError, match=message):
        make().fit(X, np.arange(N) % 2)


# ------------------------------------------------ beside covariates, in DataFrames


def beside_covariates() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("brain", embedder(pooling="mean"), ["fmri", "sc"]),
            ("age", StandardScaler(), ["age"]),
            ("site", OneHotEncoder(sparse_output=False), ["site"]),
        ]
    )


def test_column_transformer_puts_embeddings_beside_covariates():
    X, y = frame_with_missing_cells(), target()
    features = beside_covariates().set_output(transform="pandas").fit_transform(X)
    assert list(features.columns) == [
        *(f"brain__brainsymphonyembedder{d}" for d in range(DIM)),
        "age__age",
        "site__site_A",
        "site__site_B",
    ]
    assert features.index.equals(X.index)
    np.testing.assert_allclose(
        features.iloc[:, :DIM], embedder(pooling="mean").fit_transform(X)
    )
    model = make_pipeline(beside_covariates(), LogisticRegression())
    assert_scores(cross_val_score(model, X, y, cv=2, error_score="raise"))


def test_global_pandas_output_names_regions_and_channels():
    X = frame_with_missing_cells()
    with config_context(transform_output="pandas"):
        features = embedder().fit_transform(X)
    assert list(features.columns[[0, -1]]) == ["region-1_0", f"region-{R}_{DIM - 1}"]
    assert features.index.equals(X.index)


def test_one_modality_can_be_embedded_by_its_column_alone():
    X = make_cohort(N, R, T).data
    model = make_column_transformer((embedder(), ["sc"]))
    alone = embedder(modalities="sc").fit_transform(X)
    np.testing.assert_array_equal(model.fit_transform(X), alone)


def test_grid_search_over_the_step_itself():
    X, y = FORMATS["list"](), target()
    model = make_pipeline(embedder(), LogisticRegression())
    search = GridSearchCV(
        model,
        {"brainsymphonyembedder": [embedder(), embedder(pooling="mean")]},
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 2
    assert_labels(search.predict(X))


def test_classifier_is_stratified_by_cross_validation_and_search():
    X, y = FORMATS["list"](), np.repeat(["control", "patient"], N // 2)
    # unstratified halves would hold one class each and raise
    assert_scores(cross_val_score(classifier(), X, y, cv=2, error_score="raise"))
    search = GridSearchCV(classifier(), {"lr": [1e-2]}, cv=2, error_score="raise")
    assert_scores(cross_val_score(search, X, y, cv=2, error_score="raise"))


# ------------------------------------------------------------- metadata routing


def nested_search() -> GridSearchCV:
    return GridSearchCV(
        classifier(), {"lr": [1e-3, 1e-2]}, cv=GroupKFold(2), error_score="raise"
    )


def test_nested_group_folds_need_metadata_routing():
    X, y = frame_with_missing_cells(), target()
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        cross_val_score(
            nested_search(), X, y, groups=GROUPS, cv=GroupKFold(2), error_score="raise"
        )
    with config_context(enable_metadata_routing=True):
        result = cross_validate(
            nested_search(),
            X,
            y,
            params={"groups": GROUPS},
            cv=GroupKFold(2),
            return_indices=True,
            error_score="raise",
        )
    assert_scores(result["test_score"])
    test_groups = [set(GROUPS[rows]) for rows in result["indices"]["test"]]
    assert not test_groups[0] & test_groups[1]


def test_sample_weight_is_routed_on_request():
    X, y = FORMATS["list"](), target()
    weights = np.where(y == "control", 1.0, 5.0)
    with config_context(enable_metadata_routing=True):
        asking = classifier().set_fit_request(sample_weight=True)
        asking.set_score_request(sample_weight=False)
        model = make_pipeline(FunctionTransformer(), asking)
        model.fit(X, y, sample_weight=weights)
        with pytest.raises(ValueError, match="sample_weight"):
            make_pipeline(FunctionTransformer(), classifier()).fit(
                X, y, sample_weight=weights
            )
    direct = classifier().fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(model.predict_proba(X), direct.predict_proba(X))


def test_leave_one_participant_out_predicts_single_scans():
    X = make_cohort(4, R, T).data
    predicted = cross_val_predict(
        regressor(), X, X["age"], groups=X["participant_id"], cv=LeaveOneGroupOut()
    )
    means = cross_val_predict(DummyRegressor(), X[["age"]], X["age"], cv=4)
    assert np.isfinite(predicted).all()
    assert np.abs(predicted - means).max() < 2 * X["age"].std()  # target's own unit
