from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.analysis import networks as module
from bsym_sklearn.analysis.network_scores import (
    connectivity_rows,
    network_scores,
    network_test,
)
from bsym_sklearn.analysis.networks import classify_networks, cluster_networks
from bsym_sklearn.data import load_cohort, make_cohort
from bsym_sklearn.exceptions import BrainDataError

NAMES = np.repeat(["Cont", "Default", "Vis"], [8, 12, 10])
MEANS = {"Cont": (0, 0), "Default": (4, 0), "Vis": (0, 4)}


@pytest.fixture
def embeddings(rng) -> np.ndarray:
    """Return embeddings (R, D) that tell the networks apart, almost."""
    means = np.array([MEANS[name] for name in NAMES], dtype=float)
    return means + rng.normal(size=means.shape)


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_networks_are_found_where_there_are_some(embeddings, rng, classifier) -> None:
    scores = classify_networks(embeddings, NAMES, classifier=classifier)
    assert scores.accuracy.shape == (5,)
    assert scores.accuracy.mean() > 0.85
    assert scores.chance == pytest.approx(0.4)
    noise = classify_networks(rng.normal(size=(30, 2)), NAMES, classifier=classifier)
    assert noise.accuracy.mean() < 0.7
    assert scores.ari > 0.6 > 0.3 > noise.ari


def test_confusion_mistakes_and_predictions_agree(embeddings) -> None:
    labels = [f"r{i}" for i in range(30)]
    scores = classify_networks(embeddings, NAMES, labels=labels)
    right = scores.predicted == NAMES
    assert list(scores.confusion.index) == list(scores.confusion) == sorted(MEANS)
    assert scores.confusion.to_numpy().sum() == 30
    assert np.trace(scores.confusion) == right.sum()
    assert scores.confusion.sum(axis=1).to_dict() == {
        "Cont": 8,
        "Default": 12,
        "Vis": 10,
    }
    wrong = scores.misclassified
    assert sorted(wrong["region"]) == np.flatnonzero(~right).tolist()
    assert len(wrong) > 0
    assert wrong["label"].tolist() == [labels[i] for i in wrong["region"]]
    assert wrong["true"].tolist() == NAMES[wrong["region"]].tolist()
    assert wrong["predicted"].tolist() == scores.predicted[wrong["region"]].tolist()
    assert wrong["probability"].is_monotonic_decreasing
    np.testing.assert_allclose(scores.probability.sum(axis=1), 1)


def test_regions_without_a_network_play_no_part(embeddings) -> None:
    alone = classify_networks(embeddings, NAMES)
    more = np.concatenate([embeddings, np.full((2, 2), np.nan)])
    names = [*NAMES, None, np.nan]
    scores = classify_networks(more, names)
    np.testing.assert_array_equal(scores.accuracy, alone.accuracy)
    assert scores.predicted[-2:].tolist() == [None, None]
    assert scores.probability.iloc[-2:].isna().all(axis=None)
    clusters = cluster_networks(more, names, n_seeds=1)
    assert clusters.labels[0, -2:].tolist() == [-1, -1]
    assert clusters.named[0, -2:].tolist() == [None, None]


def test_tests_share_no_region_and_no_participant_with_training(monkeypatch) -> None:
    """Each fit of a fold, inner ones included, is checked for what it is given."""
    n_scans, n_regions = 12, 30
    people = np.repeat(np.arange(6), 2)
    person = np.repeat(people, n_regions)
    region = np.tile(np.arange(n_regions), n_scans)
    seen = []
    original = module._folds

    def spy(region, person, y, n_folds, rng):
        for train, test in original(region, person, y, n_folds, rng):
            assert not set(region[train]) & set(region[test])
            assert not set(person[train]) & set(person[test])
            seen.append((len(y), region[test], person[test]))
            yield train, test

    monkeypatch.setattr(module, "_folds", spy)
    values = np.random.default_rng(0).normal(size=(n_scans, n_regions, 2))
    scores = classify_networks(values, NAMES, n_folds=3, groups=people)
    outer = [fold for fold in seen if fold[0] == len(region)]
    assert len(outer) == 3
    assert len(seen) > 3
    assert {r for _, regions, _ in outer for r in regions} == set(region)
    assert {p for _, _, group in outer for p in group} == set(person)
    assert scores.confusion.to_numpy().sum() == 3 * 10 * 4  # scans of 2 people


