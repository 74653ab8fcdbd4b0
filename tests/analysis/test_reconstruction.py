from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.hidden import draw_masks
from bsym_sklearn.analysis.imputation import (
    LinearInterpolation,
    MeanEdges,
    RegionMean,
    RidgeRegions,
)
from bsym_sklearn.analysis.reconstruction import (
    score_connectomes,
    score_hidden,
    summarize_hidden,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.exceptions import BrainDataError

R, T = 6, 60
KINDS = ["regions", "time_points", "edges"]


@lru_cache
def make_frame(missing: float = 0.0) -> pd.DataFrame:
    X = make_cohort(8, R, T, missing_fmri=missing, missing_sc=missing).data
    X["participant_id"] = [f"p{i // 2}" for i in range(8)]
    X["condition"] = ["drug", "placebo"] * 4
    return X


class Oracle:
    """Says the truth, moved or scaled as asked, so that scores are known."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def scaled(self, X, modality="fmri"):
        model = (MeanEdges() if modality == "sc" else RegionMean()).fit(X)
        return model.scaled(X, modality)

    def reconstruct(self, X, *, modality="fmri", mask=None):
        scans = self.scaled(X, modality)
        if modality == "sc":
            return scans * self.factor
        return [None if s is None else s * self.factor for s in scans]


@pytest.mark.parametrize("hide", KINDS)
def test_the_truth_scores_one_and_half_of_it_what_it_must(hide) -> None:
    table = score_hidden(Oracle(), make_frame(), hide=hide)
    assert (table["r2"] == 1).all()
    assert (table["mae"] == 0).all()
    np.testing.assert_allclose(table["pearson"], 1)
    half = score_hidden(Oracle(0.5), make_frame(), hide="regions")
    np.testing.assert_allclose(half["r2"], 0.75)  # series of mean 0
    np.testing.assert_allclose(half["pearson"], 1)


def test_rows_are_scans_and_regions_with_hidden_values() -> None:
    X = make_frame()
    table = score_hidden(RegionMean().fit(X), X, ratio=0.5, by="condition")
    assert len(table) == 8 * 3
    assert (table["n_hidden"] == T).all()
    assert set(table["region"]) <= set(X.attrs["regions"]["label"])
    first = table.drop_duplicates("scan")
    np.testing.assert_array_equal(first["scan"], range(8))
    np.testing.assert_array_equal(first["participant"], X["participant_id"])
    np.testing.assert_array_equal(first["condition"], X["condition"])
    points = score_hidden(RegionMean().fit(X), X, hide="time_points", ratio=0.15)
    assert len(points) == 8 * R
    assert (points["n_hidden"] == 9).all()
    edges = score_hidden(MeanEdges().fit(X), X, hide="edges", ratio=0.2)
    assert edges["region"].eq("all edges").all()
    assert (edges["n_hidden"] == 3).all()  # of 15, each counted once
    assert (edges["condition"] == "all").all()


def test_scores_are_those_of_the_hidden_values() -> None:
    X = make_frame()
    model = LinearInterpolation().fit(X)
    table = score_hidden(model, X, hide="time_points", ratio=0.3, random_state=3)
    truth = model.scaled(X)
    masks = draw_masks(truth, hide="time_points", ratio=0.3, random_state=3)
    decoded = model.reconstruct(X, mask=masks)
    t, p = (x[5][masks[5][:, 2], 2] for x in (truth, decoded))
    row = table[(table["scan"] == 5)].iloc[2]
    assert row["r2"] == pytest.approx(1 - np.mean((t - p) ** 2) / t.var())
    assert row["pearson"] == pytest.approx(np.corrcoef(t, p)[0, 1])
    assert row["mae"] == pytest.approx(np.abs(t - p).mean())


def test_masks_are_the_same_for_every_model() -> None:
    X = make_frame()
    hidden: list[list[np.ndarray]] = []

    class Spy(Oracle):
        def reconstruct(self, X, *, modality="fmri", mask=None):
            hidden.append(mask)
            return super().reconstruct(X, modality=modality, mask=mask)

    for model, seed in ((Spy(), 1), (Spy(0.5), 1), (Spy(), 2)):
        score_hidden(model, X, hide="time_points", span=4, random_state=seed)
    assert all((a == b).all() for a, b in zip(hidden[0], hidden[1], strict=True))
    assert any((a != b).any() for a, b in zip(hidden[0], hidden[2], strict=True))
    lengths = np.diff(np.flatnonzero(np.diff(hidden[0][0][:, 0].astype(int))))
    assert lengths.max() >= 4


def test_a_trained_model_and_the_baselines_take_the_same_scans() -> None:
    X = make_frame(1 / 4)
    model = BrainSymphonyEmbedder(
        dim=8, depth=1, n_heads=2, max_epochs=1, random_state=0
    ).fit(X)
    ours = score_hidden(model, X)
    floor = score_hidden(RidgeRegions().fit(X), X)
    same = ["scan", "participant", "region", "n_hidden"]
    pd.testing.assert_frame_equal(ours[same], floor[same])
    np.testing.assert_allclose(
        ours["squared_spread"], floor["squared_spread"], rtol=1e-4
    )
    assert set(ours["scan"]) == set(np.flatnonzero(X["fmri"].notna()))
    edges = score_hidden(model, X, hide="edges")
    assert set(edges["scan"]) == set(np.flatnonzero(X["sc"].notna()))
    whole = score_connectomes(model, X)
    assert set(whole.scans["scan"]) == set(np.flatnonzero(X["sc"].notna()))
    assert np.isnan(whole.reconstructed[X["sc"].isna()]).all()


@pytest.mark.parametrize("permute", ["regions", "time", "scans"])
def test_a_permuted_truth_is_not_reconstructed(permute) -> None:
    table = score_hidden(Oracle(), make_frame(), ratio=0.9, permute=permute)
    assert summarize_hidden(table)["r2"].item() < 0.5
    again = score_hidden(Oracle(), make_frame(), ratio=0.9, permute=permute)
    pd.testing.assert_frame_equal(table, again)


@pytest.mark.parametrize("permute", ["regions", "scans"])
def test_edges_are_permuted_too(permute) -> None:
    table = score_hidden(Oracle(), make_frame(), hide="edges", permute=permute)
    assert (table["r2"] < 0.99).all()
    scores = score_connectomes(Oracle(), make_frame(), permute=permute)
    assert (scores.scans["pattern"] < 0.99).all()


def test_scans_are_permuted_between_participants_of_any_length(rng) -> None:
    lengths = [40, 40, 25, 60]
    scans = [rng.normal(size=(n, 3)) for n in lengths]
    X = pd.DataFrame({"fmri": scans, "participant_id": list("aabb")})
    table = score_hidden(Oracle(), X, permute="scans")
    for row in table.itertuples():
        others = [n for n, p in zip(lengths, "aabb", strict=True) if p != row[2]]
        assert row.n_hidden in [min(n, lengths[row.scan]) for n in others]
    with pytest.raises(BrainDataError, match="needs scans of two participants"):
        score_hidden(Oracle(), X[:2], permute="scans")


def test_a_summary_pools_within_and_spreads_over_participants() -> None:
    X = make_frame()
    table = score_hidden(RegionMean().fit(X), X, by="condition")
    summary = summarize_hidden(table)
    assert summary.index.tolist() == ["drug", "placebo"]
    assert (summary["n"] == 4).all()
    drug = table[table["condition"] == "drug"]
    sums = drug.groupby("participant")[["squared_error", "squared_spread"]].sum()
    each = 1 - sums["squared_error"] / sums["squared_spread"]
    assert summary.loc["drug", "r2"] == pytest.approx(each.mean())
    assert summary.loc["drug", "r2_sd"] == pytest.approx(each.std())
    by_scan = summarize_hidden(table, by="region", over="scan")
    assert by_scan["n"].sum() == len(table)
    with pytest.raises(ValueError, match="needs a column 'model'"):
        summarize_hidden(table, by="model")


def test_regions_that_do_not_vary_have_no_r2() -> None:
    X = make_frame().assign(fmri=[x.copy() for x in make_frame()["fmri"]])
    for values in X["fmri"]:
        values[:, 0] = 1.0
    table = score_hidden(RegionMean().fit(X), X, ratio=0.99)
    flat = table["region"] == X.attrs["regions"]["label"].iloc[0]
    assert table.loc[flat, ["r2", "pearson"]].isna().all(axis=None)
    assert table.loc[~flat, "r2"].notna().all()
    assert np.isfinite(summarize_hidden(table)["r2"].item())


def test_connectomes_are_scored_by_scan_by_edge_and_as_a_whole() -> None:
    X = make_frame()
    model = MeanEdges().fit(X[:4])
    scores = score_connectomes(model, X[4:])
    truth = model.scaled(X[4:], "sc")
    off = ~np.eye(R, dtype=bool)
    np.testing.assert_allclose(
        scores.reconstructed[:, off], np.broadcast_to(model.mean_, (4, R, R))[:, off]
    )
    first, second = np.triu_indices(R, 1)
    t, p = truth[:, first, second], scores.reconstructed[:, first, second]
    pattern = [np.corrcoef(a, b)[0, 1] for a, b in zip(t, p, strict=True)]
    np.testing.assert_allclose(scores.scans["pattern"], pattern)
    spread = ((t - t.mean(0)) ** 2).sum(0)
    varies = spread > 0  # some edges are absent in all
    r2 = 1 - ((t - p) ** 2).sum(0)[varies] / spread[varies]
    np.testing.assert_allclose(scores.edges["r2"][varies], r2)
    assert scores.edges["r2"][~varies].isna().all()
    assert (r2 <= 0).all()  # one guess for all cannot beat the mean
    assert scores.edges["pearson"].isna().all()
    labels = X.attrs["regions"]["label"]
    assert scores.edges.iloc[0][["region", "other"]].tolist() == list(labels[:2])
    assert scores.weights.loc[0.5, "observed"] == pytest.approx(np.median(t))
    assert scores.scans["ks"].between(0, 1).all()
    assert (scores.scans["n_edges"] == 15).all()


def test_without_folds_nothing_is_hidden() -> None:
    X = make_frame()
    scores = score_connectomes(MeanEdges().fit(X), X, n_folds=None)
    np.testing.assert_allclose(scores.scans["pattern"], 1)  # repeats what it sees
    with pytest.raises(ValueError, match=r"n_folds must be None or at least 2\. Got 1"):
        score_connectomes(MeanEdges().fit(X), X, n_folds=1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hide": "voxels"}, "hide must be one of"),
        ({"ratio": 0}, "ratio must be above 0 and below 1. Got 0"),
        ({"permute": "labels"}, "permute must be one of"),
        ({"hide": "edges", "permute": "time"}, "permute='time' needs series"),
        ({"by": "clinic"}, "score_hidden needs a column 'clinic' for `by`"),
    ],
)
def test_parameters_that_make_no_sense_raise(params, message) -> None:
    with pytest.raises(ValueError, match=message):
        score_hidden(Oracle(), make_frame(), **params)
