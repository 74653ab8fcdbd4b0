from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.embedding_maps import drift, nearest_scans, project
from bsym_sklearn.data import load_cohort, make_cohort
from bsym_sklearn.exceptions import BrainDataError


class Means:
    """Embed a scan by the mean of each region."""

    def transform(self, X) -> np.ndarray:
        self.seen = X
        return np.stack([scan.mean(axis=0) for scan in X["fmri"]])


@pytest.fixture
def flat(rng) -> np.ndarray:
    """Return 30 points in 6 dimensions that lie nearly on a plane."""
    plane = rng.normal(size=(30, 2)) * [3, 1]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    return plane @ turn + 0.01 * rng.normal(size=(30, 6))


@pytest.mark.parametrize("method", ["pca", "mds", "isomap", "tsne"])
def test_what_lies_on_a_plane_is_laid_out_flat(flat, method) -> None:
    found = project(flat, method=method)
    assert found.points.shape == (30, 2)
    assert found.distance_correlation > (0.999 if method in ("pca", "mds") else 0.85)
    assert found.method == method
    again = project(flat, method=method)
    np.testing.assert_array_equal(found.points, again.points)
    if method == "pca":
        assert found.explained_variance is not None
        assert found.explained_variance.sum() == pytest.approx(1, abs=1e-3)
        assert found.explained_variance[0] > 0.7
    else:
        assert found.explained_variance is None


def test_embeddings_of_regions_count_as_one_row(rng) -> None:
    regions = rng.normal(size=(8, 3, 4))
    found = project(regions, n_components=3)
    np.testing.assert_allclose(
        np.abs(found.points),
        np.abs(project(regions.reshape(8, 12), n_components=3).points),
    )


def test_what_cannot_be_projected_is_refused(rng) -> None:
    with pytest.raises(ValueError, match="umap"):
        project(rng.normal(size=(9, 3)), method="umap")
    with pytest.raises(ValueError, match="n_components"):
        project(rng.normal(size=(9, 3)), n_components=4)
    with pytest.raises(BrainDataError, match=r"3 scans or more. Got shape \(2, 3\)"):
        project(rng.normal(size=(2, 3)))
    with pytest.raises(BrainDataError, match=r"first in scan 1\. Leave it out"):
        project([[0.0, 1.0], [np.nan, 1.0], [1.0, 2.0]])


def test_neighbours_are_listed_with_their_groups() -> None:
    places = np.array([[0.0], [1.0], [3.0], [10.0], [11.5]])
    groups = {"participant": [*"aabbb"], "condition": [*"xyxyx"]}
    table = nearest_scans(places, 2, groups=groups)
    assert list(table) == [
        *["scan", "rank", "neighbour", "distance"],
        *["same_participant", "chance_participant"],
        *["same_condition", "chance_condition"],
    ]
    first = table[table["rank"] == 1]
    assert first["neighbour"].tolist() == [1, 0, 1, 4, 3]
    assert first["distance"].tolist() == [1, 1, 2, 1.5, 1.5]
    assert first["same_participant"].tolist() == [True, True, False, True, True]
    assert first["same_condition"].tolist() == [False] * 5
    np.testing.assert_allclose(
        first["chance_participant"], [1 / 4, 1 / 4, 2 / 4, 2 / 4, 2 / 4]
    )
    assert table[table["rank"] == 2]["neighbour"].tolist() == [2, 2, 0, 2, 2]
    frame = pd.DataFrame(groups)
    pd.testing.assert_frame_equal(nearest_scans(places, 2, groups=frame), table)
    assert (
        nearest_scans(places, 4)["neighbour"] != nearest_scans(places, 4)["scan"]
    ).all()


def test_scans_that_are_the_same_are_neighbours_of_each_other() -> None:
    table = nearest_scans(np.zeros((4, 2)))
    assert (table["neighbour"] != table["scan"]).all()
    np.testing.assert_array_equal(table["distance"], 0)


def test_people_are_found_by_chance_where_embeddings_mean_nothing(rng) -> None:
    groups = np.arange(200) % 4
    table = nearest_scans(rng.normal(size=(200, 6)), groups=groups)
    assert table["same_group"].mean() == pytest.approx(
        table["chance_group"].mean(), abs=0.1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 3}, "k == 3"),
        ({"metric": "hamming"}, "metric"),
        ({"groups": [0, 1]}, r"'group' for each of 3 scans. Got shape \(2,\)"),
    ],
)
def test_neighbours_that_cannot_be_found_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_scans(np.eye(3), **options)


def test_drift_measures_steps_within_and_distances_between_scans() -> None:
    levels = np.array([[0.0, 1.0, 3.0], [10.0, 10.0, 12.0]])  # of windows of scans
    scans = [
        np.repeat(scan, 4)[:, None]
        + np.array([[-0.5, 0.5]] * 12)
        + np.tile([1, -1, 1, -1], 3)[:, None]
        for scan in levels
    ]
    scans[0] = np.concatenate([scans[0], np.ones((1, 2))])  # a rest is left out
    X = pd.DataFrame({"fmri": scans, "t_r": [2.0, 2.0]})
    model = Means()
    table = drift(model, X, n_windows=3)
    assert table["scan"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["start"].tolist() == [0, 4, 8, 0, 4, 8]
    root = np.sqrt(2)
    np.testing.assert_allclose(
        table["from_first"], [np.nan, root, 3 * root, np.nan, 0, 2 * root]
    )
    np.testing.assert_allclose(
        table["from_previous"], [np.nan, root, 2 * root, np.nan, 0, 2 * root]
    )
    np.testing.assert_allclose(
        table["to_others"], np.tile([10 * root, 9 * root, 9 * root], 2)
    )
    assert model.seen["t_r"].tolist() == [2.0] * 6
    alone = drift(model, X.iloc[:1], n_windows=3)
    assert alone["to_others"].isna().all()


def test_drift_of_an_embedder_takes_its_connectomes_along() -> None:
    X = make_cohort(n_scans=4, n_regions=5, n_timepoints=40).data
    model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0).fit(X)
    table = drift(model, X, n_windows=2, metric="correlation")
    assert len(table) == 8
    assert (table["from_first"].dropna() > 0).all()
    assert table["to_others"].notna().all()


def test_drift_refuses_scans_that_are_too_short(rng) -> None:
    X = [rng.normal(size=(n, 3)) for n in (20, 7)]
    with pytest.raises(BrainDataError, match=r"Got 7, first in scan 1\. Leave"):
        drift(Means(), X, n_windows=4)
    with pytest.raises(ValueError, match="n_windows"):
        drift(Means(), X, n_windows=1)


def test_people_of_a_real_cohort_are_recognised_by_connectivity(shared) -> None:
    folder = shared / "data" / "psilocybin"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/psilocybin")
    X = load_cohort(folder)
    rows, columns = np.triu_indices(90, 1)
    edges = [
        np.corrcoef(np.load(path).astype(float).T)[rows, columns] for path in X["fmri"]
    ]
    table = nearest_scans(
        edges, groups=X[["participant_id", "condition"]], metric="correlation"
    )
    chance = table["chance_participant_id"].mean()
    assert chance == pytest.approx(3 / 35)
    assert table["same_participant_id"].mean() > 4 * chance
