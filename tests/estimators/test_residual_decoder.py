"""What the training scans let expect, inside the model."""

from __future__ import annotations

import numpy as np
import pytest

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.data import make_cohort

SIZES = {"dim": 8, "depth": 1, "n_heads": 2, "window": 30, "random_state": 0}


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_scans=12, n_regions=8, n_timepoints=60)


def test_hidden_regions_are_known_before_any_training(cohort) -> None:
    X = cohort.data.drop(columns="sc")
    scores = {
        decoder: BrainSymphonyEmbedder(**SIZES, max_epochs=0, decoder=decoder)
        .fit(X[:8])
        .score(X[8:])
        for decoder in ("temporal", "residual")
    }
    assert scores["residual"] > max(scores["temporal"], 0.1) + 0.1


def test_hidden_edges_are_known_before_any_training(cohort) -> None:
    X = cohort.data.drop(columns="fmri")
    model = BrainSymphonyEmbedder(**SIZES, max_epochs=0, decoder="residual").fit(X[:8])
    known = np.mean(model.scaled(X[:8], "sc"), axis=0)
    decoded = model.reconstruct(X[8:], modality="sc")
    assert abs(decoded - known).max() < 0.1
    model.set_params(max_epochs=2).fit(X[:8])
    assert np.isfinite(model.score(X[8:]))


def test_the_filter_is_learned_saved_and_continued(cohort, tmp_path) -> None:
    model = BrainSymphonyEmbedder(**SIZES, max_epochs=1, decoder="residual")
    model.fit(cohort.data)
    taps = model.backbone_.fmri.dynamics.whitening.clone()
    assert taps[:, :, :2].any()
    model.save_pretrained(tmp_path / "model")
    loaded = BrainSymphonyEmbedder.from_pretrained(tmp_path / "model")
    hidden = [np.arange(60 * 8).reshape(60, 8) % 7 == 0 for _ in range(12)]
    for before, after in zip(
        model.reconstruct(cohort.data, mask=hidden),
        loaded.reconstruct(cohort.data, mask=hidden),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    classifier = BrainSymphonyClassifier(
        pretrained=tmp_path / "model", max_epochs=1, random_state=0
    ).fit(cohort.data, cohort.target)
    assert classifier.backbone_.fmri.dynamics.whitening.equal(taps)


def test_a_hidden_value_reaches_no_prediction(cohort) -> None:
    X = cohort.data.drop(columns="sc")
    model = BrainSymphonyEmbedder(**SIZES, max_epochs=1, decoder="residual").fit(X)
    hidden = np.zeros((60, 8), dtype=bool)
    hidden[10:20, 3] = True
    other = X.copy()
    scan = np.array(X["fmri"].iloc[0])
    z = (scan - scan.mean(0)) / scan.std(0)
    changed = scan.copy()  # the same mean and spread, another order
    changed[10:20, 3] = changed[10:20, 3][::-1]
    other["fmri"] = [changed, *X["fmri"].iloc[1:]]
    masks = [hidden] + [None] * 11
    before = model.reconstruct(X, mask=masks)[0]
    after = model.reconstruct(other, mask=masks)[0]
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert abs(before - z).max() > 0


def test_scans_of_one_time_point_have_no_past() -> None:
    X = np.random.default_rng(0).normal(size=(20, 6))
    sizes = {**SIZES, "window": None}
    model = BrainSymphonyEmbedder(**sizes, max_epochs=1, decoder="residual").fit(X)
    assert np.isfinite(model.transform(X)).all()
