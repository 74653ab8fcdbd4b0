"""Scalers: what they compute, what they keep, and scikit-learn's own checks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.helper import SliceDict

from bsym_sklearn.data import (
    ConnectomeScaler,
    Cropper,
    RegionScaler,
    check_cohort,
    cut_windows,
    make_cohort,
    symmetrize_weights,
)
from bsym_sklearn.exceptions import BrainDataError

R = 4
METHODS = ("zscore", "robust", "demean")


@parametrize_with_checks(
    [
        RegionScaler(),
        RegionScaler(method="robust", per="cohort"),
        RegionScaler(method="demean", constant_regions="mask"),
        ConnectomeScaler(),
        ConnectomeScaler(method="linear", symmetrize="max", diagonal="keep"),
    ]
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def series(rng):
    return [rng.normal(3, 2, size=(t, R)) for t in (20, 31)]


@pytest.fixture
def equal(rng):
    return rng.normal(3, 2, size=(3, 20, R))


def object_array(cells):
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    return column


def counts(rng, n_regions=R):
    upper = np.triu(rng.integers(0, 900, size=(n_regions, n_regions)), 1)
    return (upper + upper.T + np.diag(rng.integers(1, 99, n_regions))).astype(float)


# The form of X stays.


@pytest.mark.parametrize("convert", [list, tuple, object_array, pd.Series])
def test_forms_of_unequal_scans_come_back(series, convert):
    X = convert(series)
    new = RegionScaler().fit_transform(X)
    assert type(new) is type(X)
    for i, x in enumerate(series):
        np.testing.assert_allclose(list(new)[i], (x - x.mean(0)) / x.std(0))


def test_series_keeps_index_and_name(series):
    X = pd.Series(series, index=["b", "a"], name="bold")
    new = RegionScaler().fit_transform(X)
    assert new.index.tolist() == ["b", "a"]
    assert new.name == "bold"


def test_arrays_and_tensors_come_back(equal):
    expected = (equal - equal.mean(1, keepdims=True)) / equal.std(1, keepdims=True)
    scaler = RegionScaler()
    np.testing.assert_allclose(scaler.fit_transform(equal), expected)
    tensor = scaler.fit_transform(torch.as_tensor(equal))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor, expected)


def test_slice_dict_comes_back_with_its_other_entries(rng, equal):
    sc = np.stack([counts(rng) for _ in equal])
    X = SliceDict(fmri=equal, sc=sc, age=np.arange(3))
    new = RegionScaler().fit_transform(X)
    assert isinstance(new, SliceDict)
    assert new["fmri"].shape == equal.shape
    assert new["sc"] is sc
    np.testing.assert_array_equal(new["age"], np.arange(3))
    scaled = ConnectomeScaler().fit_transform(X)
    assert scaled["fmri"] is equal
    assert scaled["sc"].max() < 5


def test_slice_dict_without_the_modality_comes_back_as_it_is(equal):
    scaler = ConnectomeScaler().fit(np.ones((2, R, R)))
    new = scaler.transform(SliceDict(fmri=equal))
    assert list(new.keys()) == ["fmri"]


def test_frame_keeps_everything_else_and_is_not_changed(rng, series):
    X = pd.DataFrame(
        {
            "age": [1, 2, 3],
            "fmri": object_array([*series, None]),
            "sc": object_array([None, counts(rng), counts(rng)]),
        },
        index=[7, 7, 8],
    )
    X.attrs["regions"] = pd.DataFrame({"label": list("abcd")})
    before = X.copy()
    new = make_pipeline(RegionScaler(), ConnectomeScaler()).fit_transform(X)
    assert list(new.columns) == ["age", "fmri", "sc"]
    assert new.index.tolist() == [7, 7, 8]
    assert new["age"].tolist() == [1, 2, 3]
    assert new["fmri"].isna().tolist() == [False, False, True]
    assert new["sc"].isna().tolist() == [True, False, False]
    assert new.attrs["regions"]["label"].tolist() == list("abcd")
    assert abs(new["fmri"].iloc[0].mean()) < 1e-12
    pd.testing.assert_frame_equal(X, before)


def test_frame_without_the_column_comes_back_as_a_copy(rng, series):
    scaler = ConnectomeScaler().fit([counts(rng)])
    X = pd.DataFrame({"fmri": series})
    new = scaler.transform(X)
    assert new is not X
    pd.testing.assert_frame_equal(new, X)


def test_cohort_comes_back_as_a_cohort(series):
    cohort = check_cohort(series)
    new = RegionScaler().fit(cohort).transform(cohort)
    np.testing.assert_allclose(new.read_fmri(1).mean(0), 0, atol=1e-6)
    assert new.fmri[1].label == "scan 1"


def test_files_come_back_as_arrays(tmp_path, series):
    np.save(tmp_path / "a.npy", series[0].astype(np.float16))
    new = RegionScaler().fit_transform([str(tmp_path / "a.npy")])
    assert new[0].dtype == np.float32
    np.testing.assert_allclose(new[0].std(0), 1, rtol=1e-6)


def test_set_output_concerns_tables_only(rng, series):
    scaler = RegionScaler().set_output(transform="pandas")
    assert isinstance(scaler.fit_transform(series), list)
    table = scaler.fit_transform(rng.normal(size=(5, 3)))
    assert list(table.columns) == ["x0", "x1", "x2"]
    with config_context(transform_output="pandas"):
        assert isinstance(RegionScaler().fit_transform(series), list)
        frame = pd.DataFrame({"fmri": series, "age": [1, 2]})
        assert list(RegionScaler().fit_transform(frame)) == ["fmri", "age"]


def test_table_names_are_forgotten_when_scans_follow(rng, series):
    scaler = RegionScaler().fit(
        pd.DataFrame(rng.normal(size=(5, 2)), columns=["a", "b"])
    )
    assert scaler.get_feature_names_out().tolist() == ["a", "b"]
    scaler.fit(series)
    assert scaler.get_feature_names_out().tolist() == [f"x{i}" for i in range(R)]


# RegionScaler.


@pytest.mark.parametrize("method", METHODS)
def test_each_scan_is_scaled_by_itself(series, method):
    x = series[0]
    lower, median, upper = np.quantile(x, (0.25, 0.5, 0.75), axis=0)
    expected = {
        "zscore": (x - x.mean(0)) / x.std(0),
        "robust": (x - median) / (upper - lower),
        "demean": x - x.mean(0),
    }[method]
    scaler = RegionScaler(method=method).fit(series)
    assert not hasattr(scaler, "center_")
    np.testing.assert_allclose(scaler.transform(series)[0], expected)
    np.testing.assert_array_equal(scaler.scale(x), scaler.transform(series)[0])


@pytest.mark.parametrize("method", METHODS)
def test_cohort_statistics_are_those_of_all_training_time_points(rng, series, method):
    pooled = np.concatenate(series)
    lower, median, upper = np.quantile(pooled, (0.25, 0.5, 0.75), axis=0)
    center, scale = {
        "zscore": (pooled.mean(0), pooled.std(0)),
        "robust": (median, upper - lower),
        "demean": (pooled.mean(0), np.ones(R)),
    }[method]
    scaler = RegionScaler(method=method, per="cohort").fit(series)
    np.testing.assert_allclose(scaler.center_, center)
    np.testing.assert_allclose(scaler.scale_, scale)
    other = rng.normal(size=(9, R))
    np.testing.assert_allclose(scaler.scale(other), (other - center) / scale)


def test_pooled_moments_do_not_cancel(rng):
    X = [1e6 + rng.normal(size=(30, 2)) for _ in range(5)]
    scaler = RegionScaler(per="cohort").fit(X)
    np.testing.assert_allclose(scaler.scale_, np.concatenate(X).std(0), rtol=1e-9)


def test_pooled_quantiles_use_an_even_sample_of_a_large_cohort(rng, monkeypatch):
    monkeypatch.setattr("bsym_sklearn.data.scaling.N_POOLED_TIMEPOINTS", 10)
    X = [rng.normal(size=(t, R)) for t in (7, 13, 9)]
    every_third = np.concatenate(X)[::3]
    scaler = RegionScaler(method="robust", per="cohort").fit(X)
    np.testing.assert_allclose(scaler.center_, np.median(every_third, axis=0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per", ["scan", "cohort"])
def test_constant_regions_raise_or_become_zero(series, method, per):
    series[1][:, 2] = 5.0
    with pytest.raises(
        BrainDataError, match=r"RegionScaler.*region 2, first in scan 1"
    ):
        RegionScaler(method=method, per=per).fit(series)
    scaler = RegionScaler(method=method, per=per, constant_regions="mask")
    new = scaler.fit_transform(series)
    assert not new[1][:, 2].any()
    assert new[0][:, 2].any()


def test_region_that_never_varied_in_training_is_zero_afterwards(rng, series):
    for x in series:
        x[:, 1] = 0.1
    scaler = RegionScaler(per="cohort", constant_regions="mask").fit(series)
    assert scaler.scale_[1] == 0
    assert not scaler.scale(rng.normal(size=(9, R)))[:, 1].any()


def test_rarely_active_region_is_divided_by_its_deviation():
    x = np.zeros((40, 2))
    x[3] = 1.0
    new = RegionScaler(method="robust").fit_transform([x])[0]
    np.testing.assert_allclose(new, x / x.std(0))


def test_single_time_points_are_scaled_by_the_cohort(rng):
    X = rng.normal(5, 3, size=(30, R))
    expected = (X - X.mean(0)) / X.std(0)
    scaler = RegionScaler(per="scan").fit(X)
    np.testing.assert_allclose(scaler.transform(X), expected)
    np.testing.assert_allclose(scaler.transform(X[:, None]), expected[:, None])
    np.testing.assert_allclose(scaler.scale(X[:1]), expected[:1])
    longer = rng.normal(size=(9, R))
    np.testing.assert_allclose(scaler.scale(longer).std(0), 1)


def test_single_time_point_without_cohort_statistics_is_refused(rng, series):
    scaler = RegionScaler().fit(series)
    with pytest.raises(BrainDataError, match=r"Got 1, .* scan 1. Use per='cohort'"):
        scaler.transform([series[0], series[1][:1]])


def test_refitting_forgets_cohort_statistics(rng, series):
    scaler = RegionScaler().fit(rng.normal(size=(9, R)))
    assert hasattr(scaler, "center_")
    assert not hasattr(scaler.fit(series), "center_")


def test_half_precision_does_not_overflow():
    x = np.array([[-6e4, 1], [6e4, 2], [5e4, 0]], dtype=np.float16)
    new = RegionScaler().fit_transform([x])[0]
    assert np.isfinite(new).all()
    assert new.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(
    x=arrays(float, (12, 2), elements=st.floats(-100, 100, width=32)),
    factor=st.floats(0.01, 100),
    shift=st.floats(-100, 100),
    method=st.sampled_from(["zscore", "robust"]),
)
def test_scaling_forgets_unit_and_offset(x, factor, shift, method):
    x = x + np.linspace(0, 1, 12)[:, None] * [1, 3]
    quartiles = np.quantile(x, [0.25, 0.75], axis=0)
    assume((np.diff(quartiles, axis=0) > 0.1).all())
    fitted_on = [np.random.default_rng(0).normal(size=(5, 2))]
    scaler = RegionScaler(method=method).fit(fitted_on)
    np.testing.assert_allclose(
        scaler.scale(factor * x + shift), scaler.scale(x), atol=1e-6, rtol=1e-6
    )


# ConnectomeScaler.


def test_log_scaling_is_what_the_docstring_says(rng):
    X = np.stack([counts(rng) for _ in range(5)])
    without = X * (1 - np.eye(R))
    present = without[without > 0]
    scaler = ConnectomeScaler().fit(X)
    assert scaler.scale_ == np.median(present)
    spread = np.sqrt(np.mean(np.log1p(present / scaler.scale_) ** 2))
    np.testing.assert_allclose(scaler.spread_, spread)
    expected = np.log1p(without / scaler.scale_) / spread
    np.testing.assert_allclose(scaler.transform(X), expected)
    np.testing.assert_allclose(scaler.scale(X[0]), expected[0])


def test_absent_edges_stay_zero_and_weak_ones_are_small_and_positive():
    sc = np.array([[0, 1000, 0.01], [1000, 0, 0], [0.01, 0, 0]])
    new = ConnectomeScaler().fit_transform([sc])[0]
    assert new[1, 2] == 0
    assert 0 < new[0, 2] < 1e-3 < new[0, 1]


def test_sign_of_a_weight_stays(rng):
    sc = symmetrize_weights(rng.normal(size=(6, 6)))
    new = ConnectomeScaler(diagonal="keep").fit_transform([sc])[0]
    np.testing.assert_array_equal(np.sign(new), np.sign(sc))


@pytest.mark.parametrize("method", ["log", "linear"])
def test_present_weights_have_unit_root_mean_square(rng, method):
    X = [counts(rng, 9) for _ in range(3)]
    new = np.stack(ConnectomeScaler(method=method).fit_transform(X))
    np.testing.assert_allclose(np.mean(new[new != 0] ** 2), 1)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e6), st.sampled_from(["log", "linear"]))
def test_change_of_unit_changes_nothing(unit, method):
    X = [counts(np.random.default_rng(i)) for i in range(3)]
    scaler = ConnectomeScaler(method=method)
    here = np.stack(scaler.fit_transform(X))
    there = np.stack(scaler.fit_transform([x * unit for x in X]))
    np.testing.assert_allclose(there, here, rtol=1e-9)


def test_diagonal_is_cleared_or_kept(rng):
    X = [counts(rng)]
    assert not np.diag(ConnectomeScaler().fit_transform(X)[0]).any()
    assert np.diag(ConnectomeScaler(diagonal="keep").fit_transform(X)[0]).all()


def test_asymmetry_raises_unless_symmetrisation_is_asked_for(rng):
    sc = rng.uniform(1, 5, size=(R, R))
    with pytest.raises(BrainDataError, match=r"symmetrize='mean'"):
        ConnectomeScaler().fit([sc])
    for how in ("mean", "max"):
        new = ConnectomeScaler(symmetrize=how).fit_transform([sc])[0]
        np.testing.assert_array_equal(new, new.T)


def test_asymmetric_connectomes_pass_those_who_leave_them_alone(rng, series):
    sc = [rng.uniform(1, 5, size=(R, R)) for _ in series]
    X = pd.DataFrame({"fmri": series, "sc": sc})
    pipeline = make_pipeline(
        RegionScaler(), Cropper(window=20), ConnectomeScaler(symmetrize="mean")
    )
    assert check_cohort(pipeline.fit_transform(X)).modalities == ("fmri", "sc")
    assert len(cut_windows(X, 20)) == 2


@settings(max_examples=50, deadline=None)
@given(
    arrays(float, (4, 4), elements=st.floats(-9, 9)), st.sampled_from(["mean", "max"])
)
def test_symmetrised_weights_are_symmetric_and_symmetric_ones_stay(weights, how):
    new = symmetrize_weights(weights, how)
    np.testing.assert_array_equal(new, new.T)
    np.testing.assert_array_equal(symmetrize_weights(new, how), new)
    if how == "max":
        largest = np.maximum(np.abs(weights), np.abs(weights.T))
        np.testing.assert_array_equal(np.abs(new), largest)


def test_large_cohort_is_fitted_on_an_even_sample(rng, monkeypatch):
    monkeypatch.setattr("bsym_sklearn.data.scaling.N_POOLED_WEIGHTS", 500)
    X = [counts(rng, 20) for _ in range(4)]
    sampled = ConnectomeScaler().fit(X).scale_
    monkeypatch.undo()
    assert sampled == pytest.approx(ConnectomeScaler().fit(X).scale_, rel=0.25)


def test_table_is_scaled_cell_by_cell(rng):
    X = rng.uniform(0, 100, size=(6, 3))
    scaler = ConnectomeScaler().fit(X)
    expected = np.log1p(X / np.median(X)) / scaler.spread_
    np.testing.assert_allclose(scaler.transform(X), expected)


def test_table_of_zeros_stays(rng):
    np.testing.assert_array_equal(
        ConnectomeScaler().fit_transform(np.zeros((3, 2))), np.zeros((3, 2))
    )


# Both.


@pytest.mark.parametrize("scaler", [RegionScaler(), ConnectomeScaler()])
def test_what_is_missing_or_wrong_is_named(rng, series, scaler):
    name = type(scaler).__name__
    X = pd.DataFrame({"fmri": series})
    if isinstance(scaler, RegionScaler):
        X = pd.DataFrame({"sc": [counts(rng)]})
    with pytest.raises(BrainDataError, match=rf"{name} needs '.*' in at least one row"):
        clone(scaler).fit(X)
    with pytest.raises(NotFittedError):
        clone(scaler).transform(X)
    with pytest.raises(NotFittedError):
        clone(scaler).scale(series[0])
    fitted = clone(scaler).fit(make_cohort(n_regions=R).data)
    with pytest.raises(BrainDataError, match=r"one scan with 4 regions as columns"):
        fitted.scale(np.zeros((3, 5)))
    with pytest.raises(BrainDataError, match=r"needs scans of 4 regions, as in fit"):
        fitted.transform(make_cohort(n_regions=6).data)
    with pytest.raises(TypeError, match="Got dict"):
        fitted.transform({"fmri": series})


@pytest.mark.parametrize(
    "scaler",
    [
        RegionScaler(method="minmax"),
        RegionScaler(per="site"),
        RegionScaler(constant_regions="drop"),
        ConnectomeScaler(method="log10"),
        ConnectomeScaler(symmetrize="min"),
        ConnectomeScaler(diagonal="one"),
    ],
)
def test_unknown_options_are_refused_in_fit(scaler, series):
    with pytest.raises(ValueError, match="must be one of"):
        scaler.fit(series)


def test_scalers_work_inside_cross_validation():
    cohort = make_cohort(n_scans=16, n_regions=6, n_timepoints=40, effect=3.0)
    upper = np.triu_indices(6, 1)

    def features(X):
        rows = [
            np.concatenate([np.corrcoef(x.T)[upper], sc[upper]])
            for x, sc in zip(X["fmri"], X["sc"], strict=True)
        ]
        return np.array(rows)

    pipeline = make_pipeline(
        RegionScaler(),
        ConnectomeScaler(),
        FunctionTransformer(features),
        LogisticRegression(),
    )
    scores = cross_val_score(pipeline, cohort.data, cohort.target, cv=4)
    assert scores.mean() > 0.8
    grid = {"regionscaler__per": ["scan", "cohort"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(cohort.data, cohort.target)
    assert len(search.cv_results_["params"]) == 2
