"""Features of scans: what they are, for one scan too, and for rows without it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nilearn.connectome import ConnectivityMeasure
from sklearn.base import clone
from sklearn.pipeline import FeatureUnion
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.helper import SliceDict

from bsym_sklearn import (
    BrainDataError,
    ConfoundFeatures,
    ConnectivityFeatures,
    ConnectomeFeatures,
    RegionAmplitude,
)
from bsym_sklearn.data import check_cohort
from bsym_sklearn.estimators.features import CHUNK, KINDS

R = 6
EDGES = R * (R - 1) // 2
each_kind = pytest.mark.parametrize("kind", KINDS)
TRANSFORMERS = [
    *(ConnectivityFeatures(kind) for kind in KINDS),
    RegionAmplitude(),
    ConnectomeFeatures(),
]


@parametrize_with_checks(TRANSFORMERS)
def test_transformer_passes_sklearns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@each_kind
def test_connectivity_is_that_of_nilearn(kind: str, cohort: Bunch) -> None:
    series = [np.float64(x) for x in cohort.data["fmri"]]
    measure = ConnectivityMeasure(
        kind=kind,
        vectorize=True,
        discard_diagonal=kind in ("correlation", "partial correlation"),
        standardize=False if kind == "covariance" else "zscore_sample",
    )
    expected = measure.fit_transform(series)
    if kind in ("correlation", "partial correlation"):
        expected = np.arctanh(expected)
    features = ConnectivityFeatures(kind).fit_transform(cohort.data)
    np.testing.assert_allclose(features, expected)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
def test_one_scan_has_the_features_that_it_has_among_others(
    transformer: Any, cohort: Bunch
) -> None:
    fitted = clone(transformer).fit(cohort.data)
    together = fitted.transform(cohort.data)
    assert together.shape == (12, len(fitted.get_feature_names_out()))
    for i in (0, 11):
        alone = fitted.transform(cohort.data.iloc[[i]])
        np.testing.assert_allclose(alone, together[[i]], rtol=1e-10, atol=1e-12)


def test_many_scans_are_computed_in_parts(rng: np.random.Generator) -> None:
    X = rng.normal(size=(CHUNK + 1, 20, 3))
    tangent = ConnectivityFeatures("tangent").fit(X)
    features = tangent.transform(X)
    assert features.shape == (CHUNK + 1, 6)
    np.testing.assert_allclose(features[-1:], tangent.transform(X[-1:]), rtol=1e-8)


def test_tangent_vectors_refer_to_the_scans_of_fit_alone(cohort: Bunch) -> None:
    X = cohort.data
    on_some = ConnectivityFeatures("tangent").fit(X[:6]).transform(X[6:])
    on_all = ConnectivityFeatures("tangent").fit(X).transform(X[6:])
    assert not np.allclose(on_some, on_all)
    changed = X.copy()
    changed["fmri"] = [*X["fmri"][:6], *(x[::-1] * 2 for x in X["fmri"][6:])]
    of_changed = ConnectivityFeatures("tangent").fit(changed[:6])
    np.testing.assert_array_equal(of_changed.transform(X[6:]), on_some)


def test_tangent_of_one_scan_in_fit_is_refused(cohort: Bunch) -> None:
    with pytest.raises(BrainDataError, match=r"at least 2 rows .* Got 1\. Fit it on"):
        ConnectivityFeatures("tangent").fit(cohort.data[:1])


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
def test_rows_without_the_modality_are_missing(transformer: Any, cohort: Bunch) -> None:
    column = "sc" if isinstance(transformer, ConnectomeFeatures) else "fmri"
    X = cohort.data.copy()
    X[column] = [None if i in (0, 4) else x for i, x in enumerate(X[column])]
    features = clone(transformer).fit_transform(X)
    missing = np.isnan(features)
    assert missing[[0, 4]].all()
    assert not np.delete(missing, [0, 4], axis=0).any()
    with pytest.raises(BrainDataError, match=f"needs '{column}' in at least one row"):
        clone(transformer).fit(X.iloc[[0, 4]])
    fitted = clone(transformer).fit(X)
    with pytest.raises(BrainDataError, match=f"needs '{column}'. Got an X without it"):
        fitted.transform(X.drop(columns=column))


def test_the_order_and_names_of_edges_are_those_of_both_modalities(
    cohort: Bunch,
) -> None:
    X = cohort.data
    X.attrs["regions"] = pd.DataFrame({"label": list("abcdef")})
    connectivity = ConnectivityFeatures().fit(X)
    connectome = ConnectomeFeatures().fit(X)
    names = connectivity.get_feature_names_out()
    assert list(names[:3]) == ["b - a", "c - a", "c - b"]
    np.testing.assert_array_equal(names, connectome.get_feature_names_out())
    weight = X["sc"][0][2, 0]
    edge = connectome.transform(X)[0, 1]
    np.testing.assert_allclose(edge, np.log1p(weight), rtol=1e-6)
    with_diagonal = ConnectivityFeatures("tangent").fit(X).get_feature_names_out()
    assert list(with_diagonal[:2]) == ["a - a", "b - a"]
    assert list(RegionAmplitude().fit(X).get_feature_names_out()) == list("abcdef")


def test_signed_weights_keep_their_sign() -> None:
    sc = np.array([[0, -3.0], [-3.0, 0]])
    assert ConnectomeFeatures().fit_transform([sc])[0, 0] == -np.log(4)


def test_amplitude_is_the_log_of_the_deviation_and_missing_without_one(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(50, 3)) * [1, np.e, 0]
    features = RegionAmplitude().fit_transform([x])
    np.testing.assert_allclose(features[0, :2], np.log(x[:, :2].std(0)))
    assert np.isnan(features[0, 2])


def test_a_constant_region_is_correlated_with_nothing(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(50, 3)) * [1, 1, 0]
    features = ConnectivityFeatures().fit_transform([x])
    assert features[0, 0] != 0
    np.testing.assert_allclose(features[0, 1:], 0)
    both = ConnectivityFeatures("tangent").fit_transform([x, x[::-1]])
    assert np.isfinite(both).all()


def test_all_forms_of_a_cohort_give_the_same_features(cohort: Bunch) -> None:
    frame = cohort.data[["fmri"]]
    expected = ConnectivityFeatures().fit_transform(frame)
    series = frame["fmri"].tolist()
    forms = [series, np.stack(series), SliceDict(fmri=frame["fmri"].to_numpy())]
    for X in (*forms, check_cohort(frame)):
        np.testing.assert_array_equal(ConnectivityFeatures().fit_transform(X), expected)


def test_a_table_comes_back_as_it_is_and_is_no_scan(cohort: Bunch) -> None:
    table = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(RegionAmplitude().fit_transform(table), table)
    with pytest.raises(BrainDataError, match=r"fitted on scans .* Got a 2-D table"):
        ConnectivityFeatures().fit(cohort.data).transform(np.zeros((4, R)))
    with pytest.raises(BrainDataError, match=r"fitted on a 2-D table .* Got scans"):
        ConnectivityFeatures().fit(np.eye(R)).transform(cohort.data)


def test_pandas_output_has_names_and_index(cohort: Bunch) -> None:
    X = cohort.data.set_index("participant_id", drop=False)
    union = FeatureUnion([("fc", ConnectivityFeatures()), ("sc", ConnectomeFeatures())])
    frame = union.set_output(transform="pandas").fit_transform(X)
    assert frame.shape == (12, 2 * EDGES)
    assert frame.columns[0] == "fc__region-2 - region-1"
    assert list(frame.index) == list(X.index)


def test_features_are_cloned_and_pickled(cohort: Bunch) -> None:
    tangent = ConnectivityFeatures("tangent").fit(cohort.data)
    copy = pickle.loads(pickle.dumps(tangent))  # noqa: S301  (our own bytes)
    np.testing.assert_array_equal(
        copy.transform(cohort.data), tangent.transform(cohort.data)
    )
    assert not hasattr(clone(tangent), "measure_")
    assert clone(tangent).kind == "tangent"


def test_unknown_kinds_are_named(cohort: Bunch) -> None:
    with pytest.raises(ValueError, match=r"`kind` must be one of .* Got 'plv'"):
        ConnectivityFeatures("plv").fit(cohort.data)


def test_confounds_are_filled_in_and_unseen_words_are_nothing() -> None:
    X = pd.DataFrame({"age": [10.0, 30.0, np.nan], "site": ["a", "b", None]})
    confounds = ConfoundFeatures(("age", "site")).fit(X)
    assert list(confounds.get_feature_names_out()) == [
        "age",
        "site_a",
        "site_b",
        "site_nan",
    ]
    np.testing.assert_array_equal(confounds.transform(X)[:, 0], [10, 30, 20])
    new = pd.DataFrame({"site": ["c", "a"], "age": [None, 5.0], "other": [1, 2]})
    np.testing.assert_array_equal(
        confounds.transform(new), [[20, 0, 0, 0], [5, 1, 0, 0]]
    )


def test_confounds_are_read_beside_the_scans(cohort: Bunch) -> None:
    X = cohort.data
    expected = ConfoundFeatures(["age"]).fit_transform(X)
    np.testing.assert_array_equal(expected[:, 0], X["age"])
    ages = SliceDict(fmri=X["fmri"].to_numpy(), age=X["age"].to_numpy())
    for form in (check_cohort(X), ages):
        np.testing.assert_array_equal(
            ConfoundFeatures(["age"]).fit_transform(form), expected
        )
    flags = pd.DataFrame({"left": [True, False]})
    assert ConfoundFeatures(["left"]).fit_transform(flags).shape == (2, 2)


def test_confounds_that_are_not_there_are_named(cohort: Bunch) -> None:
    with pytest.raises(BrainDataError, match="needs the column 'iq'"):
        ConfoundFeatures(["age", "iq"]).fit(cohort.data)
    with pytest.raises(BrainDataError, match=r"Got ndarray with \[\]"):
        ConfoundFeatures(["age"]).fit(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"at least one column\. Got none"):
        ConfoundFeatures([]).fit(cohort.data)
