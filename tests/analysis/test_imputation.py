from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bsym_sklearn.analysis.gaussian import choose_ridge, conditional_mean, moments
from bsym_sklearn.analysis.imputation import (
    GaussianProcess,
    LinearInterpolation,
    MeanEdges,
    RegionMean,
    RidgeRegions,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.exceptions import BrainDataError

SERIES = [RegionMean, LinearInterpolation, RidgeRegions, GaussianProcess]
N, R = 4, 6


@pytest.fixture(name="X")
def make_frame() -> pd.DataFrame:
    return make_cohort(N, R, 40, unequal=True).data


def points(scans, rng, share=0.3) -> list[np.ndarray]:
    return [rng.random(scan.shape) < share for scan in scans]


@pytest.mark.parametrize("kind", SERIES)
def test_nothing_hidden_is_read_and_what_is_visible_stays(kind, X, rng) -> None:
    model = kind(standardize=None).fit(X)  # else the scaling sees it, as in the models
    masks = points(X["fmri"], rng)
    masks[0][:, 2] = True  # a whole region
    masks[1][3] = True  # a whole time point
    other = X.assign(fmri=[x.copy() for x in X["fmri"]])
    for values, mask in zip(other["fmri"], masks, strict=True):
        values[mask] = rng.normal(size=mask.sum()) * 9
    first, second = (model.reconstruct(x, mask=masks) for x in (X, other))
    for a, b, scan, mask in zip(first, second, X["fmri"], masks, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[~mask], scan[~mask])
        assert np.isfinite(a).all()


@pytest.mark.parametrize("kind", [*SERIES, MeanEdges])
def test_imputers_are_estimators(kind, X) -> None:
    model = kind()
    modality = "sc" if kind is MeanEdges else "fmri"
    with pytest.raises(NotFittedError):
        model.reconstruct(X, modality=modality)
    model.fit(X)
    assert clone(model).get_params() == model.get_params()
    assert model.n_features_in_ == R
    other = "fmri" if kind is MeanEdges else "sc"
    with pytest.raises(ValueError, match=f"`modality` must be one of .*Got '{other}'"):
        model.reconstruct(X, modality=other)
    with pytest.raises(BrainDataError, match=f"needs {modality!r} in at least one"):
        kind().fit(X[[other]])
    with pytest.raises(ValueError, match=r"`mask` needs one entry per scan\. Got 1"):
        model.reconstruct(X, modality=modality, mask=[None])


@pytest.mark.parametrize("kind", SERIES)
def test_units_are_those_of_the_scaled_scans(kind, X) -> None:
    model = kind().fit(X)
    for scaled, filled, raw in zip(
        model.scaled(X), model.reconstruct(X), X["fmri"], strict=True
    ):
        expected = (raw - raw.mean(0)) / raw.std(0)
        np.testing.assert_allclose(scaled, expected)
        np.testing.assert_array_equal(filled, scaled)  # nothing was hidden


def test_scans_without_the_modality_are_passed_over() -> None:
    X = make_cohort(6, R, 30, missing_fmri=1 / 3, missing_sc=1 / 3).data
    series = LinearInterpolation().fit(X).reconstruct(X)
    assert [x is None for x in series] == X["fmri"].isna().tolist()
    model = MeanEdges().fit(X)
    edges = model.reconstruct(X, modality="sc", mask=[~np.eye(R, dtype=bool)] * 6)
    np.testing.assert_array_equal(np.isnan(edges).all((1, 2)), X["sc"].isna())
    present = model.scaled(X, "sc")[X["sc"].notna()]
    np.testing.assert_allclose(model.mean_, present.mean(0))
    np.testing.assert_allclose(edges[X["sc"].notna()][0], model.mean_)


def test_scans_are_resampled_to_the_repetition_time_of_fit(X) -> None:
    X = X.assign(t_r=[1.0, 1.0, 1.0, 2.0])
    model = GaussianProcess(t_r="t_r").fit(X)
    lengths = [len(x) for x in X["fmri"]]
    assert [len(x) for x in model.scaled(X)] == [*lengths[:3], 2 * lengths[3]]


def test_ridge_is_the_regression_of_the_hidden_on_the_visible(rng) -> None:
    scan = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 4)) + rng.normal(
        size=(500, 4)
    )
    model = RidgeRegions(alphas=[1e-9]).fit([scan])
    mask = np.zeros(scan.shape, bool)
    mask[:, [0, 2]] = True
    z = model.scaled([scan])[0]
    weights = np.linalg.lstsq(z[:, [1, 3]], z[:, [0, 2]], rcond=None)[0]
    filled = model.reconstruct([scan], mask=[mask])[0]
    np.testing.assert_allclose(filled[:, [0, 2]], z[:, [1, 3]] @ weights, atol=1e-6)


