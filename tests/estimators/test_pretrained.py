"""Weights as a starting point: saved estimators and the official layout."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.data import GradientCoordinates, make_cohort
from bsym_sklearn.estimators.seen import shared_participants
from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.training.reference import PARTS, PERCEIVER, load_reference_checkpoint

N, R, T = 8, 5, 30
TINY = {
    "dim": 8,
    "depth": 1,
    "n_heads": 2,
    "max_epochs": 1,
    "lr": 1e-2,
    "random_state": 0,
}
ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


def make_data(**options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(N, R, T, **options)
    return cohort.data.assign(t_r=np.repeat([2.0, 1.5], N // 2)), cohort.target


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))  # noqa: S301


def assert_same(first: Any, second: Any, X: Any) -> None:
    """Assert the same bits in weights and predictions, and the same state."""
    np.testing.assert_array_equal(output(first, X), output(second, X))
    ours, theirs = (e.net_.module_.state_dict() for e in (first, second))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pd.testing.assert_frame_equal(first.history_, second.history_)
    for name in ("n_regions_", "n_features_in_", "modalities_", "regions_", "seed_"):
        assert getattr(first, name) == getattr(second, name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    """Return a folder per class, saved once; copy before changing one."""
    X, y = make_data()
    folders = {}
    for kind in ESTIMATORS:
        folders[kind] = tmp_path_factory.mktemp("saved") / kind.__name__
        kind(**TINY).fit(X, y).save_pretrained(folders[kind])
    return folders


def backbone_of(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.backbone_.state_dict().items()}


def same_weights(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@each_estimator
def test_frozen_pretrained_embedder_equals_the_saved_one(kind, saved):
    X, _ = make_data()
    source = kind.from_pretrained(saved[kind])
    frozen = BrainSymphonyEmbedder(pretrained=saved[kind], max_epochs=0)
    Z = frozen.fit_transform(X.iloc[:3])  # learns nothing from these rows
    assert same_weights(backbone_of(frozen), backbone_of(source))
    np.testing.assert_array_equal(Z, frozen.transform(X.iloc[:3]))
    if kind is BrainSymphonyEmbedder:
        np.testing.assert_array_equal(frozen.transform(X), source.transform(X))


def test_pretrained_may_be_text_and_brings_its_preprocessing(tmp_path):
    X, _ = make_data()
    source = BrainSymphonyEmbedder(**TINY, standardize="cohort_robust", t_r="t_r").fit(
        X
    )
    source.save_pretrained(tmp_path)
    again = BrainSymphonyEmbedder(pretrained=str(tmp_path), t_r="t_r", max_epochs=0)
    np.testing.assert_array_equal(
        again.fit(X.iloc[:2]).transform(X), source.transform(X)
    )


def test_pretraining_goes_on_from_the_weights(saved):
    X, _ = make_data()
    source = BrainSymphonyEmbedder.from_pretrained(saved[BrainSymphonyEmbedder])
    on, scratch = (
        BrainSymphonyEmbedder(**TINY | {"lr": 1e-5}, pretrained=folder).fit(X)
        for folder in (saved[BrainSymphonyEmbedder], None)
    )
    near = np.abs(on.transform(X) - source.transform(X)).max()
    assert 0 < near < 1e-2
    assert np.abs(scratch.transform(X) - source.transform(X)).max() > 10 * near


@pytest.mark.parametrize("strategy", ["finetune", "probe"])
@pytest.mark.parametrize("kind", ESTIMATORS[1:])
def test_supervised_estimators_start_from_pretrained_weights(kind, strategy, saved):
    X, y = make_data()
    folder = saved[BrainSymphonyEmbedder]
    source = backbone_of(BrainSymphonyEmbedder.from_pretrained(folder))
    model = kind(**TINY, pretrained=folder, strategy=strategy).fit(X, y)
    assert same_weights(backbone_of(model), source) == (strategy == "probe")
    slow = kind(**TINY | {"lr": 1e-12}, pretrained=folder, strategy=strategy).fit(X, y)
    for name, value in backbone_of(slow).items():
        torch.testing.assert_close(value, source[name], rtol=0, atol=1e-6)


def test_pretrained_weights_of_other_regions_raise(saved):
    X = make_cohort(N, R + 2, T).data
    message = (
        f"BrainSymphonyClassifier needs pretrained weights for {R + 2} regions. Got "
        f"{R} in 'BrainSymphonyEmbedder'. Use scans in the atlas of the weights."
    )
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyClassifier(**TINY, pretrained=saved[BrainSymphonyEmbedder]).fit(
            X, np.arange(N) % 2
        )


def test_pretrained_weights_of_the_other_modality_raise(tmp_path):
    X, _ = make_data()
    BrainSymphonyEmbedder(**TINY).fit(X[["sc"]]).save_pretrained(tmp_path / "sc")
    message = r"needs pretrained weights for \['fmri'\]. Got \['sc'\] in 'sc'"
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyEmbedder(**TINY, pretrained=tmp_path / "sc").fit(X[["fmri"]])


def test_pretrained_model_of_both_serves_one_modality(saved, tmp_path):
    X, y = make_data()
    source = BrainSymphonyEmbedder.from_pretrained(saved[BrainSymphonyEmbedder])
    frozen = BrainSymphonyEmbedder(
        pretrained=saved[BrainSymphonyEmbedder], max_epochs=0
    ).fit(X[["sc"]])
    assert frozen.modalities_ == ("sc",)
    expected = source.transform(X.assign(fmri=None))
    np.testing.assert_array_equal(frozen.transform(X[["sc"]]), expected)
    frozen.save_pretrained(tmp_path / "again")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(again.transform(X[["sc"]]), expected)
    model = BrainSymphonyClassifier(**TINY, pretrained=saved[BrainSymphonyEmbedder])
    assert_same(pickled(model.fit(X[["sc"]], y)), model, X[["sc"]])


# ------------------------------------------------------------------ official layout


def official_name(part: Any, name: str) -> str:
    """Return the official name of one of our tensors."""
    official = {ours: theirs for theirs, ours in part.names.items()}
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    prefix, inner = (
        ("", name) if block is None else (f"{part.blocks}.{block[1]}.", block[2])
    )
    if inner in official:
        return prefix + official[inner]
    module, _, kind = inner.rpartition(".")
    return f"{prefix}{official[module]}.{kind}"


def write_official(folder: Path, model: BrainSymphony) -> Path:
    """Write the weights of `model` in the official layout."""
    state = model.state_dict()
    for part in PARTS:
        tensors = {
            name.removeprefix(f"{part.prefix}."): value
            for name, value in state.items()
            if name.startswith(f"{part.prefix}.")
        }
        if part is PERCEIVER:
            for kind in ("weight", "bias"):
                joined = [tensors.pop(f"{x}.{kind}") for x in ("query", "key_value")]
                tensors[f"in_proj.{kind}"] = torch.cat(joined)
        unpublished = {"mask_token"} if "mask_token" not in part.names else set()
        files = {
            official_name(part, name): value
            for name, value in tensors.items()
            if name not in unpublished | {"positions.coordinates"}
        }
        if "pos_enc.pe" in files:
            files["pos_enc.pe"] = files["pos_enc.pe"].unsqueeze(0)
        (folder / part.file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(files, folder / part.file)
    return folder


OFFICIAL = {"dim": 8, "depth": 1, "perceiver_depth": 1}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Return a tiny folder in the official layout."""
    return write_official(tmp_path / "official", BrainSymphony(R, 20, **OFFICIAL))


