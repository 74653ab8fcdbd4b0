"""Saving and loading: the same bits, no code, nothing private; clear errors."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    CheckpointError,
    __version__,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.estimators.seen import shared_participants
from bsym_sklearn.training.bundle_format import RESERVED, sign

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


def edit_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change settings as somebody would who computes their hashes anew."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    plain = {name: value for name, value in config.items() if name not in RESERVED}
    signed = sign(plain, (folder / "model.safetensors").read_bytes(), None)
    ours = {name: config[name] for name in ("format", "format_version")}
    (folder / "config.json").write_text(json.dumps(signed | ours))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    """Return a folder per class, saved once; copy before changing one."""
    X, y = make_data()
    folders = {}
    for kind in ESTIMATORS:
        folders[kind] = tmp_path_factory.mktemp("saved") / kind.__name__
        kind(**TINY).fit(X, y).save_pretrained(folders[kind])
    return folders


@pytest.fixture
def bundle(saved: dict[type, Path], tmp_path: Path) -> Path:
    """Return a saved embedder that a test may damage."""
    for file in saved[BrainSymphonyEmbedder].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# ------------------------------------------------------------------ round trips


@pytest.mark.parametrize(
    "options",
    [{}, {"missing_sc": 0.25, "missing_fmri": 0.25}, {"unequal": True}],
    ids=["complete", "missing", "unequal"],
)
@each_estimator
def test_saved_estimators_predict_the_same_bits(kind, options, tmp_path):
    X, y = make_data(**options)
    model = kind(**TINY).fit(X, y)
    model.save_pretrained(tmp_path / "saved")
    assert_same(kind.from_pretrained(tmp_path / "saved"), model, X)


@pytest.mark.parametrize("column", ["fmri", "sc"])
@each_estimator
def test_saved_estimators_of_one_modality_predict_the_same_bits(kind, column, tmp_path):
    X, y = make_data()
    model = kind(**TINY).fit(X[[column]], y)
    model.save_pretrained(tmp_path / "saved")
    again = kind.from_pretrained(tmp_path / "saved")
    assert again.modalities_ == (column,)
    assert_same(again, model, X[[column]])


SETTINGS: dict[str, dict[str, Any]] = {
    "gradient positions": {"positions": "gradient"},
    "repetition times by column": {"t_r": "t_r"},
    "one repetition time": {"t_r": 0.72},
    "cohort z-score": {"standardize": "cohort_zscore"},
    "cohort robust": {"standardize": "cohort_robust"},
    "no scaling": {"standardize": None, "sc_scaling": None},
    "linear sc": {"sc_scaling": "linear"},
    "windows": {"window": 12, "n_windows": 4},
    "float64": {"dtype": "float64"},
    "neighbours": {"temporal_kernel": 3},
    "published function": {
        "spatial_tokens": "series",
        "temporal_tokens": "linear",
        "perceiver_residual": "reference",
        "final_norm": "reference",
        "signed_attention": "reference",
        "absent_edges": "reference",
        "edge_symmetry": "reference",
    },
    "diffusion": {"edge_weights": "diffusion", "structural_positions": "spectral"},
    "masked regions": {"constant_regions": "mask"},
    "staged": {"objective": "staged", "max_epochs": 7},
    "no seed": {"random_state": None},
    "network means": {"pooling": "network"},
    "mean": {"pooling": "mean", "fusion": "mean"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_saved_settings_give_the_same_bits(setting, tmp_path):
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY | SETTINGS[setting]).fit(X)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "saved")
    assert_same(again, model, X)
    assert again.get_params() == model.get_params()
    assert again.preprocessing_.t_r == model.preprocessing_.t_r
    assert_same(pickled(model), model, X)


def test_everything_else_of_a_saved_embedder_is_the_same(tmp_path):
    X, _ = make_data(missing_sc=0.25)
    model = BrainSymphonyEmbedder(**TINY, pooling="network").fit(X)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "saved")
    for name in ("networks_", "network_names_", "training_data_", "region_table_"):
        assert list(getattr(again, name)) == list(getattr(model, name))
    assert (again.get_feature_names_out() == model.get_feature_names_out()).all()
    assert again.score(X) == model.score(X)
    np.testing.assert_array_equal(again.attention(X), model.attention(X))
    np.testing.assert_array_equal(
        again.transform_regions(X), model.transform_regions(X)
    )
    for a, b in zip(again.reconstruct(X), model.reconstruct(X), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["patient", "control"]),
        np.array([3, -1]),
        np.array([7, 2], dtype=np.uint8),
        np.array([True, False]),
        np.array([2.0, 5.0]),
        np.array(["patient", "ctl"], dtype=object),
        pd.Series(["patient", "control"]).to_numpy(),
        pd.Series(["patient", "control"], dtype="category"),
        pd.Series(["patient", "control"], dtype="string"),
        ["patient", "control"],
    ],
    ids=[
        "str",
        "int",
        "uint8",
        "bool",
        "float",
        "object",
        "pandas str",
        "category",
        "string",
        "list",
    ],
)
def test_class_labels_keep_their_type(labels, tmp_path):
    X, y = make_data()
    targets = [labels[i] for i in y] if isinstance(labels, list) else labels[y]
    model = BrainSymphonyClassifier(**TINY).fit(X, targets)
    assert model.classes_.tolist() == sorted(labels)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyClassifier.from_pretrained(tmp_path / "saved")
    for twin in (again, pickled(model)):
        assert twin.classes_.dtype == model.classes_.dtype
        assert [type(c) for c in twin.classes_] == [type(c) for c in model.classes_]
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
        assert twin.predict(X).dtype == model.predict(X).dtype


NUMPY_PARAMETERS: dict[str, dict[str, Any]] = {
    "sizes": {"dim": np.int64(8), "window": np.int32(12), "n_heads": np.uint8(2)},
    "rates": {"lr": np.float32(1e-2), "dropout": np.float64(0.2)},
    "weights by int": {"class_weight": {0: 1.0, 1: 2.0}},
    "weights by numpy int": {
        "class_weight": {np.int64(0): 1, np.int64(1): np.float32(2)}
    },
}


@pytest.mark.parametrize("case", NUMPY_PARAMETERS)
def test_parameters_may_be_numpy_numbers_and_dicts(case, tmp_path):
    """As a search over np.arange or a dict of np.unique's classes gives them."""
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY | NUMPY_PARAMETERS[case]).fit(X, y)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyClassifier.from_pretrained(tmp_path / "saved")
    assert_same(again, model, X)
    assert_same(pickled(model), model, X)
    assert again.get_params() == model.get_params()
    refitted = clone(again).fit(X, y)
    np.testing.assert_allclose(refitted.predict_proba(X), model.predict_proba(X))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_model_of_another_device_predicts_on_this_one(bundle):
    X, _ = make_data()
    expected = BrainSymphonyEmbedder.from_pretrained(bundle).transform(X)
    set_config("params", "device", value="cuda")(bundle)
    again = BrainSymphonyEmbedder.from_pretrained(bundle)
    np.testing.assert_array_equal(again.transform(X), expected)
    assert again.device == "cuda"
    with pytest.raises((RuntimeError, AssertionError), match=r"CUDA|cuda"):
        again.fit(X)