def test_a_participants_signature_does_not_help(rng) -> None:
    """Networks differ at random from person to person: nothing is common to find."""
    people = np.repeat(np.arange(10), 2)
    values = np.zeros((20, 30, 4))
    for i, person in enumerate(people):
        of_person = np.random.default_rng(person)
        directions = {name: of_person.normal(size=4) for name in MEANS}
        values[i] = [9 * directions[name] for name in NAMES]
    values += rng.normal(size=values.shape)
    within = classify_networks(values[0], NAMES).accuracy.mean()
    across = classify_networks(values, NAMES, groups=people).accuracy.mean()
    assert within > 0.95
    assert across < 0.75


def test_what_is_common_to_participants_is_found(embeddings, rng) -> None:
    values = embeddings + rng.normal(size=(10, 30, 2))
    scores = classify_networks(values, NAMES)
    assert scores.accuracy.mean() > 0.7
    shifted = values * 3 + rng.normal(size=(10, 1, 2))  # a scan's own size and place
    again = classify_networks(shifted, NAMES)
    assert again.accuracy.mean() > 0.7


def test_wide_embeddings_are_projected_inside_the_folds(embeddings, rng) -> None:
    wide = np.concatenate([embeddings, 0.01 * rng.normal(size=(30, 200))], axis=1)
    assert classify_networks(wide, NAMES).accuracy.mean() > 0.85


def test_the_same_seed_gives_the_same_folds(embeddings) -> None:
    first, again = (classify_networks(embeddings, NAMES) for _ in range(2))
    np.testing.assert_array_equal(first.accuracy, again.accuracy)
    pd.testing.assert_frame_equal(first.probability, again.probability)


def test_clusters_are_matched_to_networks(embeddings) -> None:
    clusters = cluster_networks(embeddings, NAMES, n_seeds=3)
    assert clusters.labels.shape == clusters.named.shape == (3, 30)
    assert clusters.ari.min() > 0.6
    np.testing.assert_allclose(clusters.accuracy, (clusters.named == NAMES).mean(1))
    finer = cluster_networks(embeddings, NAMES, n_clusters=5, n_seeds=1)
    assert len(set(finer.labels[0])) == 5
    assert set(finer.named[0]) == {*MEANS, None}  # two clusters are left over


def test_clusters_need_one_set_of_embeddings() -> None:
    with pytest.raises(ValueError, match=r"a group, \(R, D\). Got shape \(4, 30, 2\)"):
        cluster_networks(np.zeros((4, 30, 2)), NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((29, 2))}, r"Got \(29, 2\) and \(30,\). Select the"),
        ({"embeddings": np.full((30, 2), np.nan)}, "infinity, first in scan 0"),
        ({"networks": ["Vis"] * 30}, r"at least two networks. Got \['Vis'\]"),
        ({"classifier": "svm"}, "`classifier` must be one of .* Got 'svm'"),
        ({"n_folds": 9}, "Got 9 folds, 8 regions in the smallest network and 1 part"),
        ({"n_folds": 1}, "at least two folds"),
        ({"labels": ["a"]}, "Got 1 for 30"),
        ({"groups": [0, 1]}, r"Got \(2,\) for 1 scans"),
    ],
)
def test_unusable_input_is_refused(embeddings, change, message) -> None:
    given = {"embeddings": embeddings, "networks": NAMES} | change
    with pytest.raises(ValueError, match=message):
        classify_networks(given.pop("embeddings"), given.pop("networks"), **given)


def test_too_few_participants_are_refused(rng) -> None:
    values = rng.normal(size=(6, 30, 2))
    with pytest.raises(ValueError, match=r"Got 5 folds, 8 .* and 3 participants"):
        classify_networks(values, NAMES, groups=[0, 0, 1, 1, 2, 2])


def test_table_has_a_row_for_each_part(embeddings, rng) -> None:
    scans = embeddings + rng.normal(size=(5, 30, 2))
    table = network_scores(
        {"group": embeddings, "scans": scans},
        NAMES,
        n_folds=2,
        n_repeats=2,
        n_seeds=3,
    )
    sizes = table.groupby(["embedding", "level", "method"]).size()
    assert sizes.to_dict() == {
        ("group", "group", "majority"): 1,
        ("group", "group", "logistic"): 4,
        ("group", "group", "knn"): 4,
        ("group", "group", "kmeans"): 3,
        ("scans", "scan", "majority"): 1,
        ("scans", "scan", "logistic"): 4,
        ("scans", "scan", "knn"): 4,
        ("scans", "scan", "kmeans"): 5,
    }
    majority = table[table["method"] == "majority"]
    np.testing.assert_allclose(majority["accuracy"], 0.4)
    assert (majority["ari"] == 0).all()
    direct = classify_networks(embeddings, NAMES, n_folds=2, random_state=1)
    logistic = (table["embedding"] == "group") & (table["method"] == "logistic")
    again = table[logistic & (table["repeat"] == 1)]
    np.testing.assert_allclose(again["accuracy"], direct.accuracy)
    with pytest.raises(ValueError, match=r"Got \['svm'\]"):
        network_scores({"a": embeddings}, NAMES, methods=["svm"])


