from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from bsym_sklearn import (
    BrainLMClassifier,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.analysis.explained import log_odds
from bsym_sklearn.analysis.importance import (
    agreement,
    integrated_gradients,
    occlusion,
)
from bsym_sklearn.data import make_cohort

SMALL = {"dim": 8, "depth": 1, "max_epochs": 3, "lr": 0.01, "random_state": 0}
N_REGIONS = 6
SIGNAL = (0, 1)  # regions whose coupling tells the classes apart


@pytest.fixture(scope="module")
def scans() -> pd.DataFrame:
    """Return scans of several lengths, two of them with one modality."""
    X = make_cohort(n_scans=12, n_regions=N_REGIONS, n_timepoints=60).data.copy()
    X["fmri"] = [x[: 40 + 5 * (i % 5)] for i, x in enumerate(X["fmri"])]
    X["sc"] = list(X["sc"])
    X.loc[2, "fmri"] = None
    X.loc[5, "sc"] = None
    return X


@pytest.fixture(scope="module")
def models(scans) -> dict:
    """Return one model of each kind, in double precision, of windows of 50."""
    made = {
        "classifier": (BrainSymphonyClassifier, np.resize(["a", "b", "c"], len(scans))),
        "regressor": (BrainSymphonyRegressor, scans["age"]),
        "embedder": (BrainSymphonyEmbedder, None),
    }
    return {
        kind: make(**SMALL, dtype="float64", window=50).fit(scans, y)
        for kind, (make, y) in made.items()
    }


@pytest.fixture(scope="module")
def coupled() -> tuple[list[np.ndarray], np.ndarray]:
    """Return scans in which two regions move together in class 1 only."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = [rng.standard_normal((50, N_REGIONS)) for _ in y]
    for x, label in zip(X, y, strict=True):
        if label:
            x[:, 1] = 0.5 * x[:, 1] + x[:, 0]
    return X, y


@pytest.fixture(scope="module")
def taught(coupled) -> BrainSymphonyClassifier:
    """Return a classifier that has learned it from the correlations."""
    settings = {**SMALL, "max_epochs": 40, "validation_fraction": 0.0}
    settings |= {"readouts": "spatial", "head_dropout": 0.0, "dropout": 0.0}
    return BrainSymphonyClassifier(**settings).fit(*coupled)


def test_log_odds_are_those_of_the_probabilities() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [4.0, 0.0, 1.0]], dtype=torch.float64)
    p = logits.softmax(1)
    torch.testing.assert_close(log_odds(logits), p.logit())


@pytest.mark.parametrize("modality", ["fmri", "sc"])
@pytest.mark.parametrize("kind", ["classifier", "regressor", "embedder"])
def test_attributions_add_up_to_the_difference(models, scans, kind, modality) -> None:
    coarse, fine = (
        integrated_gradients(models[kind], scans, modality=modality, n_steps=n)
        for n in (4, 32)
    )
    lacking = 2 if modality == "fmri" else 5
    present = np.delete(np.arange(len(scans)), lacking)
    assert fine.attributions[lacking] is None
    assert np.isnan(fine.regions[lacking]).all()
    assert np.isnan(fine.output[lacking])
    change = np.abs(fine.output - fine.baseline)[present]
    error = np.abs(fine.error[present])
    assert error.max() < 0.03 * change.max()
    assert error.mean() < np.abs(coarse.error[present]).mean()
    for row in present:
        values = fine.attributions[row]
        shape = np.shape(scans[modality][row])
        assert values.shape == shape
        np.testing.assert_allclose(values.sum(0), fine.regions[row])
    if modality == "sc":
        np.testing.assert_allclose(values, values.T)


def test_outputs_are_those_of_the_model(models, scans) -> None:
    """In windows of 50, scans of at most 50 time points have one."""
    short = scans.iloc[[0, 1, 2]]
    y = np.array(["a", "c", "b"])
    model = models["classifier"]
    found = integrated_gradients(model, short, y, n_steps=2)
    p = model.predict_proba(short)[range(3), [0, 2, 1]]
    np.testing.assert_allclose(found.output[:2], np.log(p / (1 - p))[:2])
    model = models["regressor"]
    found = integrated_gradients(model, short, n_steps=2)
    np.testing.assert_allclose(found.output[:2], model.predict(short)[:2])


def test_what_is_explained_by_default_is_the_predicted_class(models, scans) -> None:
    model = models["classifier"]
    asked = occlusion(model, scans, model.predict(scans))
    np.testing.assert_array_equal(occlusion(model, scans), asked)


def test_occlusion_uses_the_mask_of_the_model(models, scans) -> None:
    """A hidden region's values do not matter, and hiding changes the features."""
    model = models["embedder"]
    distance = occlusion(model, scans, modality="fmri")
    assert distance.shape == (12, N_REGIONS)
    assert np.isnan(distance[2]).all()
    assert (np.delete(distance, 2, axis=0) > 0).all()
    cosine = occlusion(model, scans, modality="fmri", distance="cosine")
    assert (np.delete(cosine, 2, axis=0) < 2).all()
    edges = occlusion(model, scans, modality="sc")
    assert np.isnan(edges[5]).all()
    both = occlusion(model, scans)
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both[2], edges[2])  # nothing else to hide there
    np.testing.assert_allclose(both[5], distance[5])


