"""Constant regions, repetition times, windows, short and long scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import make_cohort

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
each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


def make_data(n_scans: int = N, **options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(n_scans, R, T, **options)
    return cohort.data, cohort.target


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


def test_masked_constant_regions_do_not_matter():
    X, _ = make_data()
    cells = [x.copy() for x in X["fmri"]]
    cells[1][:, 2] = 5.0
    other = [x.copy() for x in cells]
    other[1][:, 2] = -70.0
    message = "constant region 2, first in scan 1"
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY).fit(X.assign(fmri=cells))
    first, second = (
        BrainSymphonyEmbedder(**TINY, constant_regions="mask").fit(X.assign(fmri=c))
        for c in (cells, other)
    )
    values = [
        m.transform(X.assign(fmri=c)) for m, c in ((first, cells), (second, other))
    ]
    np.testing.assert_array_equal(*values)
    assert np.isfinite(values[0]).all()
    present = first.transform(X.assign(fmri=X["fmri"]))
    assert not np.allclose(present[1], values[0][1])
    np.testing.assert_allclose(present[0], values[0][0], atol=1e-5)


def slow_series(seconds: float, t_r: float, seed: int) -> np.ndarray:
    """Return slow sines of R regions, sampled every `t_r` seconds."""
    rng = np.random.default_rng(seed)
    time = np.arange(0, seconds, t_r)[:, None, None]
    frequency = rng.uniform(0.01, 0.05, size=(1, R, 3))
    phase = rng.uniform(0, 2 * np.pi, size=(1, R, 3))
    return np.sin(2 * np.pi * frequency * time + phase).sum(-1)


def test_the_same_scan_at_two_repetition_times_has_nearly_the_same_embedding():
    fast = [slow_series(120, 1.0, seed) for seed in range(6)]
    slow = [slow_series(120, 2.0, seed) for seed in range(6)]
    X = pd.DataFrame({"fmri": fast, "t_r": 1.0})
    other = pd.DataFrame({"fmri": slow, "t_r": 2.0})
    model = BrainSymphonyEmbedder(**TINY, t_r="t_r").fit(X)
    assert model.preprocessing_.t_r == 1.0
    assert model.preprocessing_.window == 120
    Z, resampled = model.transform(X), model.transform(other)
    scan_to_scan = np.abs(Z - Z[::-1]).mean()
    assert np.abs(resampled - Z).mean() < 0.1 * scan_to_scan
    ignorant = BrainSymphonyEmbedder(**TINY, window=120).fit(X[["fmri"]])
    ignored = ignorant.transform(other[["fmri"]]) - ignorant.transform(X[["fmri"]])
    assert np.abs(ignored).mean() > 3 * np.abs(resampled - Z).mean()


def test_one_number_is_the_repetition_time_of_all_scans():
    X, _ = make_data()
    plain = BrainSymphonyEmbedder(**TINY).fit_transform(X)
    timed = BrainSymphonyEmbedder(**TINY, t_r=0.72).fit(X)
    assert timed.preprocessing_.t_r == 0.72
    np.testing.assert_array_equal(timed.transform(X), plain)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "needs a column of that name, in seconds. Got .*'site'"),
        ([2.0, -1.0, *[2.0] * 10], "Got -1.0, first in scan 1. Correct it or leave"),
        ([2.0, 2.0, None, *[2.0] * 9], "seconds, above 0. Got nan, first in scan 2"),
    ],
)
def test_repetition_times_that_cannot_be_used_raise(column, message):
    X, _ = make_data()
    X = X if column is None else X.assign(t_r=column)
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY, t_r="t_r").fit(X)


def test_window_defaults_to_the_longest_scan_up_to_two_hundred():
    rng = np.random.default_rng(0)
    none = TINY | {"max_epochs": 0}
    for longest, window in ((37, 37), (260, 200)):
        X = [rng.normal(size=(t, R)) for t in (20, longest)]
        assert BrainSymphonyEmbedder(**none).fit(X).preprocessing_.window == window
    model = BrainSymphonyEmbedder(**none, window=12).fit(X)
    assert model.preprocessing_.window == 12
    assert model.attention(X, "temporal").shape == (2, 12, 12)


def test_a_long_scan_is_the_mean_of_its_windows():
    # unscaled: a window of a scaled scan is not a scaled window
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(40, R)) for _ in range(4)]
    model = BrainSymphonyEmbedder(
        **TINY, window=20, standardize=None, dtype="float64"
    ).fit(X)
    halves = (
        model.transform([x[:20] for x in X]) + model.transform([x[20:] for x in X])
    ) / 2
    np.testing.assert_allclose(model.transform(X), halves, atol=1e-10)
    middle = model.set_params(n_windows=1).transform(X)
    np.testing.assert_allclose(
        middle, model.transform([x[10:30] for x in X]), atol=1e-10
    )
    attention = model.set_params(n_windows=5).attention(X, average=False)
    assert attention[0].shape == (5, 1, 2, R, R)


def test_a_short_scan_is_padded_without_a_trace():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(t, R)) for t in (15, 40, 28)]
    model = BrainSymphonyEmbedder(**TINY, dtype="float64").fit(X)
    together = model.transform(X)
    alone = np.concatenate([model.transform([x]) for x in X])
    np.testing.assert_allclose(together, alone, atol=1e-10)
    shapes = [x.shape for x in model.reconstruct(X)]
    assert shapes == [(15, R), (40, R), (28, R)]


def test_random_crops_are_drawn_anew_in_every_epoch():
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 4}, window=10).fit(X)
    assert model.history_["train_loss"].nunique() == 4


@each_estimator
def test_one_scan_is_enough_for_pretraining_and_regression(kind):
    X, y = make_data()
    if kind is BrainSymphonyClassifier:
        X, y = X.iloc[:2], [0, 1]
    else:
        X, y = X.iloc[:1], [3.0]
    model = kind(**TINY | {"validation_fraction": 0.5}).fit(X, y)
    assert model.n_iter_ == 3
    assert np.isfinite(output(model, X)).all()


@pytest.mark.parametrize("dtype", ["auto", "float32", "float64", "bfloat16"])
def test_every_precision_trains(dtype):
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 15}, dtype=dtype).fit(X, y)
    assert model.history_["train_loss"].iloc[-1] < model.history_["train_loss"].iloc[0]
    expected = torch.float64 if dtype == "float64" else torch.float32
    assert {p.dtype for p in model.net_.module_.parameters()} == {expected}
    assert model.predict_proba(X).dtype == np.float64