def test_connectivity_rows_are_mean_fisher_z() -> None:
    X = make_cohort(3, n_regions=4, n_timepoints=60).data
    rows = connectivity_rows(X)
    each = []
    for scan in X["fmri"]:
        z = np.arctanh(np.corrcoef(scan.T) - np.eye(4))
        each.append(z)
    np.testing.assert_allclose(rows, np.mean(each, axis=0), atol=1e-5)
    assert np.diag(rows).tolist() == [0, 0, 0, 0]
    scans = connectivity_rows(X, average=False)
    np.testing.assert_allclose(scans, each, atol=1e-5)
    X["fmri"] = [scan * 1e-9 for scan in X["fmri"]]  # whatever the unit
    np.testing.assert_allclose(connectivity_rows(X), rows, atol=1e-4)


def test_connectivity_rows_need_fmri() -> None:
    X = make_cohort(3, n_regions=4, n_timepoints=30).data
    X["fmri"] = [X["fmri"][0], None, X["fmri"][2]]
    with pytest.raises(BrainDataError, match="Got none, first in scan 1"):
        connectivity_rows(X)


def sphere(n: int = 200) -> np.ndarray:
    """Return points on two spheres, left and right, in mm."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3))
    points *= 30 / np.linalg.norm(points, axis=1, keepdims=True)
    return points + np.where(np.arange(n) < n // 2, -40, 40)[:, None] * [1, 0, 0]


def test_shuffled_networks_are_too_easy_to_beat_for_a_smooth_map() -> None:
    places = sphere()
    networks = np.where(places[:, 2] > 0, "up", "down")
    smooth = np.where(places[:, 2] + 0.7 * places[:, 1] > 0, "up", "down")
    shuffled = network_test(smooth, networks, n_permutations=199)
    turned = network_test(smooth, networks, coordinates=places, n_permutations=199)
    assert shuffled.score == turned.score == np.mean(smooth == networks)
    assert shuffled.p_value == pytest.approx(1 / 200)
    assert turned.p_value > 0.05
    assert turned.permuted_scores.std() > 3 * shuffled.permuted_scores.std()


def test_turned_networks_keep_their_sizes_on_each_side() -> None:
    from bsym_sklearn.analysis.network_scores import _spin

    places = sphere()
    left = places[:, 0] < 0
    source = _spin(places, 3)
    assert sorted(source) == list(range(200))
    np.testing.assert_array_equal(left[source], left)
    centred = places - np.where(left[:, None], places[left].mean(0), 0)
    near = np.linalg.norm(centred[:100, None] - centred[None, :100], axis=2)
    pairs = np.argwhere((near < 8) & (near > 0))
    moved = near[source[pairs[:, 0]], source[pairs[:, 1]]]
    assert moved.mean() < 20  # neighbours stay close; any two are 40 mm apart


def test_rand_index_ignores_the_names_of_clusters() -> None:
    clusters = np.array([2, 2, 0, 0, 1, 1])
    networks = ["a", "a", "b", "b", "c", "c"]
    test = network_test(clusters, networks, measure="ari", n_permutations=50)
    assert test.score == 1
    with pytest.raises(ValueError, match="Got 'f1'"):
        network_test(clusters, networks, measure="f1")
    with pytest.raises(ValueError, match=r"Got shape \(6, 2\) for 6 networks"):
        network_test(clusters, networks, coordinates=np.zeros((6, 2)))


def test_seven_networks_lie_in_connectivity() -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "schaefer419"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared, which are not here")
    cohort = load_cohort(folder)
    part = cohort.iloc[:12].reset_index(drop=True)
    rows = connectivity_rows(part)
    assert rows.shape == (419, 419)
    networks = cohort.attrs["regions"]["network7"]
    scores = classify_networks(rows, networks)
    assert scores.chance == pytest.approx(91 / 400)
    assert scores.accuracy.mean() > 0.8
    assert scores.confusion.to_numpy().sum() == 400
