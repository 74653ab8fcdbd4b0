"""Removal of confounds and sites: what it recovers, and what it may not know."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bsym_sklearn.analysis.combat import ComBat, shrunk_effects
from bsym_sklearn.analysis.confounds import AdjustedTransformer, ConfoundRegressor
from bsym_sklearn.exceptions import BrainDataError

N, F = 90, 12


class RegressorOfNothing(ConfoundRegressor):
    """Feeds scikit-learn's checks, which know no metadata, a constant confound."""

    def fit(self, X, y=None):
        return super().fit(X, y, confounds=_no_confound(X))

    def transform(self, X):
        return super().transform(X, confounds=_no_confound(X))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)


class ComBatOfNewSites(ComBat):
    """Fits two sites in turn, and takes every scan as one of an average site."""

    def fit(self, X, y=None):
        return super().fit(X, y, sites=np.arange(_n_rows(X)) % 2)

    def transform(self, X):
        return super().transform(X, sites=np.full(_n_rows(X), 9))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)


def _n_rows(X):
    return X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))


def _no_confound(X):
    return np.zeros(_n_rows(X))


def cannot_pass(estimator):
    if isinstance(estimator, ComBat):
        return {"check_fit2d_1sample": "counts scans of a site in its own words"}
    return {}


@parametrize_with_checks(
    [RegressorOfNothing(), ComBatOfNewSites(unseen_sites="pooled")],
    expected_failed_checks=cannot_pass,
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def confounds(rng):
    return pd.DataFrame(
        {
            "age": rng.uniform(20, 80, N),
            "site": np.array(["oslo", "rome", "york"])[np.arange(N) % 3],
            "sex": rng.random(N) < 0.5,
        }
    )


@pytest.fixture
def sites():
    return np.array(["a", "b", "c"])[np.arange(N) % 3]


@pytest.fixture
def shifted(rng, sites):
    """Features whose mean and spread depend on the site."""
    shift = {"a": 0.0, "b": 2.0, "c": -1.0}
    spread = {"a": 1.0, "b": 2.0, "c": 0.5}
    means = rng.normal(size=F)
    noise = rng.normal(size=(N, F))
    return (
        means
        + noise * np.array([spread[s] for s in sites])[:, None]
        + np.array([shift[s] for s in sites])[:, None]
    )


# ------------------------------------------------------------ ConfoundRegressor


def test_known_effects_are_removed(rng, confounds):
    signal = rng.normal(size=(N, F))
    one_hot = pd.get_dummies(confounds, columns=["site"]).to_numpy(dtype=float)
    X = signal + one_hot @ rng.normal(size=(one_hot.shape[1], F))
    cleaned = ConfoundRegressor().fit_transform(X, confounds=confounds)
    expected = LinearRegression().fit(one_hot, X)
    np.testing.assert_allclose(cleaned - X.mean(0), X - expected.predict(one_hot))
    np.testing.assert_allclose(cleaned.mean(0), X.mean(0))
    assert abs(np.corrcoef(cleaned.T, confounds["age"])[-1, :-1]).max() < 1e-9


def test_effects_come_from_the_training_rows_only(rng, confounds):
    X = rng.normal(size=(N, F)) + confounds["age"].to_numpy()[:, None]
    train, test = np.arange(60), np.arange(60, N)
    model = ConfoundRegressor().fit(X[train], confounds=confounds.iloc[train])
    before = model.transform(X[test], confounds=confounds.iloc[test])
    one_hot = pd.get_dummies(confounds, columns=["site"]).to_numpy(dtype=float)
    reference = LinearRegression().fit(one_hot[train], X[train])
    expected = X[test] - reference.predict(one_hot[test]) + X[train].mean(0)
    np.testing.assert_allclose(before, expected)
    alone = [model.transform(X[[i]], confounds=confounds.iloc[[i]])[0] for i in test]
    np.testing.assert_allclose(alone, before)


def test_effect_on_test_rows_is_recovered(rng):
    age = rng.uniform(20, 80, 400)
    X = rng.normal(size=(400, 3)) + 0.5 * age[:, None]
    model = ConfoundRegressor().fit(X[:200], confounds=age[:200])
    cleaned = model.transform(X[200:], confounds=age[200:])
    assert abs(np.corrcoef(cleaned.T, age[200:])[-1, :-1]).max() < 0.2
    np.testing.assert_allclose(model.coefficients_, [[0.5] * 3], atol=0.02)


def test_units_of_a_confound_do_not_matter(rng):
    X, motion = rng.normal(size=(N, F)), rng.random((N, 2))
    one = ConfoundRegressor().fit_transform(X, confounds=motion)
    other = ConfoundRegressor().fit_transform(X, confounds=motion * [1e9, 1e-9])
    np.testing.assert_allclose(one, other, atol=1e-8)


def test_constant_and_repeated_confounds_change_nothing(rng):
    X, age = rng.normal(size=(N, F)), rng.uniform(20, 80, N)
    many = np.column_stack([age, age, np.full(N, 0.1)])
    np.testing.assert_allclose(
        ConfoundRegressor().fit_transform(X, confounds=many),
        ConfoundRegressor().fit_transform(X, confounds=age),
    )


def test_new_category_is_named_or_gets_the_mean_effect(rng, confounds):
    X = rng.normal(size=(N, F))
    new = confounds.head(3).assign(site=["oslo", "bonn", "york"])
    model = ConfoundRegressor().fit(X, confounds=confounds)
    message = (
        r"ConfoundRegressor needs a 'site' that was in training\. Got 'bonn', first in "
        r"scan 1\. Leave the scan out"
    )
    with pytest.raises(BrainDataError, match=message):
        model.transform(X[:3], confounds=new)
    pooled = ConfoundRegressor(unseen="pooled").fit(X, confounds=confounds)
    each = [
        pooled.transform(X[[1]], confounds=new.iloc[[1]].assign(site=site))[0]
        for site in ("oslo", "rome", "york")
    ]
    got = pooled.transform(X[:3], confounds=new)
    np.testing.assert_allclose(got[1], np.mean(each, axis=0))
    np.testing.assert_allclose(
        got[[0, 2]], model.transform(X[[0, 2]], confounds=confounds.iloc[[0, 2]])
    )


def test_missing_confound_is_named(rng, confounds):
    confounds.loc[4, "age"] = np.nan
    with pytest.raises(BrainDataError, match="needs 'age' in every row"):
        ConfoundRegressor().fit(rng.normal(size=(N, F)), confounds=confounds)


def test_other_columns_than_in_fit_are_refused(rng, confounds):
    X = rng.normal(size=(N, F))
    model = ConfoundRegressor().fit(X, confounds=confounds)
    with pytest.raises(ValueError, match=r"needs the same columns\. Got \['age'\]"):
        model.transform(X, confounds=confounds[["age"]])


def test_confounds_of_another_length_are_refused(rng):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ConfoundRegressor().fit(rng.normal(size=(N, F)), confounds=np.ones(N - 1))


def test_unknown_option_is_refused(rng):
    with pytest.raises(ValueError, match="`unseen` must be one of"):
        ConfoundRegressor(unseen="skip").fit(rng.normal(size=(4, 2)), confounds=[1] * 4)


def test_transform_before_fit_says_so():
    with pytest.raises(NotFittedError):
        ConfoundRegressor().transform(np.ones((1, 2)), confounds=[1])


def test_pipelines_route_the_confounds(rng, confounds):
    X = rng.normal(size=(N, F)) + confounds["age"].to_numpy()[:, None]
    y = rng.normal(size=N)
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(StandardScaler(), ConfoundRegressor(), Ridge())
        pipe.fit(X[:60], y[:60], confounds=confounds[:60])
        got = pipe.predict(X[60:], confounds=confounds[60:])
        scores = cross_val_score(pipe, X, y, params={"confounds": confounds}, cv=3)
    scaler = StandardScaler().fit(X[:60])
    adjust = ConfoundRegressor()
    train = adjust.fit_transform(scaler.transform(X[:60]), confounds=confounds[:60])
    test = adjust.transform(scaler.transform(X[60:]), confounds=confounds[60:])
    np.testing.assert_allclose(got, Ridge().fit(train, y[:60]).predict(test))
    assert np.isfinite(scores).all()


# ----------------------------------------------------------------------- ComBat


def direct_combat(X, sites, covariates=None):
    """ComBat feature by feature and site by site, from the equations."""
    names = sorted(set(sites))
    one_hot = np.array([[float(s == name) for name in names] for s in sites])
    kept = np.zeros((len(X), 0)) if covariates is None else covariates
    beta = np.linalg.pinv(np.hstack([one_hot, kept])) @ X
    alpha = one_hot.mean(0) @ beta[: len(names)]
    fixed = alpha + kept @ beta[len(names) :]
    sigma = np.sqrt(((X - np.hstack([one_hot, kept]) @ beta) ** 2).mean(0))
    Z = (X - fixed) / sigma
    out = np.empty_like(X)
    for name in names:
        rows = np.array([s == name for s in sites])
        z, n = Z[rows], rows.sum()
        g_hat, d_hat = z.mean(0), z.var(0, ddof=1)
        tau, m, v = g_hat.var(ddof=1), d_hat.mean(), d_hat.var(ddof=1)
        lam, theta = m**2 / v + 2, m**3 / v + m
        for f in range(X.shape[1]):
            g, d = g_hat[f], d_hat[f]
            for _ in range(500):
                g = (n * tau * g_hat[f] + d * g_hat.mean()) / (n * tau + d)
                d = (theta + 0.5 * ((z[:, f] - g) ** 2).sum()) / (n / 2 + lam - 1)
            out[rows, f] = sigma[f] / np.sqrt(d) * (z[:, f] - g) + fixed[rows, f]
    return out


def test_combat_equals_the_equations(shifted, sites):
    np.testing.assert_allclose(
        ComBat().fit_transform(shifted, sites=sites),
        direct_combat(shifted, sites),
        atol=1e-6,
    )


def test_combat_with_covariates_equals_the_equations(rng, shifted, sites):
    age = rng.uniform(20, 80, (N, 1))
    X = shifted + 0.05 * age
    np.testing.assert_allclose(
        ComBat().fit_transform(X, sites=sites, covariates=age),
        direct_combat(X, sites, age - age.mean()),
        atol=1e-6,
    )


def test_combat_removes_shifts_and_spreads(rng):
    sites = np.repeat(["a", "b"], 200)
    X = rng.normal(size=(400, F))
    X[200:] = 3 * X[200:] + 5
    out = ComBat().fit_transform(X, sites=sites)
    assert abs(out[:200].mean(0) - out[200:].mean(0)).max() < 0.3
    assert abs(out[:200].mean() - out[200:].mean()) < 0.01
    ratio = out[200:].std(0) / out[:200].std(0)
    assert abs(ratio - 1).max() < 0.1


def test_combat_harmonises_new_scans_of_known_sites(rng):
    sites = np.tile(["a", "b"], 200)
    X = rng.normal(size=(400, F))
    X[1::2] = 3 * X[1::2] + 5
    model = ComBat().fit(X[:200], sites=sites[:200])
    out = model.transform(X[200:], sites=sites[200:])
    assert abs(out[::2].mean(0) - out[1::2].mean(0)).max() < 0.9
    assert abs(out[::2].mean() - out[1::2].mean()) < 0.15
    alone = [model.transform(X[[i]], sites=sites[[i]])[0] for i in range(200, 210)]
    np.testing.assert_allclose(alone, out[:10])


def test_combat_keeps_the_covariate_that_it_is_told_of(rng):
    age = rng.uniform(20, 80, N)
    sites = np.where(age + rng.normal(0, 10, N) > 50, "old", "young")
    X = rng.normal(size=(N, F)) + 0.1 * age[:, None]
    kept = ComBat().fit_transform(X, sites=sites, covariates=age)
    lost = ComBat().fit_transform(X, sites=sites)
    slopes = [np.polyfit(age, out.mean(1), 1)[0] for out in (kept, lost)]
    assert slopes[0] == pytest.approx(0.1, abs=0.02)
    assert slopes[1] < 0.06


def test_small_sites_are_shrunk_more(rng):
    few, many = rng.normal(size=(3, 200)), rng.normal(size=(60, 200))
    for rows in (few, many):
        rows += rng.normal(0, 0.3, 200)
    pull = []
    for rows in (few, many):
        gamma, _ = shrunk_effects(rows)
        pull.append(gamma.std() / rows.mean(0).std())
    assert pull[0] < pull[1] < 1


def test_one_feature_is_not_shrunk(shifted, sites):
    out = ComBat().fit_transform(shifted[:, :1], sites=sites)[:, 0]
    means = [out[sites == s].mean() for s in "abc"]
    np.testing.assert_allclose(means, [means[0]] * 3)
    spread = [out[sites == s].std() for s in "abc"]
    np.testing.assert_allclose(spread, [spread[0]] * 3)


def test_constant_features_stay_as_they_are(shifted, sites):
    X = np.column_stack([shifted, np.full(N, 7.0)])
    out = ComBat().fit_transform(X, sites=sites)
    assert (out[:, -1] == 7).all()
    np.testing.assert_allclose(
        out[:, :-1], ComBat().fit_transform(shifted, sites=sites)
    )


def test_unseen_site_is_named_or_left_as_it_is(shifted, sites):
    new = np.array(["a", "z"])
    model = ComBat().fit(shifted, sites=sites)
    with pytest.raises(
        BrainDataError,
        match=r"'site' that was in training\. Got 'z', first in scan 1",
    ):
        model.transform(shifted[:2], sites=new)
    pooled = ComBat(unseen_sites="pooled").fit(shifted, sites=sites)
    out = pooled.transform(shifted[:2], sites=new)
    np.testing.assert_allclose(out[1], shifted[1])
    np.testing.assert_allclose(out[0], model.transform(shifted[:1], sites=new[:1])[0])


def test_sites_are_checked(shifted, sites):
    with pytest.raises(BrainDataError, match="Got 1 sites"):
        ComBat().fit(shifted, sites=["a"] * N)
    with pytest.raises(BrainDataError, match=r"4 sites, and 1 of 'z'\. Leave"):
        ComBat().fit(shifted, sites=["z", *sites[1:]])
    missing = sites.astype(object)
    missing[3] = None
    with pytest.raises(BrainDataError, match=r"Got none, first in scan 3\."):
        ComBat().fit(shifted, sites=missing)


def test_covariate_that_follows_from_the_site_is_refused(shifted, sites):
    scanner = np.where(sites == "a", "GE", "Siemens")
    with pytest.raises(BrainDataError, match="covariates that vary within sites"):
        ComBat().fit(shifted, sites=sites, covariates=scanner)


def test_covariates_in_fit_and_transform_go_together(rng, shifted, sites):
    age = rng.uniform(20, 80, N)
    model = ComBat().fit(shifted, sites=sites, covariates=age)
    with pytest.raises(ValueError, match="Got them in fit only"):
        model.transform(shifted, sites=sites)
    model = ComBat().fit(shifted, sites=sites)
    with pytest.raises(ValueError, match="Got them in transform only"):
        model.transform(shifted, sites=sites, covariates=age)


def test_combat_in_a_pipeline_is_fitted_on_the_fold(shifted, sites):
    y = np.arange(N) % 2
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(ComBat(), LogisticRegression())
        scores = cross_val_score(pipe, shifted, y, params={"sites": sites}, cv=3)
    assert scores.shape == (3,)


# ---------------------------------------------------------- AdjustedTransformer


@pytest.fixture
def table(shifted, sites, confounds):
    X = pd.DataFrame(shifted, columns=[f"x{i}" for i in range(F)])
    return X.assign(place=sites, age=confounds["age"])


def select(X):
    return X[[f"x{i}" for i in range(F)]]


@pytest.mark.parametrize(
    ("adjustment", "columns"),
    [
        (ConfoundRegressor(), {"confounds": ["age", "place"]}),
        (ComBat(), {"sites": "place", "covariates": ["age"]}),
    ],
)
def test_columns_of_x_become_metadata(adjustment, columns, table):
    model = AdjustedTransformer(FunctionTransformer(select), adjustment, columns)
    metadata = {key: table[name] for key, name in columns.items()}
    expected = clone(adjustment).fit_transform(select(table), **metadata)
    np.testing.assert_allclose(model.fit_transform(table), expected)
    np.testing.assert_allclose(clone(model).fit(table).transform(table), expected)


def test_any_scorer_and_search_work_without_routing(table):
    y = np.arange(N) % 2
    model = AdjustedTransformer(
        FunctionTransformer(select), ComBat(), {"sites": "place"}
    )
    pipe = make_pipeline(model, LogisticRegression())
    search = GridSearchCV(
        pipe,
        {"adjustedtransformer__adjustment__unseen_sites": ["error", "pooled"]},
        scoring="roc_auc",
        cv=3,
    ).fit(table, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pandas_output_keeps_names_and_rows(table):
    inner = FunctionTransformer(select, feature_names_out=lambda _, __: names)
    names = np.array([f"x{i}" for i in range(F)])
    columns = {"confounds": ["age"]}
    model = AdjustedTransformer(inner, ConfoundRegressor(), columns)
    out = model.set_output(transform="pandas").fit_transform(table.iloc[::-1])
    assert list(out.columns) == list(names)
    assert out.index.equals(table.index[::-1])


def test_sites_may_be_a_table_of_one_column(table):
    adjusted = [
        AdjustedTransformer(FunctionTransformer(select), ComBat(), {"sites": name})
        for name in ("place", ["place"])
    ]
    one, other = (model.fit_transform(table) for model in adjusted)
    np.testing.assert_array_equal(one, other)


def test_missing_column_is_named(table):
    model = AdjustedTransformer(
        FunctionTransformer(select), ComBat(), {"sites": "site"}
    )
    with pytest.raises(BrainDataError, match="needs column 'site' in X"):
        model.fit(table)
    with pytest.raises(BrainDataError, match=r"Got ndarray\. Pass"):
        model.fit(np.ones((3, 2)))


def test_equal_rows_of_a_site_stay_finite(rng) -> None:
    X, sites = rng.normal(size=(10, 3)), np.repeat(["a", "b"], 5)
    X[sites == "b"] = X[5]
    adjusted = ComBat().fit(X, sites=sites).transform(X, sites=sites)
    assert np.isfinite(adjusted).all()