def test_saving_again_replaces_and_loading_then_saving_changes_nothing(bundle):
    before = {f.name: f.read_bytes() for f in bundle.iterdir()}
    model = BrainSymphonyEmbedder.from_pretrained(bundle)
    model.save_pretrained(bundle)
    assert {f.name: f.read_bytes() for f in bundle.iterdir()} == before


def test_a_loaded_estimator_can_be_cloned_and_fitted_again(saved):
    X, y = make_data()
    again = BrainSymphonyClassifier.from_pretrained(saved[BrainSymphonyClassifier])
    expected = again.predict_proba(X)
    refitted = clone(again).fit(X, y)
    np.testing.assert_array_equal(refitted.predict_proba(X), expected)


def test_a_generator_is_saved_as_the_seed_that_it_gave(tmp_path):
    X, _ = make_data()
    state = np.random.RandomState(3)
    model = BrainSymphonyEmbedder(**TINY | {"random_state": state}).fit(X)
    model.save_pretrained(tmp_path / "saved")
    again = BrainSymphonyEmbedder.from_pretrained(tmp_path / "saved")
    assert again.random_state == again.seed_ == model.seed_
    assert_same(again, model, X)


def test_loading_in_a_fresh_process_gives_the_same_bits(saved, tmp_path):
    X, _ = make_data()
    folder = saved[BrainSymphonyClassifier]
    expected = BrainSymphonyClassifier.from_pretrained(folder).predict_proba(X)
    np.save(tmp_path / "X.npy", np.stack(X["fmri"].tolist()))
    np.save(tmp_path / "S.npy", np.stack(X["sc"].tolist()))
    code = """
import sys, numpy as np, torch
from skorch.helper import SliceDict
from bsym_sklearn import BrainSymphonyClassifier
torch.set_num_threads(1)
X = SliceDict(fmri=np.load(sys.argv[2] + "/X.npy"), sc=np.load(sys.argv[2] + "/S.npy"))
model = BrainSymphonyClassifier.from_pretrained(sys.argv[1])
np.save(sys.argv[2] + "/proba.npy", model.predict_proba(X))
"""
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), expected)


