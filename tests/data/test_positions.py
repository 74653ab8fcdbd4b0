"""Positions from gradients of connectivity."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from bsym_sklearn.data import (
    GradientCoordinates,
    RegionScaler,
    check_cohort,
    load_cohort,
    make_cohort,
)
from bsym_sklearn.data.atlases import load_atlas
from bsym_sklearn.data.positions import (
    _diffusion_map,
    _profiles,
    connectivity_gradients,
)
from bsym_sklearn.exceptions import BrainDataError

R = 20


@pytest.fixture
def X(rng):  # noqa: N802
    """Four scans of regions on a line: neighbours share most of their signal."""
    lines = []
    for _ in range(4):
        sources = rng.normal(size=(120, R + 4))
        lines.append(
            sum(sources[:, k : k + R] for k in range(5)) + rng.normal(size=(120, R))
        )
    return lines


def test_first_gradient_follows_the_axis_along_which_regions_are_connected(X):
    gradients = GradientCoordinates(n_components=2).fit(X)
    first = gradients.coordinates_[:, 0]
    order = np.abs(np.corrcoef(first, np.arange(R))[0, 1])
    assert order > 0.9
    assert (np.diff(gradients.lambdas_) < 0).all()
    assert 0 < gradients.lambdas_[0] < 1


def test_coordinates_solve_the_eigenproblem_of_the_diffusion(X):
    gradients = GradientCoordinates(n_components=3, alpha=0.5).fit(X)
    angle = np.arccos(np.clip(gradients.profiles_ @ gradients.profiles_.T, -1, 1))
    affinity = 1 - angle / np.pi
    density = affinity.sum(1)
    affinity = affinity / np.sqrt(np.outer(density, density))
    walk = affinity / affinity.sum(1, keepdims=True)
    np.testing.assert_allclose(
        walk @ gradients.coordinates_,
        gradients.lambdas_ * gradients.coordinates_,
        atol=1e-12,
    )


def test_each_region_keeps_its_strongest_positive_connections(X):
    for sparsity, kept in ((0.9, 2), (0.5, 10), (0.0, 19)):
        profiles = (
            GradientCoordinates(n_components=1, sparsity=sparsity).fit(X).profiles_
        )
        assert (profiles >= 0).all()
        assert ((profiles > 0).sum(1) <= kept).all()
        np.testing.assert_allclose(np.linalg.norm(profiles, axis=1), 1)
        assert not np.diag(profiles).any()


def test_training_connectivity_lands_on_the_coordinates_of_the_group(X):
    gradients = GradientCoordinates(n_components=4).fit(X[:1])
    placed = gradients.transform(X[:1]).reshape(R, 4)
    np.testing.assert_allclose(placed, gradients.coordinates_, atol=1e-10)


def test_each_scan_is_placed_near_the_group_and_by_itself(X):
    gradients = GradientCoordinates(n_components=2).fit(X)
    together = gradients.transform(X)
    assert together.shape == (4, R * 2)
    np.testing.assert_allclose(gradients.transform(X[2:3])[0], together[2], atol=1e-12)
    for row in together:
        first = row.reshape(R, 2)[:, 0]
        assert np.corrcoef(first, gradients.coordinates_[:, 0])[0, 1] > 0.8


def test_signs_and_results_do_not_depend_on_scale_order_or_repetition(X):
    gradients = GradientCoordinates(n_components=5).fit(X)
    for changed in (X[::-1], [7 * x + 3 for x in X], X + X):
        again = GradientCoordinates(n_components=5).fit(changed)
        np.testing.assert_allclose(
            again.coordinates_, gradients.coordinates_, atol=1e-9
        )
    largest = np.abs(gradients.coordinates_).argmax(0)
    assert (gradients.coordinates_[largest, range(5)] > 0).all()


def test_permuting_regions_permutes_the_coordinates(X, rng):
    order = rng.permutation(R)
    gradients = GradientCoordinates(n_components=3).fit(X)
    permuted = GradientCoordinates(n_components=3).fit([x[:, order] for x in X])
    np.testing.assert_allclose(
        permuted.coordinates_, gradients.coordinates_[order], atol=1e-9
    )


def test_constant_regions_raise_or_count_as_unconnected(X):
    X[1][:, 3] = 2.0
    with pytest.raises(BrainDataError, match=r"constant region 3, first in scan 1"):
        GradientCoordinates().fit(X)
    gradients = GradientCoordinates(n_components=2, constant_regions="mask").fit(X)
    assert np.isfinite(gradients.coordinates_).all()
    assert np.isfinite(gradients.transform(X)).all()
    for x in X:
        x[:, 3] = 2.0
    gradients.fit(X)
    assert not gradients.profiles_[3].any()
    assert np.isfinite(gradients.coordinates_).all()


def test_names_carry_region_labels_and_frames_work(X):
    frame = pd.DataFrame({"fmri": X, "age": [1, 2, 3, 4]}, index=list("abcd"))
    gradients = GradientCoordinates(n_components=2).set_output(transform="pandas")
    assert gradients.fit_transform(frame).columns[3] == "region1_gradient2"
    frame.attrs["regions"] = pd.DataFrame({"label": [f"L{i}" for i in range(R)]})
    placed = gradients.fit_transform(frame)
    assert placed.columns[0] == "L0_gradient1"
    assert placed.index.tolist() == list("abcd")


def test_rows_without_fmri_are_left_out_of_fit_and_refused_in_transform():
    data = make_cohort(n_scans=6, missing_fmri=0.3).data
    gradients = GradientCoordinates(n_components=2).fit(data)
    present = data[data["fmri"].notna()]
    same = GradientCoordinates(n_components=2).fit(present)
    np.testing.assert_array_equal(same.coordinates_, gradients.coordinates_)
    with pytest.raises(BrainDataError, match="needs 'fmri' in every row"):
        gradients.transform(data)
    with pytest.raises(BrainDataError, match="needs 'fmri' in at least one row"):
        gradients.fit(data.drop(columns="fmri").dropna())


def test_bad_sizes_and_parameters_are_refused(X):
    with pytest.raises(BrainDataError, match=r"Got 20 regions for n_components=20"):
        GradientCoordinates(n_components=R).fit(X)
    assert GradientCoordinates(n_components=R - 1).fit(X).coordinates_.shape[1] == R - 1
    for parameters in ({"n_components": 0}, {"sparsity": 1.0}, {"alpha": -0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(parameters))} must be"):
            GradientCoordinates(**parameters).fit(X)
    with pytest.raises(BrainDataError, match=r"Got a 2-D X"):
        GradientCoordinates(n_components=2).fit(X[0][:40])
    with pytest.raises(BrainDataError, match="at least 3 time points"):
        GradientCoordinates().fit([x[:2] for x in X])
    fitted = GradientCoordinates(n_components=2).fit(X)
    with pytest.raises(BrainDataError, match=r"needs scans of 20 regions, as in fit"):
        fitted.transform([x[:, :5] for x in X])
    with pytest.raises(NotFittedError):
        GradientCoordinates().transform(X)
    with pytest.raises(NotFittedError):
        GradientCoordinates().get_feature_names_out()


def test_api(X):
    gradients = GradientCoordinates(n_components=2)
    name = "GradientCoordinates"
    check_no_attributes_set_in_init(name, gradients)
    check_parameters_default_constructible(name, gradients)
    check_get_params_invariance(name, gradients)
    check_set_params(name, gradients)
    placed = clone(gradients).fit_transform(X)
    fitted = gradients.fit(check_cohort(X))
    assert fitted.n_features_in_ == R
    loaded = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    np.testing.assert_array_equal(loaded.transform(X), placed)
    assert len(fitted.get_feature_names_out()) == placed.shape[1]


def test_gradients_work_inside_cross_validation():
    cohort = make_cohort(n_scans=16, effect=3.0, unequal=True)
    pipeline = make_pipeline(
        RegionScaler(), GradientCoordinates(n_components=3), LogisticRegression()
    )
    assert cross_val_score(pipeline, cohort.data, cohort.target, cv=4).mean() > 0.6


def test_group_gradient_of_real_scans_runs_from_sensory_to_default_regions(shared):
    data = load_cohort(shared / "data" / "schaefer419")
    cohort = check_cohort(data).take(range(0, 92, 4))
    scans = [cohort.read_fmri(i)[:, :400] for i in range(len(cohort))]
    networks = data.attrs["regions"]["network7"][:400]
    first = pd.Series(GradientCoordinates().fit(scans).coordinates_[:, 0])
    means = first.groupby(networks).mean()
    assert np.sign(means["Default"]) == -np.sign(means["SomMot"])
    ends = means.abs().sort_values()
    assert {"Default", "SomMot"} <= set(ends.index[-4:])


def test_diffusion_map_gives_the_published_range_of_the_principal_gradient(shared):
    """../shared/data/atlas/README.md: from SomMot -7.5 to Default +6.9 (cosines)."""
    folder = shared / "data"
    with np.load(folder / "group_schaefer400" / "group_bsd.npz") as file:
        correlation = file["fc_brainspace_main"].astype(float)
    np.fill_diagonal(correlation, 1)
    profiles = _profiles(correlation, 0.9)
    affinity = profiles @ profiles.T
    density = affinity.sum(1) ** -0.5
    values, vectors = _diffusion_map(affinity * np.outer(density, density), 1)
    first = pd.Series(vectors[:, 0] * values[0] / (1 - values[0]))
    networks = load_cohort(folder / "schaefer419").attrs["regions"]["network7"][:400]
    means = first.groupby(networks).mean()
    assert means["SomMot"] == pytest.approx(-7.5, abs=0.05)
    assert means["Default"] == pytest.approx(6.9, abs=0.05)


# Spectral positions.


def make_sc(rng, n_regions=8):
    upper = np.triu(rng.uniform(size=(n_regions, n_regions)), 1)
    return upper + upper.T


def test_gradients_of_a_matrix_are_those_of_the_scans_it_came_from(rng):
    X = rng.normal(size=(4, 50, 12)) + rng.normal(size=(4, 50, 1))
    z = np.mean([np.arctanh(np.corrcoef(x.T) - np.eye(12)) for x in X], axis=0)
    fitted = GradientCoordinates(n_components=3).fit(X)
    np.testing.assert_allclose(
        connectivity_gradients(z, n_components=3), fitted.coordinates_, atol=1e-10
    )


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((3, 4)), r"a square matrix\. Got shape \(3, 4\)"),
        (np.arange(9.0).reshape(3, 3), "finite and symmetric"),
        (np.where(np.eye(3)[::-1], np.nan, 1.0), "finite and symmetric"),
        (np.ones((3, 3)), "more regions than gradients. Got 3 regions"),
    ],
)
def test_a_matrix_without_gradients_is_told(matrix, message):
    with pytest.raises(BrainDataError, match=message):
        connectivity_gradients(matrix, n_components=3)


def test_the_first_gradient_of_the_cortex_leads_from_senses_to_default(shared):
    matrices = np.load(shared / "data/group_schaefer400/group_bsd.npz")
    networks = load_atlas("schaefer+tian")["network"].to_numpy()[50:]
    first = connectivity_gradients(matrices["fc_brainspace_main"], n_components=1)[:, 0]
    means = {name: abs(first[networks == name].mean()) for name in set(networks)}
    default, senses = first[networks == "Default"], first[networks == "SomMot"]
    assert np.sign(np.median(default)) != np.sign(np.median(senses))
    assert sorted(means, key=means.get)[-2:] == ["SomMot", "Default"]