no_gate = pytest.mark.filterwarnings("ignore:The official weights have no gate")


@no_gate
def test_official_weights_can_be_pretrained_weights(official, tmp_path):
    X, y = make_data()
    frozen = BrainSymphonyEmbedder(pretrained=official, max_epochs=0).fit(X)
    module = load_reference_checkpoint(official)
    assert same_weights(backbone_of(frozen), module.state_dict())
    assert frozen.preprocessing_.window == 20
    x = torch.from_numpy(StandardScaler().fit_transform(X["fmri"][0][:20])[None])
    with torch.inference_mode():
        expected = module(fmri=x.float()).latents.numpy()
    alone = BrainSymphonyEmbedder(pretrained=official, max_epochs=0).fit(X[["fmri"]])
    got = alone.transform_regions([X["fmri"][0][:20]])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    frozen.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.transform(X), frozen.transform(X))
    probe = BrainSymphonyClassifier(**TINY, pretrained=official, strategy="probe")
    assert same_weights(backbone_of(probe.fit(X, y)), module.state_dict())


def test_official_weights_warn_that_the_gate_is_untrained(official):
    with pytest.warns(BrainSymphonyWarning, match="have no gate"):
        BrainSymphonyEmbedder(pretrained=official, max_epochs=0).fit(make_data()[0])