def test_every_time_point_may_have_its_own_hidden_regions(rng) -> None:
    covariance = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]])
    values = rng.normal(size=(8, 3))
    values[rng.random(values.shape) < 0.5] = np.nan
    filled = conditional_mean(values, covariance)
    for row, result in zip(values, filled, strict=True):
        v, h = ~np.isnan(row), np.isnan(row)
        expected = covariance[np.ix_(h, v)] @ np.linalg.solve(
            covariance[np.ix_(v, v)], row[v]
        )
        np.testing.assert_allclose(result[h], expected)


def test_the_ridge_is_larger_where_there_is_less_to_learn_from(rng) -> None:
    mixing = rng.normal(size=(8, 20))
    alphas = [1e-3, 1e-2, 1e-1, 1.0]

    def chosen(n: int) -> float:
        scans = [rng.normal(size=(n, 8)) @ mixing for _ in range(4)]
        noisy = [x + 2 * rng.normal(size=x.shape) for x in scans]
        return RidgeRegions(alphas=alphas).fit(noisy).alpha_

    assert chosen(12) > chosen(4000)
    with pytest.raises(ValueError, match=r"alphas must be above 0. Got \[0\]"):
        RidgeRegions(alphas=[0]).fit([rng.normal(size=(20, 3))])


def test_the_closed_form_of_the_ridge_error_is_that_of_leaving_regions_out(rng) -> None:
    parts = [rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)) for _ in range(2)]
    rows = [np.column_stack([np.ones(len(x)), x]) for x in parts]
    sums = [x.T @ x for x in rows]
    alphas = [1e-4, 1e-2, 1.0, 100.0]
    errors = []
    for alpha in alphas:
        error = 0.0
        for train, test in ((0, 1), (1, 0)):
            covariance = moments([sums[train]])[1]
            covariance = covariance + alpha * np.trace(covariance) / 5 * np.eye(5)
            x = parts[test] - parts[test].mean(0)
            for j in range(5):
                seen = x.copy()
                seen[:, j] = np.nan
                error += np.mean((conditional_mean(seen, covariance) - x)[:, j] ** 2)
        errors.append(error)
    assert choose_ridge(sums, np.arange(2), alphas) == alphas[int(np.argmin(errors))]


def test_a_gaussian_process_beats_straight_lines_on_what_it_knows(rng) -> None:
    noise = rng.normal(size=(6, 420, 3))
    X = [noise[i, 20:] * 0 for i in range(6)]
    for k in range(20):  # a moving average with an oscillation in it
        weight = np.cos(k) * 0.9**k
        X = [x + weight * noise[i, 20 - k : 420 - k] for i, x in enumerate(X)]
    masks = [np.broadcast_to(rng.random((400, 1)) < 0.3, (400, 3)) for _ in range(2)]
    error = {}
    for kind in (LinearInterpolation, GaussianProcess):
        model = kind().fit(X[:4])
        filled, truth = model.reconstruct(X[4:], mask=masks), model.scaled(X[4:])
        pairs = zip(filled, truth, masks, strict=True)
        error[kind] = np.mean([np.mean((a - b)[m] ** 2) for a, b, m in pairs])
    assert error[GaussianProcess] < 0.7 * error[LinearInterpolation]


def test_the_autocovariance_is_that_of_the_series(rng) -> None:
    scans = [rng.normal(size=(30, 2)), rng.normal(size=(20, 2))]
    model = GaussianProcess().fit(scans)
    z = model.scaled(scans)
    for lag in (0, 1, 25):
        products = [(x[lag:] * x[: max(len(x) - lag, 0)]).sum() / 2 for x in z]
        assert model.autocovariance_[lag] == pytest.approx(sum(products) / 50)
    long = rng.normal(size=(70, 2))  # longer than any scan of fit
    mask = np.zeros((70, 2), bool)
    mask[5:9] = True
    assert np.isfinite(model.reconstruct([long], mask=[mask])[0]).all()


def test_constant_regions_become_zero(X) -> None:
    X = X.assign(fmri=[x.copy() for x in X["fmri"]])
    for values in X["fmri"]:
        values[:, 1] = 3.0
    masks = [np.zeros(x.shape, bool) for x in X["fmri"]]
    for mask in masks:
        mask[:, 0] = True
    for kind in SERIES:
        filled = kind().fit(X).reconstruct(X, mask=masks)
        assert all(np.isfinite(x).all() and (x[:, 1] == 0).all() for x in filled)