# ------------------------------------------------------------------ pickles


def by_joblib(model: Any) -> Any:
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


def by_skops(model: Any) -> Any:
    """Trust the classes of our estimators, and nothing else beyond skops's own."""
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    parts = [part for _, part in getattr(model, "steps", [("", model)])]
    ours = [f"{type(x).__module__}.{type(x).__name__}" for x in parts]
    trusted = [name for name in ours if name.startswith("bsym_sklearn.")]
    return skops.loads(skops.dumps(model), trusted=trusted)


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": pickled,
    "joblib": by_joblib,
    "deepcopy": copy.deepcopy,
    "skops": by_skops,
}


@pytest.mark.parametrize("way", COPIES)
@each_estimator
def test_copies_predict_the_same_bits(kind, way, saved):
    X, _ = make_data()
    model = kind.from_pretrained(saved[kind])
    assert_same(COPIES[way](model), model, X)


@pytest.mark.parametrize("way", COPIES)
def test_unfitted_estimators_and_pipelines_can_be_copied(way):
    X, y = make_data()
    fresh = COPIES[way](BrainSymphonyClassifier(**TINY))
    assert fresh.get_params() == BrainSymphonyClassifier(**TINY).get_params()
    assert not hasattr(fresh, "net_")
    pipeline = make_pipeline(BrainSymphonyEmbedder(**TINY), LogisticRegression())
    again = COPIES[way](pipeline.fit(X, y))
    np.testing.assert_array_equal(again.predict_proba(X), pipeline.predict_proba(X))


def test_skops_refuses_our_classes_until_they_are_trusted(saved):
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    model = BrainSymphonyEmbedder.from_pretrained(saved[BrainSymphonyEmbedder])
    content = skops.dumps(model)
    name = "bsym_sklearn.estimators.embedder.BrainSymphonyEmbedder"
    assert skops.get_untrusted_types(data=content) == [name]
    with pytest.raises(skops.exceptions.UntrustedTypesFoundException, match=name):
        skops.loads(content)


@each_estimator
def test_pickles_hold_no_torch_object_and_no_scan(kind):
    X, y = make_data()
    content = pickle.dumps(kind(**TINY).fit(X, y))
    for name in (b"torch", b"skorch", b"sub-01", b"Cohort"):
        if name in content:  # versions are named in the JSON text
            assert name in (b"torch", b"skorch")
            assert content.count(name) == 1


def test_a_copy_shares_no_memory_with_the_original(saved):
    X, _ = make_data()
    model = BrainSymphonyEmbedder.from_pretrained(saved[BrainSymphonyEmbedder])
    expected = model.transform(X)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.net_.module_.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(model.transform(X), expected)


def test_a_pickled_training_goes_on():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY).partial_fit(X, y)
    twin = pickled(model).partial_fit(X, y)
    assert twin.n_iter_ == 2
    assert not np.array_equal(twin.predict_proba(X), model.predict_proba(X))


# ------------------------------------------------------------------ what is in it


@each_estimator
def test_config_names_no_place_and_no_participant(kind, tmp_path, saved):
    X, y = make_data()
    model = kind(
        **TINY,
        checkpoint_dir=tmp_path / "states",
        pretrained=saved[BrainSymphonyEmbedder],
    ).fit(X, y)
    model.save_pretrained(tmp_path / "saved")
    files = sorted(f.name for f in (tmp_path / "saved").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    for file in files:
        content = (tmp_path / "saved" / file).read_bytes()
        for place in (tmp_path, saved[BrainSymphonyEmbedder], Path.home(), Path.cwd()):
            assert str(place).encode() not in content
        assert b"sub-" not in content
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not re.findall(r'"/[^"]*"', json.dumps(config))
    assert shared_participants(X["participant_id"], model.participants_) == {
        *X["participant_id"]
    }
    assert len(config["participants"]["hashes"]) == N
    assert config["class"] == kind.__name__
    assert config["params"]["dim"] == 8
    assert config["fitted"]["regions_"] == [f"region-{i + 1}" for i in range(R)]
    assert config["versions"] == {
        "bsym_sklearn": __version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": config["versions"]["skorch"],
        "torch": torch.__version__,
    }


def test_config_holds_scaling_and_repetition_time(tmp_path):
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY, t_r="t_r", standardize="cohort_zscore").fit(X)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["preprocessing"]
    assert config["t_r"] == 1.75  # the median, seconds
    assert config["modalities"] == ["fmri", "sc"]
    assert config["fmri_scaler"]["params"]["method"] == "zscore"
    assert config["fmri_scaler"]["params"]["per"] == "cohort"


