"""What the head reads, how fast it learns, and that it is saved with the model."""

from __future__ import annotations

import pickle
from pathlib import Path
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
from bsym_sklearn.estimators.supervised import STATES_RATE
from bsym_sklearn.training.checkpoints import load_bundle, save_bundle

N, R, T = 8, 5, 30
TINY: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 2,
    "max_epochs": 1,
    "lr": 1e-2,
    "random_state": 0,
}
LINEAR = {"temporal_tokens": "linear"}


def make_data(**options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(N, R, T, **options)
    return cohort.data, cohort.target


def readouts_of(model: Any) -> list[str]:
    return list(model.net_.module_.head.readouts)


@pytest.mark.parametrize(
    ("modalities", "options", "expected"),
    [
        ("both", {}, ["spatial", "states", "structural", "fused"]),
        ("fmri", {}, ["spatial", "states", "fused"]),
        ("sc", {}, ["structural", "fused"]),
        ("fmri", LINEAR, ["spatial", "temporal", "fused"]),
        ("both", {"readouts": "fused"}, ["fused"]),
        ("both", {"readouts": "states+structural"}, ["states", "structural"]),
        ("fmri", {"readouts": "temporal"}, ["temporal"]),
        ("fmri", {"readouts": "temporal+states"}, ["temporal", "states"]),
    ],
)
def test_every_stream_that_is_there_is_read(
    modalities: str, options: dict[str, Any], expected: list[str]
) -> None:
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY, modalities=modalities, **options).fit(X, y)
    assert readouts_of(model) == expected
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1, rtol=1e-6)
    one = model.predict_proba(X[:1])
    np.testing.assert_allclose(one, model.predict_proba(X)[:1], rtol=1e-4)


@pytest.mark.parametrize(
    ("modalities", "options", "message"),
    [
        ("both", {"readouts": "latents"}, "`readouts` must be one of .* Got 'latents'"),
        ("both", {"readouts": ""}, "`readouts` must be one of .* Got ''"),
        ("both", {"readouts": "spatial, fused"}, "`readouts` must be one of"),
        ("both", {"readouts": None}, "`readouts` must be one of .* Got 'None'"),
        ("fmri", {"readouts": "structural"}, "`readouts` must be one of"),
        ("sc", {"readouts": "temporal"}, "`readouts` must be one of"),
        ("fmri", {"readouts": "states", **LINEAR}, "`readouts` must be one of"),
        (
            "both",
            {"readouts": "spatial+states"},
            r"`readouts` needs a stream of every modality, or 'fused'. Got "
            r"'spatial\+states' with \['fmri', 'sc'\]. Add one, or set `modalities`.",
        ),
    ],
)
def test_streams_that_are_not_there_cannot_be_read(
    modalities: str, options: dict[str, Any], message: str
) -> None:
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        BrainSymphonyClassifier(**TINY, modalities=modalities, **options).fit(X, y)


def test_a_scan_without_a_modality_is_read_from_the_other() -> None:
    X, y = make_data(missing_sc=0.25, missing_fmri=0.25)
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 5}).fit(X, y)
    bare = X["sc"].isna().to_numpy()
    alone = X[["fmri"]].assign(sc=None)
    expected = model.predict_proba(X)[bare]
    np.testing.assert_allclose(model.predict_proba(alone[bare]), expected, rtol=1e-5)
    with_sc = X["sc"].notna() & X["fmri"].notna()
    other = model.predict_proba(alone[with_sc])
    assert not np.allclose(model.predict_proba(X[with_sc]), other)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_states_learn_faster(layer_decay: float) -> None:
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY, layer_decay=layer_decay).fit(X, y)
    model.partial_fit(X, y)  # at a constant rate
    task, optimizer = model.net_.module_, model.net_.optimizer_
    rates = {
        id(p): group["lr"] / TINY["lr"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    input_rate = layer_decay ** (TINY["depth"] + 1)
    states, spatial = task.backbone.fmri.temporal.states, task.backbone.fmri.spatial
    readouts = task.head.readouts
    assert rates[id(readouts["states"].weight)] == pytest.approx(STATES_RATE)
    assert rates[id(readouts["fused"].weight)] == 1
    found = [rates[id(part.embed.weight)] for part in (states, spatial)]
    assert found == pytest.approx([STATES_RATE * input_rate, input_rate])


@pytest.mark.parametrize("way", ["fit", "pickle", "file"])
@pytest.mark.parametrize("kind", [BrainSymphonyClassifier, BrainSymphonyRegressor])
def test_training_goes_on_at_the_rate_of_each_part(
    kind: type, way: str, tmp_path: Path
) -> None:
    X, y = make_data()
    model = kind(**TINY, layer_decay=0.5).fit(X, y)
    if way == "pickle":
        model = pickle.loads(pickle.dumps(model))  # noqa: S301
    elif way == "file":
        model.save_pretrained(tmp_path / "saved")
        model = kind.from_pretrained(tmp_path / "saved")
    assert model.partial_fit(X, y).n_iter_ == 2


@pytest.mark.parametrize(
    "options",
    [
        {"modalities": "fmri", "readouts": "spatial+states"},
        {"temporal_kernel": 3, "head_dropout": 0.1},
        LINEAR | {"temporal_kernel": 3, "readouts": "temporal+fused"},
        {"pooling": "mean"},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
@pytest.mark.parametrize("kind", [BrainSymphonyClassifier, BrainSymphonyRegressor])
def test_saved_models_read_the_same_streams(
    kind: type, options: dict[str, Any], tmp_path: Path
) -> None:
    X, y = make_data()
    model = kind(**TINY, **options).fit(X, y)
    model.save_pretrained(tmp_path / "saved")
    copies = [
        kind.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(model)),  # noqa: S301
    ]
    for copy in copies:
        assert copy.get_params() == model.get_params()
        assert readouts_of(copy) == readouts_of(model)
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))


def test_bundles_from_before_there_were_states_have_linear_tokens(
    tmp_path: Path,
) -> None:
    X, y = make_data()
    model = BrainSymphonyEmbedder(**TINY, **LINEAR).fit(X)
    model.save_pretrained(tmp_path)
    tensors, config = load_bundle(tmp_path)
    for name in ("temporal_tokens", "temporal_kernel", "n_states"):
        del config["backbone"][name]
        config["params"].pop(name, None)
    save_bundle(tmp_path, tensors=tensors, config=config)
    loaded = BrainSymphonyEmbedder.from_pretrained(tmp_path)
    assert not loaded.backbone_.has_states
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    tuned = BrainSymphonyClassifier(**TINY, pretrained=tmp_path).fit(X, y)
    assert not tuned.backbone_.has_states
    assert readouts_of(tuned) == ["spatial", "temporal", "structural", "fused"]