def test_occlusion_does_not_depend_on_batches(models, scans) -> None:
    model = models["regressor"]
    whole = occlusion(model, scans)
    alone = occlusion(model, scans.iloc[[4]])
    np.testing.assert_allclose(alone[0], whole[4])
    gradients = integrated_gradients(model, scans, n_steps=3).regions[1]
    alone = integrated_gradients(model, scans.iloc[:3], n_steps=3).regions[1]
    np.testing.assert_allclose(gradients, alone)


def test_networks_are_hidden_at_once(models, scans) -> None:
    model = models["regressor"]
    alone = occlusion(model, scans)
    networks = ["b", "a", "c", "c", "c", "c"]
    together = occlusion(model, scans, networks=networks)
    assert together.shape == (12, 3)
    np.testing.assert_allclose(together[:, 0], alone[:, 1])  # sorted by name
    np.testing.assert_allclose(together[:, 1], alone[:, 0])
    with pytest.raises(ValueError, match="Got 2 for 6"):
        occlusion(model, scans, networks=["a", "b"])


def test_regions_that_carry_the_signal_come_first(taught, coupled) -> None:
    X, y = coupled
    assert taught.score(X, y) > 0.9
    hidden = occlusion(taught, X, y)
    gradients = integrated_gradients(taught, X, y, n_steps=16)
    # only class 1 shows a coupling that hiding or shifting can take away
    for values in (hidden[y == 1], gradients.regions[y == 1]):
        mean = values.mean(0)
        assert set(np.argsort(-mean)[:2]) == {*SIGNAL}
        assert (mean[list(SIGNAL)] > 0).all()
    assert np.sign(hidden[y == 1].sum(1) * gradients.regions[y == 1].sum(1)).mean() > 0