# ------------------------------------------------------------------ errors


def test_another_class_names_the_saved_one(saved):
    message = (
        "BrainSymphonyClassifier cannot load 'BrainSymphonyEmbedder'. Got a saved "
        "BrainSymphonyEmbedder. Load it with that class, or pass the folder as "
        "`pretrained`."
    )
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyClassifier.from_pretrained(saved[BrainSymphonyEmbedder])


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def set_config(*keys: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        def put(config: dict[str, Any]) -> None:
            for key in keys[:-1]:
                config = config[key]
            config[keys[-1]] = value

        edit_config(folder, put)

    return change


def drop_config(key: str) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, lambda config: config.pop(key))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut JSON": (cut("config.json"), "needs an intact file. Got .*config.json"),
    "no JSON": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "reads only what it has saved itself. Got .*load_reference_checkpoint",
    ),
    "cut weights": (
        cut("model.safetensors"),
        "intact file. Got .*model.safetensors', which is damaged .* Save or copy",
    ),
    "missing weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "without 'model.safetensors'. Save the model again",
    ),
    "missing JSON": (
        lambda folder: (folder / "config.json").unlink(),
        "without 'config.json'. Save the model again",
    ),
    "newer format": (
        set_config("format_version", value=99),
        "reads format 2 and older. Got .* in format 99. Install the version that wrote",
    ),
    "another program": (set_config("format", value="other"), "of another format"),
    "another class": (set_config("class", value="os.system"), "a saved os.system"),
    "unknown parameter": (
        set_config("params", "wings", value=2),
        f"unexpected keyword argument 'wings'.*version {__version__}; this is",
    ),
    "unknown size": (set_config("backbone", "wings", value=2), "wings"),
    "other sizes": (
        set_config("backbone", "dim", value=16),
        "needs other weights than those in .* Of another shape",
    ),
    "no attribute": (
        set_config("fitted", "transform", value="mine"),
        "'transform' is no fitted attribute",
    ),
    "a property": (set_config("fitted", "backbone_", value="mine"), "backbone_"),
    "missing part": (drop_config("preprocessing"), "preprocessing"),
    "impossible parameter": (set_config("backbone", "n_heads", value=3), "n_heads"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_folders_raise_with_advice(case, bundle):
    damage, message = DAMAGES[case]
    damage(bundle)
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyEmbedder.from_pretrained(bundle)


@pytest.mark.parametrize("case", ["cut JSON", "cut weights", "missing weights"])
def test_damaged_folders_raise_as_pretrained_too(case, bundle):
    damage, message = DAMAGES[case]
    damage(bundle)
    X, y = make_data()
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyClassifier(**TINY, pretrained=bundle).fit(X, y)


@pytest.mark.parametrize("case", ["other sizes", "unknown size", "missing part"])
def test_a_config_that_does_not_fit_raises_as_pretrained_too(case, bundle):
    damage, message = DAMAGES[case]
    damage(bundle)
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyEmbedder(**TINY, pretrained=bundle).fit(make_data()[0])


def test_missing_and_foreign_folders_raise(tmp_path):
    X, _ = make_data()
    (tmp_path / "notes.txt").write_text("mine")
    for load in (
        BrainSymphonyEmbedder.from_pretrained,
        lambda folder: BrainSymphonyEmbedder(**TINY, pretrained=folder).fit(X),
    ):
        with pytest.raises(CheckpointError, match=r"which is not a folder\. Check the"):
            load(tmp_path / "nowhere")
        with pytest.raises(
            CheckpointError, match=r"needs the files 'config\.json' and"
        ):
            load(tmp_path)


def test_saving_never_overwrites_what_is_not_a_save(tmp_path):
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 0}).fit(make_data()[0])
    (tmp_path / "notes.txt").write_text("mine")
    message = "needs a new or empty folder.*Choose another or empty it"
    with pytest.raises(CheckpointError, match=message):
        model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        model.save_pretrained(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]
