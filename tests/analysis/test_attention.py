from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainLMEmbedder, BrainSymphonyEmbedder
from bsym_sklearn.analysis.attention import (
    attention_rollout,
    gate_values,
    incoming,
    network_bars,
    network_blocks,
    outgoing,
    temporal_profile,
    top_edges,
)
from bsym_sklearn.data import make_cohort

NETWORKS = ["Vis", "Limbic", "Vis", "SomMot", "Limbic", "Vis"]


@pytest.fixture(scope="module")
def scans() -> pd.DataFrame:
    """Return scans of three lengths, one without fMRI and one without a connectome."""
    X = make_cohort(n_scans=8, n_regions=6, n_timepoints=60).data.copy()
    X["fmri"] = [x[: 30 + 10 * (i % 4)] for i, x in enumerate(X["fmri"])]
    X["sc"] = list(X["sc"])
    X.loc[2, "fmri"] = None
    X.loc[5, "sc"] = None
    return X


@pytest.fixture(scope="module")
def model(scans) -> BrainSymphonyEmbedder:
    """Return a model that sees windows of 50 time points."""
    return BrainSymphonyEmbedder(
        dim=8, depth=2, max_epochs=2, window=50, random_state=0
    ).fit(scans)


@pytest.fixture
def maps(rng) -> np.ndarray:
    return rng.dirichlet(np.ones(6), size=(4, 6))


@pytest.mark.parametrize("stream", ["spatial", "perceiver"])
def test_incoming_attention_of_a_model_sums_to_one(model, scans, stream) -> None:
    received = incoming(model.attention(scans, stream))
    given = outgoing(model.attention(scans, stream))
    assert received.shape == given.shape == (8, 6)
    assert np.isnan(received[2]).all()  # no fMRI
    present = np.delete(np.arange(8), 2)
    np.testing.assert_allclose(received[present].sum(1), 1, atol=1e-5)
    assert ((given[present] > 0) & (given[present] < 1)).all()


def test_signed_maps_are_split_by_sign(model, scans) -> None:
    maps = model.attention(scans, "structural")
    assert (maps[0] < 0).any()
    whole = incoming(maps)
    parts = incoming(maps, part="positive") + incoming(maps, part="negative")
    np.testing.assert_allclose(whole, parts)
    assert (whole[0].sum() > 0) & (whole[0].sum() <= 1)
    assert np.isnan(whole[5]).all()


def test_incoming_and_outgoing_go_along_columns_and_rows(maps) -> None:
    np.testing.assert_allclose(incoming(maps), maps.mean(1))
    np.testing.assert_array_equal(incoming(maps[0]), incoming(maps)[0])
    alone = maps * (1 - np.eye(6))
    np.testing.assert_allclose(outgoing(maps), alone.sum(2))
    with pytest.raises(ValueError, match=r"incoming needs square maps.*Got shape \(6,"):
        incoming(maps[0, 0])
    with pytest.raises(ValueError, match="`part` must be one of"):
        outgoing(maps, part="sign")


def test_network_blocks_are_means_over_pairs(maps) -> None:
    blocks = network_blocks(maps, NETWORKS)
    assert blocks.shape == (4, 3, 3)
    frame = network_blocks(maps[1], NETWORKS)
    assert list(frame.index) == list(frame.columns) == ["Limbic", "SomMot", "Vis"]
    np.testing.assert_allclose(frame, blocks[1])
    expected = maps[1][np.ix_([0, 2, 5], [1, 4])].mean()
    assert frame.loc["Vis", "Limbic"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"one name per region\. Got 2 for 6"):
        network_blocks(maps, ["a", "b"])


def test_bars_times_network_sizes_sum_to_one(maps) -> None:
    """The check that the published Fig. 4d passes."""
    bars = network_bars(incoming(maps), NETWORKS)
    assert list(bars.columns) == ["Limbic", "SomMot", "Vis"]
    np.testing.assert_allclose(bars @ [2, 1, 3], 1)
    one = network_bars(incoming(maps[0]), NETWORKS)
    assert one["SomMot"] == pytest.approx(maps[0, :, 3].mean())
    with pytest.raises(ValueError, match=r"Got \(4, 6, 6\)"):
        network_bars(maps, NETWORKS)


