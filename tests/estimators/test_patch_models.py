"""BrainLM and Brain-JEPA behave as BrainSymphony's estimators do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from bsym_sklearn import (
    BrainDataError,
    BrainJEPAClassifier,
    BrainJEPAEmbedder,
    BrainJEPARegressor,
    BrainLMClassifier,
    BrainLMEmbedder,
    BrainLMRegressor,
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.data import make_cohort

N, R, T = 10, 8, 64
TINY: dict[str, Any] = {"max_epochs": 2, "batch_size": 5, "random_state": 0}
CHECKED = {
    "max_epochs": 20,
    "batch_size": 64,
    "lr": 3e-3,
    "pooling": "regions",
    "validation_fraction": 0.0,
    "dtype": "float64",
    "random_state": 0,
}
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "a weight of 2 is one scan that "
    "counts twice, not two scans: order, batches and Adam's steps depend on the rows"
}
EMBEDDERS = [BrainLMEmbedder, BrainJEPAEmbedder]
SUPERVISED = [
    BrainLMClassifier,
    BrainLMRegressor,
    BrainJEPAClassifier,
    BrainJEPARegressor,
]
each_embedder = pytest.mark.parametrize("kind", EMBEDDERS)
each_supervised = pytest.mark.parametrize("kind", SUPERVISED)
each = pytest.mark.parametrize("kind", EMBEDDERS + SUPERVISED)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(nearly the same embedding|embeddings on one line):"
    "bsym_sklearn.exceptions.BrainSymphonyWarning"
)


def make_data(n_scans: int = N) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(n_scans, R, T)
    return cohort.data.drop(columns="sc"), cohort.target


def fit(kind: Any, X: Any = None, **options: Any) -> Any:
    scans, y = make_data()
    target = scans["age"].to_numpy() if "Regressor" in kind.__name__ else y
    return kind(**TINY | options).fit(scans if X is None else X, target)


def output(estimator: Any, X: Any) -> np.ndarray:
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


@parametrize_with_checks(
    [
        BrainLMEmbedder(**CHECKED | {"max_epochs": 1}),
        BrainLMClassifier(**CHECKED),
        BrainLMRegressor(**CHECKED),
    ],
    expected_failed_checks=lambda e: {} if hasattr(e, "transform") else EXPECTED,
    xfail_strict=True,
)
def test_estimator_passes_sklearns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@each
def test_models_repeat_to_the_bit_and_are_saved(kind: Any, tmp_path: Any) -> None:
    X, _ = make_data()
    first = fit(kind)
    assert np.isfinite(output(first, X)).all()
    np.testing.assert_array_equal(output(first, X), output(fit(kind), X))
    first.save_pretrained(tmp_path / "saved")
    for copy in (
        kind.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(first)),  # noqa: S301  (our own bytes)
    ):
        np.testing.assert_array_equal(output(copy, X), output(first, X))
    assert not hasattr(clone(first), "net_")


@each_embedder
@pytest.mark.parametrize(("pooling", "width"), [("mean", 64), ("regions", R * 64)])
def test_embeddings_have_named_columns(kind: Any, pooling: str, width: int) -> None:
    X, _ = make_data()
    embedder = fit(kind, pooling=pooling)
    assert embedder.transform(X).shape == (N, width)
    names = embedder.get_feature_names_out()
    assert len(names) == len(set(names)) == width
    assert list(embedder.set_output(transform="pandas").transform(X)) == list(names)


@each_embedder
def test_pretraining_lowers_the_loss(kind: Any) -> None:
    history = fit(kind, max_epochs=8, validation_fraction=0.0).history_
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


@each_supervised
@pytest.mark.parametrize("strategy", ["finetune", "probe"])
def test_supervised_models_start_from_a_saved_embedder(
    kind: Any, strategy: str, tmp_path: Any
) -> None:
    embedder = fit(BrainLMEmbedder if "LM" in kind.__name__ else BrainJEPAEmbedder)
    embedder.save_pretrained(tmp_path / "saved")
    model = fit(kind, pretrained=tmp_path / "saved", strategy=strategy)
    before, after = embedder.backbone_.state_dict(), model.backbone_.state_dict()
    same = [torch.equal(before[name], after[name]) for name in before]
    assert all(same) == (strategy == "probe")
    assert len(model.participants_) == len(embedder.participants_)


@each_supervised
def test_pretraining_inside_fit_changes_the_start(kind: Any) -> None:
    X, _ = make_data()
    with_it, without = fit(kind, pretrain_epochs=2), fit(kind)
    assert not np.array_equal(output(with_it, X), output(without, X))


def test_the_target_encoder_follows_and_is_adopted() -> None:
    start = fit(BrainJEPAEmbedder, max_epochs=0).backbone_
    trained = fit(BrainJEPAEmbedder, max_epochs=3, validation_fraction=0.0).backbone_
    encoder, target = (
        part.state_dict() for part in (trained.encoder, trained.target_encoder)
    )
    assert all(torch.equal(encoder[name], target[name]) for name in encoder)
    moved = [
        (target[name] - before).abs().max()
        for name, before in start.target_encoder.state_dict().items()
    ]
    assert max(moved) > 0


def test_brainlm_reads_the_centres_of_regions() -> None:
    X, _ = make_data()
    centres = np.arange(3.0 * R).reshape(R, 3)
    regions = pd.DataFrame(centres, columns=["x", "y", "z"])
    regions.insert(0, "label", [f"region{r}" for r in range(R)])
    X.attrs["regions"] = regions
    embedder = fit(BrainLMEmbedder, X)
    np.testing.assert_array_equal(embedder.backbone_.coordinates.numpy(), centres)
    without = fit(BrainLMEmbedder).backbone_.coordinates
    assert without.std(0).min() > 1  # gradients, spread as a brain is


def test_windows_hold_whole_patches() -> None:
    X, _ = make_data()
    embedder = BrainLMEmbedder(**TINY, window=50).fit(X)
    assert embedder.backbone_.window == embedder.preprocessing_.window == 40
    short = [x[:13] for x in X["fmri"]]
    assert BrainLMEmbedder(**TINY).fit(short).backbone_.patch_size == 13


def test_a_collapse_is_warned_of() -> None:
    same = [make_data()[0]["fmri"][0]] * N
    with pytest.warns(BrainSymphonyWarning, match="nearly the same embedding"):
        embedder = BrainLMEmbedder(**TINY).fit(same)
    assert embedder.between_scan_spread_ < 1e-6
    assert fit(BrainLMEmbedder).effective_rank_ > 1


def test_embedders_work_in_a_pipeline() -> None:
    X, y = make_data(12)
    model = make_pipeline(BrainLMEmbedder(**TINY), LogisticRegression())
    assert cross_val_score(model, X, y, cv=2).shape == (2,)


@each
def test_scans_without_fmri_are_named(kind: Any) -> None:
    cohort = make_cohort(N, R, T)
    X = cohort.data.copy()
    X["fmri"] = [None if i == 4 else x for i, x in enumerate(X["fmri"])]
    with pytest.raises(BrainDataError, match=r"needs fMRI .* first in scan 4"):
        kind(**TINY).fit(X, cohort.target)


def test_weights_of_another_atlas_or_model_are_refused(tmp_path: Any) -> None:
    X, y = make_data()
    fit(BrainLMEmbedder).save_pretrained(tmp_path / "saved")
    fewer = [x[:, :6] for x in X["fmri"]]
    with pytest.raises(CheckpointError, match=r"for 6 regions\. Got 8"):
        BrainLMClassifier(**TINY, pretrained=tmp_path / "saved").fit(fewer, y)
    with pytest.raises(CheckpointError, match="cannot use 'saved'"):
        BrainJEPAClassifier(**TINY, pretrained=tmp_path / "saved").fit(X, y)


@each
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": "huge"}, "`size` must be"),
        ({"pooling": "max"}, "`pooling` must be"),
        ({"masking": "none"}, "`masking` must be"),
    ],
)
def test_bad_parameters_are_errors(kind: Any, option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(kind, **option)


@each_embedder
def test_tokens_are_hidden_as_published_or_repaired(kind: Any) -> None:
    X, _ = make_data()
    made = [fit(kind, masking=way) for way in (None, "repaired", "published")]
    default, repaired, published = (model.transform(X) for model in made)
    np.testing.assert_array_equal(default, repaired)
    assert not np.array_equal(default, published)


PUBLISHED = Path(__file__).parents[1] / "model" / "fixtures" / "rivals"
published = pytest.mark.parametrize(
    ("embedder", "classifier", "file", "window"),
    [
        (BrainLMEmbedder, BrainLMClassifier, "brainlm.safetensors", 56),
        (BrainJEPAEmbedder, BrainJEPAClassifier, "brain_jepa.safetensors", 40),
    ],
)


@published
def test_published_weights_embed_and_are_fine_tuned(
    embedder, classifier, file, window, tmp_path
) -> None:
    cohort = make_cohort(n_scans=N, n_regions=20, n_timepoints=60, random_state=0)
    X, weights = cohort.data[["fmri"]], load_file(PUBLISHED / file)
    model = embedder(pretrained=PUBLISHED / file, max_epochs=0, random_state=0)
    features = model.fit(X).transform(X)
    assert model.preprocessing_.window == model.backbone_.window == window
    own = model.backbone_.state_dict()
    assert {x.shape for x in weights.values()} & {x.shape for x in own.values()}
    assert model.backbone_.coordinates.abs().sum() > 0
    again = embedder(pretrained=PUBLISHED / file, max_epochs=0, random_state=1).fit(X)
    np.testing.assert_array_equal(again.transform(X), features)  # nothing is random
    model.save_pretrained(tmp_path / "saved")
    saved = embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(saved.transform(X), features, rtol=1e-5)
    tuned = classifier(**TINY, pretrained=PUBLISHED / file).fit(X, cohort.target)
    assert tuned.predict(X).shape == (N,)


@published
def test_published_weights_are_refused_for_other_scans(
    embedder, classifier, file, window, tmp_path
) -> None:
    X = make_cohort(n_scans=4, n_regions=20, n_timepoints=60).data[["fmri"]]
    model = embedder(pretrained=PUBLISHED / file, max_epochs=0)
    with pytest.raises(ValueError, match=r"takes `patch_size` from .* Leave it out"):
        clone(model).set_params(patch_size=5).fit(X)
    broken = load_file(PUBLISHED / file)
    name = next(name for name, x in broken.items() if x.ndim == 1)
    broken[name][0] = np.nan
    save_file(broken, tmp_path / file)
    with pytest.raises(CheckpointError, match="Not finite: "):
        clone(model).set_params(pretrained=tmp_path / file).fit(X)
    if embedder is BrainJEPAEmbedder:
        with pytest.raises(ValueError, match=r"takes `window` from .* has 40\. Got 60"):
            clone(model).set_params(window=60).fit(X)
        few = make_cohort(n_scans=4, n_regions=9, n_timepoints=60).data[["fmri"]]
        with pytest.raises(
            CheckpointError, match=r"cannot use .*\(20, 3\)\. Got \(9, 3\)"
        ):
            model.fit(few)