def test_shifted_series_keep_their_padding_and_follow_the_seed(taught, coupled) -> None:
    X = [*coupled[0][:2], coupled[0][2][:20]]
    first, again, other = (
        integrated_gradients(taught, X, n_steps=3, random_state=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.regions, again.regions)
    assert not np.allclose(first.regions, other.regions)
    assert first.attributions[2].shape == (20, N_REGIONS)
    mean = integrated_gradients(taught, X, n_steps=3, n_baselines=3)
    np.testing.assert_allclose(mean.output, first.output)
    assert not np.allclose(mean.baseline, first.baseline)


def test_constant_regions_get_nothing(coupled) -> None:
    X = [x.copy() for x in coupled[0][:12]]
    for x in X:
        x[:, 3] = 0.0
    model = BrainSymphonyRegressor(**SMALL, constant_regions="mask")
    model.fit(X, np.arange(12.0))
    assert (integrated_gradients(model, X, n_steps=3).regions[:, 3] == 0).all()
    hidden = occlusion(model, X)
    np.testing.assert_allclose(hidden[:, 3], 0, atol=1e-6)
    assert (np.abs(hidden[:, 0]) > 1e-6).all()


def test_zero_is_refused_where_correlations_are_read(coupled) -> None:
    X, y = (part[:16] for part in coupled)
    model = BrainSymphonyClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match='use baseline="shifted"'):
        integrated_gradients(model, X, baseline="zero")
    settings = {**SMALL, "spatial_tokens": "series", "dtype": "float64"}
    model = BrainSymphonyClassifier(**settings).fit(X, y)
    found = integrated_gradients(model, X[:6], baseline="zero", n_steps=64)
    change = np.abs(found.output - found.baseline).max()
    assert np.abs(found.error).max() < 0.05 * change


def test_connectomes_with_jumps_are_refused(scans) -> None:
    model = BrainSymphonyEmbedder(**SMALL, edge_weights="diffusion").fit(scans)
    with pytest.raises(ValueError, match=r"without a jump.*use occlusion"):
        integrated_gradients(model, scans, modality="sc")
    assert np.isfinite(occlusion(model, scans)).all()


def test_others_and_wrong_classes_are_refused(models, scans, coupled) -> None:
    with pytest.raises(TypeError, match="Got BrainLMClassifier"):
        occlusion(BrainLMClassifier(), scans)
    model = models["classifier"]
    with pytest.raises(ValueError, match=r"one of the classes \['a', 'b', 'c'\]"):
        occlusion(model, scans, ["z"] * 12)
    with pytest.raises(ValueError, match="shape \\(2,\\) for 12 scans"):
        integrated_gradients(model, scans, ["a", "b"])
    with pytest.raises(ValueError, match="`modality` must be one of"):
        occlusion(model, scans, modality="eeg")
    with pytest.raises(ValueError, match="n_steps == 0"):
        integrated_gradients(model, scans, n_steps=0)


def test_agreement_compares_orders(rng) -> None:
    base = rng.random(8)
    a = base + 0.1 * rng.random((30, 8))
    missing = np.array(a)
    missing[3] = np.nan
    found = agreement({"a": a, "b": np.exp(a), "c": -missing, "d": rng.random((30, 8))})
    assert len(found) == 6
    row = found.set_index(["first", "second"]).loc
    assert row["a", "b"]["within"] == 1
    assert row["a", "c"][["spearman", "within"]].tolist() == [-1, -1]
    assert row["a", "c"]["n_scans"] == 29
    assert row["a", "d"]["low"] < row["a", "d"]["spearman"] < row["a", "d"]["high"]


def test_agreement_draws_participants_as_a_whole(rng) -> None:
    persons = np.repeat(np.arange(5), 8)
    a, b = (rng.random((5, 6))[persons] for _ in range(2))
    a, b = (x + 0.01 * rng.random((40, 6)) for x in (a, b))
    by_scan = agreement({"a": a, "b": b})
    by_person = agreement({"a": a, "b": b}, groups=persons)
    width = [float((d["high"] - d["low"]).iloc[0]) for d in (by_scan, by_person)]
    assert width[1] > width[0]


def test_agreement_needs_two_maps_of_one_shape(rng) -> None:
    a = rng.random((5, 3))
    with pytest.raises(ValueError, match="at least two maps"):
        agreement({"a": a})
    with pytest.raises(ValueError, match=r"'b': \(4, 3\)"):
        agreement({"a": a, "b": a[:4]})
    with pytest.raises(ValueError, match="Got none without NaN"):
        agreement({"a": a, "b": np.full_like(a, np.nan)})
