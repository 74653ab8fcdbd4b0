"""Resampling, cropping, padding and windows of one scan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsym_sklearn.data import crop, pad, resample, window_starts
from bsym_sklearn.exceptions import BrainDataError

T_RS = st.sampled_from([0.5, 0.72, 0.735, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 100), st.none() | st.integers(1, 50))
def test_windows_are_even_and_stay_inside(n_timepoints, window, n_windows):
    starts = window_starts(n_timepoints, window, n_windows)
    assert (np.diff(starts) > 0).all()
    assert starts[0] >= 0
    assert starts[-1] <= max(n_timepoints - window, 0)
    if len(starts) > 1:
        assert starts[0] == 0
        assert starts[-1] == n_timepoints - window
        assert np.ptp(np.diff(starts)) <= 1
    covered = np.zeros(n_timepoints, dtype=bool)
    for start in starts:
        covered[start : start + window] = True
    if n_windows is None or n_windows * window >= n_timepoints > window:
        assert covered.all()
    if n_windows is None:
        assert len(starts) == max(1, -(-n_timepoints // window))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 100))
def test_windows_with_a_stride_reach_the_end(n_timepoints, window, stride):
    starts = window_starts(n_timepoints, window, stride=stride)
    assert starts[0] == 0
    assert starts[-1] == max(n_timepoints - window, 0)
    assert (np.diff(starts)[:-1] == stride).all()
    assert (np.diff(starts) <= stride).all()


def test_one_window_lies_in_the_middle_and_short_scans_have_one():
    assert window_starts(100, 40, n_windows=1).tolist() == [30]
    assert window_starts(30, 40).tolist() == [0]
    assert window_starts(40, 40, n_windows=3).tolist() == [0]
    assert window_starts(42, 40, n_windows=9).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 5), "n_timepoints must be a whole number >= 1. Got 0"),
        ((9, 0), "window must be"),
        ((9, 2.5), "window must be"),
        ((9, 2, 0), "n_windows must be"),
        ((9, 2, None, 0), "stride must be"),
        ((9, 2, True), "n_windows must be"),
        ((9, 2, 2, 2), "Only one of n_windows and stride"),
    ],
)
def test_window_numbers_are_checked(arguments, match):
    with pytest.raises(ValueError, match=match):
        window_starts(*arguments)


def test_crop_is_a_view_and_shorter_at_the_end():
    x = np.arange(20.0).reshape(10, 2)
    assert np.shares_memory(crop(x, 2, 4), x)
    assert crop(x, 8, 4).shape == (2, 2)
    with pytest.raises(ValueError, match=r"start must be in \[0, 10\). Got 10"):
        crop(x, 10, 4)
    with pytest.raises(ValueError, match="window must be"):
        crop(x, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 20))
def test_padding_can_be_taken_off_again(n_timepoints, n_added):
    x = np.random.default_rng(0).normal(size=(n_timepoints, 3)).astype(np.float32)
    padded, padding = pad(x, n_timepoints + n_added)
    assert padded.dtype == np.float32
    assert padding.sum() == n_added
    assert not padded[padding].any()
    np.testing.assert_array_equal(padded[~padding], x)


def test_padding_does_not_crop():
    with pytest.raises(ValueError, match=r"at most 4 time points. Got 5"):
        pad(np.zeros((5, 2)), 4)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 400), T_RS, T_RS)
def test_length_follows_the_repetition_times(n_timepoints, t_r, new_t_r):
    n_new = round(n_timepoints * t_r / new_t_r)
    x = np.random.default_rng(0).normal(size=(n_timepoints, 2))
    if n_new < 1:
        with pytest.raises(BrainDataError, match="longer than half a new time point"):
            resample(x, t_r, new_t_r)
    else:
        assert resample(x, t_r, new_t_r).shape == (n_new, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 300), T_RS, T_RS, st.floats(-1e4, 1e4), st.floats(-10, 10))
def test_lines_survive_up_to_the_ends(n_timepoints, t_r, new_t_r, offset, slope):
    line = lambda n, dt: (offset + slope * dt * np.arange(n))[:, None]  # noqa: E731
    new = resample(line(n_timepoints, t_r), t_r, new_t_r)
    scale = abs(offset) + abs(slope) * n_timepoints * t_r + 1
    # the fraction that stands for the ratio is exact to 1e-6
    np.testing.assert_allclose(new, line(len(new), new_t_r), atol=2e-6 * scale)


@pytest.mark.parametrize(("t_r", "new_t_r"), [(0.72, 2.0), (2.0, 0.72), (1.0, 2.0)])
@pytest.mark.parametrize("period", [20.0, 60.0])
def test_slow_sines_are_kept_up_to_the_ends(t_r, new_t_r, period):
    wave = lambda n, dt: np.sin(2 * np.pi * dt * np.arange(n) / period + 0.4)  # noqa: E731
    new = resample(wave(300, t_r)[:, None], t_r, new_t_r)[:, 0]
    n_inside = int(299 * t_r / new_t_r) + 1  # the last may lie beyond the end
    expected = wave(len(new), new_t_r)
    np.testing.assert_allclose(new[:n_inside], expected[:n_inside], atol=0.02)


@pytest.mark.parametrize(("t_r", "new_t_r"), [(0.72, 2.0), (1.0, 2.0), (0.5, 3.0)])
def test_what_is_faster_than_the_new_nyquist_is_removed(t_r, new_t_r):
    nyquist = 0.5 / new_t_r
    for share in (1.2, 1.5):
        fast = np.sin(2 * np.pi * share * nyquist * t_r * np.arange(400) + 0.7)
        new = resample(fast[:, None], t_r, new_t_r)[:, 0]
        assert np.abs(new[8:-8]).max() < 0.02


def test_there_and_back_keeps_slow_signals(rng):
    slow = np.cumsum(rng.normal(size=(400, 3)), axis=0)
    slow = resample(resample(slow, 1.0, 4.0), 4.0, 1.0)
    back = resample(resample(slow, 1.0, 2.0), 2.0, 1.0)
    np.testing.assert_allclose(back[5:-5], slow[5:-5], atol=0.05 * slow.std())


def test_equal_times_give_an_equal_copy(rng):
    x = rng.normal(size=(9, 2))
    new = resample(x, 2.0, 2.0)
    np.testing.assert_array_equal(new, x)
    assert not np.shares_memory(new, x)


def test_resampling_keeps_precision_and_source(rng):
    x = rng.normal(size=(50, 2))
    before = x.copy()
    assert resample(x.astype(np.float32), 1.0, 2.0).dtype == np.float32
    assert resample(x.astype(np.float16), 1.0, 2.0).dtype == np.float32
    assert resample((x * 9).astype(int), 1.0, 2.0).dtype == np.float64
    assert resample(x, 1.0, 2.0).dtype == np.float64
    np.testing.assert_array_equal(x, before)


def test_resampling_refuses_what_is_no_scan_or_no_time(rng):
    for bad in (0, -1.0, np.nan, np.inf, "2", None, True):
        with pytest.raises(ValueError, match="new_t_r must be positive seconds"):
            resample(rng.normal(size=(9, 2)), 1.0, bad)
    with pytest.raises(BrainDataError, match=r"at least two time points.*\(1, 2\)"):
        resample(np.zeros((1, 2)), 1.0, 2.0)
    with pytest.raises(BrainDataError, match=r"\(9,\)"):
        resample(np.zeros(9), 1.0, 2.0)


@pytest.mark.parametrize(("new_t_r", "expected"), [(2.0009, 2999), (1.9991, 3001)])
def test_a_ratio_close_to_one_keeps_the_documented_length(new_t_r, expected):
    x = np.random.default_rng(0).normal(size=(3000, 2))
    resampled = resample(x, 2.0, new_t_r)
    assert len(resampled) == round(3000 * 2.0 / new_t_r) == expected
    np.testing.assert_array_equal(resampled[:2999], x[:2999])