def test_top_edges_leave_out_a_region_itself() -> None:
    matrix = np.array([[9.0, -3.0, 1.0], [2.0, 9.0, 0.5], [0.0, 0.1, 9.0]])
    edges = top_edges(matrix, 3, labels=["A", "B", "C"], networks=["x", "y", "y"])
    assert edges["weight"].tolist() == [-3.0, 2.0, 1.0]
    assert edges["source"].tolist() == ["A", "B", "A"]
    assert edges["target"].tolist() == ["B", "A", "C"]
    assert edges["target_network"].tolist() == ["y", "x", "y"]
    assert len(top_edges(matrix, 100)) == 6
    with pytest.raises(ValueError, match="with 1 others"):
        top_edges(np.where(matrix == 0, np.nan, matrix), 2)


def test_temporal_profile_of_a_known_map() -> None:
    after = np.roll(np.eye(4), 1, axis=1)  # each attends to the next, the last wraps
    profile = temporal_profile(np.stack([after, np.full((4, 4), 0.25)]), t_r=0.5)
    assert profile.lags.tolist() == [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    np.testing.assert_allclose(profile.attention[0], [1, 0, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(profile.attention[1], 0.25)
    np.testing.assert_allclose(profile.entropy, [0, 1])


def test_temporal_profile_leaves_padding_out(model, scans) -> None:
    maps = model.attention(scans, "temporal")
    lengths = [len(x) if x is not None else 0 for x in scans["fmri"]]
    profile = temporal_profile(maps, n_timepoints=lengths)
    assert profile.attention.shape == (8, 99)
    assert np.isnan(profile.attention[2]).all()
    short = profile.attention[0]  # 30 time points
    assert np.isfinite(short[np.abs(profile.lags) < 30]).all()
    assert np.isnan(short[np.abs(profile.lags) >= 30]).all()
    present = np.delete(np.arange(8), 2)
    assert (profile.entropy[present] <= 1 + 1e-6).all()
    assert (profile.entropy[present] > 0.5).all()  # hardly trained: nearly alike
    cut = maps[0, :30, :30]
    own = temporal_profile(cut)
    np.testing.assert_allclose(own.entropy, profile.entropy[0])


def test_gate_is_the_share_of_fmri_where_both_are(model, scans) -> None:
    gate = gate_values(model, scans)
    assert gate.shape == (8, 6)
    missing = np.isnan(gate).all(axis=1)
    assert missing.tolist() == [i in (2, 5) for i in range(8)]
    assert ((gate[~missing] > 0) & (gate[~missing] < 1)).all()
    alone = scans.iloc[[5]]  # a batch without any connectome
    assert np.isnan(gate_values(model, alone)).all()
    both = gate_values(model, scans.iloc[[0]])
    np.testing.assert_allclose(both[0], gate[0], rtol=1e-5)


def test_gate_weighs_the_fused_embedding(model, scans) -> None:
    """fused = g f + (1 - g) s, so a gate of one is fMRI alone."""
    bias = model.backbone_.gate.project.bias
    kept = bias.data.clone()
    bias.data.fill_(100.0)
    fused = model.transform_regions(scans.iloc[[0]])
    gate = gate_values(model, scans.iloc[[0]])
    bias.data.copy_(kept)
    np.testing.assert_allclose(gate, 1)
    alone = model.transform_regions(scans.iloc[[0]].assign(sc=None))
    np.testing.assert_allclose(fused, alone, atol=1e-6)


def test_gate_needs_a_model_of_both(scans) -> None:
    X = scans.drop(index=[2])[["fmri"]]
    small = {"dim": 8, "depth": 1, "max_epochs": 0, "random_state": 0}
    with pytest.raises(ValueError, match=r"Got one fitted on \['fmri'\]"):
        gate_values(BrainSymphonyEmbedder(**small).fit(X), X)
    with pytest.raises(TypeError, match="Got BrainLMEmbedder, which has no gate"):
        gate_values(BrainLMEmbedder(), X)


def test_rollout_multiplies_blocks_with_their_residuals(rng) -> None:
    maps = rng.dirichlet(np.ones(5), size=(3, 2, 4, 5))  # windows, blocks, heads
    flow = attention_rollout(maps)
    assert flow.shape == (3, 5, 5)
    np.testing.assert_allclose(flow.sum(-1), 1)
    first, second = ((m.mean(0) + np.eye(5)) / 2 for m in maps[0])
    np.testing.assert_allclose(flow[0], second @ first)


def test_rollout_follows_a_model_and_refuses_signs(model, scans) -> None:
    kept = model.attention(scans, average=False)
    np.testing.assert_allclose(attention_rollout(kept[0]).sum(-1), 1, atol=1e-5)
    signed = model.attention(scans, "structural", average=False)[0]
    with pytest.raises(ValueError, match="without negative weights"):
        attention_rollout(signed)
    with pytest.raises(ValueError, match="blocks, heads"):
        attention_rollout(np.eye(3))
