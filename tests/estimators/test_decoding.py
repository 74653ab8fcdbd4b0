"""What the decoders, the score and the attention of a fitted model say."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import make_cohort

N, R, T = 6, 5, 24
TINY: dict[str, Any] = {
    "dim": 8,
    "depth": 2,
    "n_heads": 2,
    "max_epochs": 1,
    "lr": 1e-2,
    "validation_fraction": 0.0,
    "dtype": "float64",
    "random_state": 0,
}


@lru_cache
def make_frame(missing: float = 0.0) -> pd.DataFrame:
    return make_cohort(
        N, R, T, unequal=True, missing_sc=missing, missing_fmri=missing
    ).data


@lru_cache
def fitted(**params: Any) -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(**TINY | params).fit(make_frame())


def hide_regions(X: pd.DataFrame, region: int) -> list[np.ndarray]:
    masks = [np.zeros(x.shape, dtype=bool) for x in X["fmri"]]
    for mask in masks:
        mask[:, region] = True
    return masks


# ------------------------------------------------------------------ reconstruct


def test_reconstruction_has_the_shape_of_the_scans():
    X = make_frame()
    series = fitted().reconstruct(X)
    assert [x.shape for x in series] == [x.shape for x in X["fmri"]]
    edges = fitted().reconstruct(X, modality="sc")
    assert edges.shape == (N, R, R)
    np.testing.assert_allclose(edges, edges.transpose(0, 2, 1), atol=1e-12)


def test_missing_scans_have_no_reconstruction():
    X = make_frame(1 / 3)
    series = fitted().reconstruct(X)
    assert [x is None for x in series] == X["fmri"].isna().tolist()
    edges = fitted().reconstruct(X, modality="sc")
    np.testing.assert_array_equal(np.isnan(edges).all((1, 2)), X["sc"].isna())


def test_a_hidden_region_reaches_no_reconstruction():
    X = make_frame()
    rng = np.random.default_rng(0)
    other = X.assign(fmri=[x.copy() for x in X["fmri"]])
    for x in other["fmri"]:
        x[:, 1] = rng.normal(size=len(x))  # scaled by itself, as every region
    hidden = [fitted().reconstruct(x, mask=hide_regions(X, 1)) for x in (X, other)]
    for a, b in zip(*hidden, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    plain = [fitted().reconstruct(x) for x in (X, other)]
    assert not np.allclose(plain[0][0], plain[1][0])


def test_a_hidden_edge_reaches_no_reconstruction():
    X = make_frame()
    mask = np.zeros((R, R), dtype=bool)
    mask[0, 1] = mask[1, 0] = True
    other = X.assign(sc=[x.copy() for x in X["sc"]])
    for x in other["sc"]:
        x[0, 1] = x[1, 0] = 9 * x[0, 1] + 1
    masks = [mask] * N
    first, second = (
        fitted().reconstruct(x, modality="sc", mask=masks) for x in (X, other)
    )
    np.testing.assert_allclose(first, second, atol=1e-12)
    first, second = (fitted().reconstruct(x, modality="sc") for x in (X, other))
    assert not np.allclose(first, second)


def test_windows_cover_long_scans_in_reconstruction():
    X = make_frame()
    model = BrainSymphonyEmbedder(**TINY, window=10).fit(X)
    series = model.reconstruct(X)
    assert [x.shape for x in series] == [x.shape for x in X["fmri"]]
    assert all(np.isfinite(x).all() for x in series)


def test_scaled_scans_are_in_the_units_of_their_reconstruction():
    X = make_frame(1 / 3)
    series = fitted().scaled(X)
    assert [x is None for x in series] == X["fmri"].isna().tolist()
    for scaled, raw in zip(series, X["fmri"], strict=True):
        if scaled is not None:
            expected = (raw - raw.mean(0)) / raw.std(0)
            np.testing.assert_allclose(scaled, expected, atol=1e-5)
    edges = fitted().scaled(X, "sc")
    assert edges.shape == (N, R, R)
    np.testing.assert_array_equal(np.isnan(edges).all((1, 2)), X["sc"].isna())
    expected = fitted().preprocessing_.sc_scaler.scale(X["sc"].dropna().iloc[0])
    np.testing.assert_allclose(edges[X["sc"].notna()][0], expected)
    with pytest.raises(ValueError, match="`modality` must be one of"):
        fitted().scaled(X, "eeg")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([None], "`mask` needs one entry per scan. Got 1 for 6"),
        ([np.zeros((2, 2), bool)] * N, "needs bool arrays of the shape of the scans"),
        ([np.zeros((R, R))] * N, "Got float64 of shape .*first in scan 0"),
    ],
)
def test_masks_that_do_not_fit_raise(mask, message):
    with pytest.raises(ValueError, match=message):
        fitted().reconstruct(make_frame(), modality="sc", mask=mask)


def test_a_modality_that_the_model_lacks_cannot_be_decoded():
    X = make_frame()[["fmri"]]
    model = BrainSymphonyEmbedder(**TINY).fit(X)
    with pytest.raises(ValueError, match=r"must be one of \('fmri',\). Got 'sc'"):
        model.reconstruct(X, modality="sc")
    with pytest.raises(ValueError, match="'structural' stream needs a model of 'sc'"):
        model.attention(X, "structural")


# ------------------------------------------------------------------ score


def test_score_is_the_same_for_every_call_and_grows_with_training():
    # more scans and epochs than elsewhere: what is learned must show
    X = make_cohort(16, R, 40).data
    params = TINY | {"dim": 16, "depth": 1, "batch_size": 8}
    start, trained = (
        BrainSymphonyEmbedder(**params | {"max_epochs": epochs}).fit(X)
        for epochs in (0, 25)
    )
    assert trained.score(X) == trained.score(X, np.zeros(16))
    assert start.score(X) < trained.score(X) < 1


@pytest.mark.parametrize("column", ["fmri", "sc"])
def test_score_of_both_is_the_mean_over_modalities(column):
    X = make_frame()
    other = {"fmri": "sc", "sc": "fmri"}[column]
    alone, rest = (
        fitted().score(X.assign(**{missing: None})) for missing in (other, column)
    )
    assert fitted().score(X) == pytest.approx((alone + rest) / 2)


# ------------------------------------------------------------------ attention


@pytest.mark.parametrize("stream", ["spatial", "temporal", "perceiver"])
@pytest.mark.parametrize(
    "kind", [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
)
def test_rows_of_attention_sum_to_one(kind, stream):
    X = make_frame()
    model = kind(**TINY).fit(X, [0, 1] * (N // 2))
    maps = model.attention(X, stream)
    size = model.preprocessing_.window if stream == "temporal" else R
    assert maps.shape == (N, size, size)
    lengths = X["fmri"].map(len).to_numpy()
    for one, length in zip(maps, lengths, strict=True):
        exists = slice(length) if stream == "temporal" else slice(None)
        np.testing.assert_allclose(one[exists].sum(1), 1)
        if stream == "temporal":  # nothing attends to padding
            assert one[:length, length:].max(initial=0) == 0


def test_structural_attention_follows_the_connectome():
    X = make_frame()
    maps = fitted().attention(X, "structural")
    assert maps.shape == (N, R, R)
    for one, weights in zip(maps, X["sc"], strict=True):
        absent = (weights == 0) & ~np.eye(R, dtype=bool)
        assert (one[absent] == 0).all()


@pytest.mark.parametrize(
    ("stream", "n_blocks"), [("spatial", 2), ("temporal", 2), ("structural", 2)]
)
def test_unaveraged_attention_keeps_windows_blocks_and_heads(stream, n_blocks):
    X = make_frame(1 / 3)
    maps = fitted().attention(X, stream, average=False)
    column = "sc" if stream == "structural" else "fmri"
    assert [m is None for m in maps] == X[column].isna().tolist()
    averages = fitted().attention(X, stream)
    size = averages.shape[-1]
    for one, average in zip(maps, averages, strict=True):
        if one is None:
            assert np.isnan(average).all()
        else:
            assert one.shape == (1, n_blocks, 2, size, size)
            np.testing.assert_allclose(one.mean((0, 1, 2)), average, atol=1e-12)


def test_unknown_streams_raise():
    with pytest.raises(ValueError, match="stream"):
        fitted().attention(make_frame(), "visual")
