"""Transformers of time: one repetition time, one length, many windows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from skorch.helper import SliceDict

from bsym_sklearn.data import (
    Cropper,
    TimeSeriesResampler,
    check_cohort,
    cut_windows,
    make_cohort,
    make_cohort_frame,
    resample,
)
from bsym_sklearn.exceptions import BrainDataError


@pytest.fixture
def frame(rng):
    scans = [rng.normal(size=(100, 3)), rng.normal(size=(40, 3)), None]
    sc = [None, None, np.ones((3, 3))]
    return make_cohort_frame(scans, sc, t_r=[1.0, 2.0, np.nan], age=[1, 2, 3])


def test_scans_of_different_t_r_become_one(frame):
    new = TimeSeriesResampler(new_t_r=2.5).fit_transform(frame)
    assert [x.shape[0] for x in new["fmri"].iloc[:2]] == [40, 32]
    assert new["fmri"][2] is None
    assert new["t_r"].tolist() == [2.5] * 3
    assert new["age"].tolist() == [1, 2, 3]
    assert frame["t_r"][0] == 1.0
    again = TimeSeriesResampler(new_t_r=2.5).fit_transform(new)
    np.testing.assert_array_equal(again["fmri"][0], new["fmri"][0])


def test_every_form_can_be_resampled(rng):
    X = rng.normal(size=(3, 40, 2))
    expected = np.stack([resample(x, 1.0, 2.0) for x in X])
    seconds = TimeSeriesResampler(t_r=1.0, new_t_r=2.0)
    np.testing.assert_array_equal(seconds.fit_transform(X), expected)
    assert isinstance(seconds.fit_transform(list(X)), list)
    by_column = TimeSeriesResampler(new_t_r=2.0)
    sliced = by_column.fit_transform(SliceDict(fmri=X, t_r=np.ones(3)))
    np.testing.assert_array_equal(sliced["fmri"], expected)
    assert sliced["t_r"].tolist() == [2.0] * 3
    cohort = check_cohort(make_cohort_frame(X, t_r=[1.0] * 3))
    new = by_column.fit(cohort).transform(cohort)
    np.testing.assert_array_equal(new.read_fmri(1, None), expected[1])
    assert new.covariates["t_r"].tolist() == [2.0] * 3


def test_repetition_times_that_are_missing_or_wrong_are_named(frame):
    with pytest.raises(BrainDataError, match=r"in the column 't_r'. Got an X without"):
        TimeSeriesResampler(new_t_r=2.0).fit(frame.drop(columns="t_r"))
    with pytest.raises(BrainDataError, match=r"in the column 't_r'. Got an X without"):
        TimeSeriesResampler(new_t_r=2.0).fit([frame["fmri"][0]])
    for bad in (0.0, np.nan):
        with pytest.raises(BrainDataError, match=r"positive seconds.*first in scan 1"):
            TimeSeriesResampler(new_t_r=2.0).fit(frame.assign(t_r=[1.0, bad, 1.0]))
    with pytest.raises(ValueError, match=r"new_t_r must be positive seconds. Got 0"):
        TimeSeriesResampler(new_t_r=0).fit(frame)
    with pytest.raises(ValueError, match="t_r must be positive seconds or the name"):
        TimeSeriesResampler(t_r=-1.0, new_t_r=1.0).fit(frame)


@pytest.mark.parametrize(
    ("start", "first"), [("first", 0), ("middle", 3), ("last", 6), (2, 2), (6, 6)]
)
def test_one_window_is_cut_out(start, first):
    X = np.arange(20.0).reshape(1, 10, 2) ** 2
    new = Cropper(window=4, start=start).fit_transform(X)
    np.testing.assert_array_equal(new, X[:, first : first + 4])


def test_unequal_scans_become_equal(rng):
    X = [rng.normal(size=(t, 3)) for t in (9, 12)]
    new = Cropper(window=9, start="last").fit_transform(X)
    assert [x.shape for x in new] == [(9, 3), (9, 3)]


def test_short_scans_are_named_not_dropped(rng):
    X = [rng.normal(size=(t, 3)) for t in (12, 9)]
    for start, window in (("first", 10), (5, 5)):
        with pytest.raises(BrainDataError, match=rf"{window} time points.*scan 1"):
            Cropper(window=window, start=start).fit_transform(X)


@pytest.mark.parametrize(
    "cropper",
    [Cropper(window=0), Cropper(window=3, start="end"), Cropper(window=3, start=-1)],
)
def test_cropper_checks_its_parameters(rng, cropper):
    with pytest.raises(ValueError, match="must be a whole number"):
        cropper.fit(rng.normal(size=(2, 9, 3)))


@pytest.mark.parametrize(
    "transformer", [Cropper(window=3), TimeSeriesResampler(t_r=1.0, new_t_r=2.0)]
)
def test_tables_are_refused(rng, transformer):
    with pytest.raises(BrainDataError, match=r"Got a 2-D X.*Pass \[X\]"):
        transformer.fit(rng.normal(size=(9, 3)))
    with pytest.raises(BrainDataError, match=r"Got a 2-D X.*Pass \[X\]"):
        cut_windows(rng.normal(size=(9, 3)), 3)


@pytest.mark.parametrize(
    "transformer", [Cropper(window=3), TimeSeriesResampler(t_r=1.0, new_t_r=2.0)]
)
def test_transformers_follow_the_api(rng, transformer):
    X = rng.normal(size=(2, 9, 3))
    parameters = transformer.get_params()
    copy = clone(transformer)
    assert copy.get_params() == parameters
    assert copy.fit(X) is copy
    assert copy.get_params() == parameters
    assert copy.n_features_in_ == 3
    assert len(copy.get_feature_names_out()) == 3
    assert copy.set_output(transform="pandas").transform(X).shape[0] == 2


def test_windows_repeat_covariates_and_say_where_they_are_from(frame):
    frame.attrs["regions"] = pd.DataFrame({"label": list("abc")})
    windows = cut_windows(frame, 30)
    assert windows["scan"].tolist() == [0, 0, 0, 1, 2]
    assert windows["start"].tolist() == [0, 30, 60, 0, 0]
    assert windows["age"].tolist() == [1, 1, 1, 2, 3]
    assert windows.index.tolist() == list(range(5))
    assert windows.attrs["regions"]["label"].tolist() == list("abc")
    np.testing.assert_array_equal(windows["fmri"][1], frame["fmri"][0][30:60])
    assert windows["fmri"][4] is None
    assert windows["sc"].isna().tolist() == [True] * 4 + [False]
    assert check_cohort(windows).n_timepoints.tolist() == [30, 30, 30, 30, 0]


def test_windows_keep_a_named_index(frame):
    frame.index = list("xyz")
    assert cut_windows(frame, 30).index.tolist() == list("xxxyz")
    series = pd.Series(frame["fmri"].iloc[:2])
    assert cut_windows(series, 40).index.tolist() == list("xxy")


def test_rest_of_a_scan_is_kept_if_long_enough(rng):
    X = [rng.normal(size=(t, 2)) for t in (25, 7)]
    windows = cut_windows(X, 10, min_length=5)
    assert [len(x) for x in windows["fmri"]] == [10, 10, 5, 7]
    with pytest.raises(BrainDataError, match=r"at least 10 time points.*Got 7.*scan 1"):
        cut_windows(X, 10)


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 60), st.integers(1, 5), st.integers(1, 20))
def test_full_windows_lie_inside_and_step_by_the_stride(n_timepoints, window, stride):
    x = np.random.default_rng(0).normal(size=(n_timepoints, 2))
    windows = cut_windows([x], window, stride=stride)
    starts = windows["start"].to_numpy()
    assert (np.diff(starts) == stride).all()
    assert starts[-1] + window <= n_timepoints < starts[-1] + window + stride
    for start, cell in zip(starts, windows["fmri"], strict=True):
        np.testing.assert_array_equal(cell, x[start : start + window])


def test_windows_are_copies(rng):
    x = rng.normal(size=(20, 2))
    windows = cut_windows([x], 10)
    windows["fmri"][0][:] = 0
    assert x[:10].all()


def test_windows_refuse_their_own_column_names_and_bad_numbers(frame):
    with pytest.raises(BrainDataError, match=r"Got an X with \['scan'\]"):
        cut_windows(frame.assign(scan=1), 10)
    for keywords in ({"stride": 0}, {"min_length": 0}, {"min_length": 11}):
        with pytest.raises(ValueError, match=f"{next(iter(keywords))} must be"):
            cut_windows(frame, 10, **keywords)
    with pytest.raises(ValueError, match="window must be"):
        cut_windows(frame, 0)


def test_windows_let_constant_regions_through():
    data = make_cohort(n_scans=2).data
    data["fmri"].iloc[0][:20, 3] = 0.0
    assert len(cut_windows(data, 20)) == 6