@no_gate
@pytest.mark.filterwarnings("ignore:The positions are gradients")
def test_official_gradient_positions_come_from_the_training_scans(tmp_path):
    X, _ = make_data()
    module = BrainSymphony(R, 20, positions="gradient", n_gradients=3, **OFFICIAL)
    folder = write_official(tmp_path / "official", module)
    model = BrainSymphonyEmbedder(pretrained=folder, max_epochs=0).fit(X)
    used = model.backbone_.fmri.spatial.positions.coordinates.numpy()
    gradients = GradientCoordinates(n_components=3).fit(X[["fmri"]])
    np.testing.assert_allclose(used, gradients.coordinates_, atol=1e-6)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@no_gate
def test_official_weights_of_other_regions_raise(official):
    X = make_cohort(4, R + 1, T).data
    with pytest.raises(CheckpointError, match=f"for {R + 1} regions. Got {R}"):
        BrainSymphonyEmbedder(pretrained=official).fit(X)


@no_gate
@pytest.mark.slow
def test_the_official_checkpoint_embeds_scans_of_its_size(shared):
    folder = shared / "parity" / "checkpoint"
    module = load_reference_checkpoint(folder)
    X = make_cohort(3, module.n_regions, module.window + 20).data
    model = BrainSymphonyEmbedder(pretrained=folder, max_epochs=0).fit(X)
    assert model.transform_regions(X).shape == (3, module.n_regions, module.dim)
    assert np.isfinite(model.transform(X)).all()


def test_participants_of_pretraining_are_remembered(tmp_path: Path) -> None:
    X, y = make_data()
    first = BrainSymphonyEmbedder(**TINY).fit(X.iloc[:4])
    first.save_pretrained(tmp_path / "saved")
    clf = BrainSymphonyClassifier(**TINY, pretrained=tmp_path / "saved")
    clf.fit(X.iloc[4:], y[4:])
    assert len(clf.participants_) == N
    everybody = {*X["participant_id"]}
    assert shared_participants(everybody, clf.participants_) == everybody
    assert pickled(clf).participants_ == clf.participants_


@pytest.mark.parametrize(("before", "after"), [(None, "t_r"), ("t_r", None)])
def test_an_unknown_repetition_time_is_warned_of(
    before: str | None, after: str | None, tmp_path: Path
) -> None:
    X, _ = make_data()
    BrainSymphonyEmbedder(**TINY, t_r=before).fit(X).save_pretrained(tmp_path / "saved")
    model = BrainSymphonyEmbedder(**TINY, t_r=after, pretrained=tmp_path / "saved")
    with pytest.warns(BrainSymphonyWarning, match="cannot resample the scans"):
        model.fit(X)


def test_a_table_at_prediction_points_at_the_list() -> None:
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY).fit(X[["fmri"]])
    with pytest.raises(ValueError, match=r"Pass \[X\] if it is one scan"):
        model.transform(np.random.default_rng(0).normal(size=(20, R)))
