"""What a bundle holds, that old ones still load, and that damaged ones are refused."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bsym_sklearn
from bsym_sklearn import (
    BrainLMEmbedder,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    CheckpointError,
    NetworkClassifier,
)
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.data import make_cohort
from bsym_sklearn.estimators.seen import shared_participants
from bsym_sklearn.training.bundle_format import RESERVED, sign

# Written by the last version of the first format, never to be written again. Weights
# that decode edges are zero there: no prediction reads them, and zeros take no place.
FROZEN = Path(__file__).parent / "data" / "bundle_v1"
CLASSES = {
    "classifier": "BrainSymphonyClassifier",
    "embedder": "BrainSymphonyEmbedder",
    "regressor": "BrainSymphonyRegressor",
}
N, R, T = 8, 5, 30
TINY: dict[str, Any] = {"dim": 8, "depth": 1, "n_heads": 2, "max_epochs": 1}
TINY |= {"lr": 1e-2, "random_state": 0}


def make_data(**options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(N, R, T, **options)
    X = cohort.data.assign(t_r=np.repeat([2.0, 1.5], N // 2))
    places = np.arange(R) / 3
    X.attrs["regions"] = cohort.regions.assign(x=places, y=[1.5, None, 2, 3, 4])
    return X, cohort.target


@pytest.fixture(scope="module")
def model() -> BrainSymphonyClassifier:
    X, y = make_data(missing_sc=0.25)
    labels = np.array(["a | b", "<b>*c*</b>"])[y]
    return BrainSymphonyClassifier(**TINY, t_r="t_r").fit(X, labels)


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved classifier; copy it before changing it."""
    folder = tmp_path_factory.mktemp("bundles") / "saved"
    model.save_pretrained(folder, license="cc-by-4.0", metrics={"auc": 0.5})
    return folder


@pytest.fixture
def bundle(saved: Path, tmp_path: Path) -> Path:
    """Return a saved classifier that a test may change."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def forge(folder: Path, config: dict[str, Any]) -> None:
    """Write settings as somebody would who computes their hashes anew."""
    plain = {name: value for name, value in config.items() if name not in RESERVED}
    signed = sign(plain, (folder / "model.safetensors").read_bytes(), None)
    (folder / "config.json").write_text(json.dumps(signed))


# ------------------------------------------------------------------ older bundles


def frozen(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(FROZEN / f"{name}.zip") as file:
        file.extractall(folder / name)
    return folder / name


def frozen_scans(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return three scans, and what the version that wrote the bundle said of them."""
    with np.load(FROZEN / "expected.npz", allow_pickle=False) as file:
        X = pd.DataFrame({"fmri": list(file["fmri"]), "t_r": file["t_r"]})
        if name == "classifier":
            X["sc"] = [*file["sc"][:2], None]
        return X, file[name]


def output(estimator: Any, X: pd.DataFrame) -> np.ndarray:
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


@pytest.mark.parametrize("name", CLASSES)
def test_bundles_of_the_first_format_predict_as_when_they_were_written(name, tmp_path):
    X, expected = frozen_scans(name)
    kind = getattr(bsym_sklearn, CLASSES[name])
    folder = frozen(name, tmp_path)
    assert read_config(folder)["format_version"] == 1
    model = kind.from_pretrained(folder)
    np.testing.assert_allclose(output(model, X), expected, rtol=1e-5, atol=1e-6)
    model.save_pretrained(folder)
    assert read_config(folder)["format_version"] == 2
    again = kind.from_pretrained(folder)
    np.testing.assert_array_equal(output(again, X), output(model, X))
    assert len(again.participants_) == len(model.participants_) == 12


def test_bundles_of_the_first_format_can_be_trained_further(tmp_path):
    X, _ = frozen_scans("classifier")
    X["participant_id"] = ["sub-01", "sub-02", "sub-99"]
    folder = frozen("classifier", tmp_path)
    new = BrainSymphonyEmbedder(pretrained=str(folder), t_r="t_r", max_epochs=0).fit(X)
    assert len(new.participants_) == 13
    old = BrainSymphonyClassifier.from_pretrained(folder)
    old.partial_fit(X, ["control", "patient", "patient"])
    assert len(old.participants_) == 13
    assert [data["n_calls"] for data in old.training_data_] == [1]


def test_a_comparison_finds_the_participants_of_old_and_new_bundles(tmp_path):
    cohort = make_cohort(8, 4, 24)  # sub-01 ... sub-08
    old = frozen("classifier", tmp_path)
    new = tmp_path / "new"
    BrainSymphonyClassifier.from_pretrained(old).save_pretrained(new)
    for folder in (old, new):
        given = BrainSymphonyClassifier(pretrained=str(folder), **TINY)
        message = f"Got 8 of 8 that '{folder.name}' of 'given' has seen"
        with pytest.raises(ValueError, match=message):
            compare({"given": given}, cohort.data, cohort.target, cv=2, level="B")


# ------------------------------------------------------------------ what is in it


def test_a_bundle_describes_the_scans_and_regions_of_fit(saved):
    config = read_config(saved)
    assert config["training_data"] == [
        {
            "n_scans": N,
            "n_participants": N,
            "modalities": ["fmri", "sc"],
            "n_missing": {"fmri": 0, "sc": 2},
            "n_timepoints": {"min": T, "median": T, "max": T},
            "t_r": [1.5, 2.0],
            "n_calls": 1,
        }
    ]
    assert config["region_table"]["label"] == [f"region-{i + 1}" for i in range(R)]
    assert config["region_table"]["y"] == [1.5, None, 2, 3, 4]
    again = BrainSymphonyClassifier.from_pretrained(saved)
    assert again.region_table_ == config["region_table"]
    assert (again.license_, again.metrics_) == ("cc-by-4.0", {"auc": 0.5})


def test_participants_are_salted_anew_for_each_bundle(model, saved, tmp_path):
    model.save_pretrained(tmp_path / "other")
    first, second = (
        read_config(f)["participants"] for f in (saved, tmp_path / "other")
    )
    assert first["salt"] != second["salt"]
    assert not {*first["hashes"]} & {*second["hashes"]}
    text = (saved / "config.json").read_text()
    assert not any(plain in text for plain in model.participants_)


def test_a_model_from_a_bundle_keeps_its_salt_licence_and_data(saved, tmp_path):
    X, y = make_data()
    X["participant_id"] = ["sub-01", "sub-02", *(f"new-{i}" for i in range(N - 2))]
    clf = BrainSymphonyClassifier(**TINY, t_r="t_r", pretrained=saved).fit(X, y)
    clf.save_pretrained(tmp_path / "next", metrics={"auc": 1})
    before, after = (read_config(f) for f in (saved, tmp_path / "next"))
    assert after["participants"]["salt"] == before["participants"]["salt"]
    assert len(after["participants"]["hashes"]) == N + N - 2
    assert after["license"] == "cc-by-4.0"
    assert [data["n_missing"]["sc"] for data in after["training_data"]] == [2, 0]
    people = {*X["participant_id"], "sub-03", "somebody else"}
    shared = shared_participants(people, clf.participants_)
    assert shared == people - {"somebody else"}


def test_metrics_do_not_outlive_the_weights_that_they_were_measured_with(saved):
    X, y = make_data()
    model = BrainSymphonyClassifier.from_pretrained(saved)
    model.partial_fit(X, model.classes_[y])
    assert model.metrics_ == {}
    assert model.license_ == "cc-by-4.0"
    assert [data["n_calls"] for data in model.training_data_] == [2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"license": "all rights\nreserved"}, ValueError, "short name of a licence"),
        ({"license": 4}, ValueError, "short name of a licence"),
        ({"metrics": {"auc": float("nan")}}, ValueError, "Got nan for 'auc'"),
        ({"metrics": {"auc": "high"}}, ValueError, "finite numbers"),
        ({"metrics": [0.5]}, TypeError, "Got list"),
    ],
)
def test_a_licence_or_metrics_of_no_use_are_refused(
    options, error, message, model, tmp_path
):
    with pytest.raises(error, match=message):
        model.save_pretrained(tmp_path / "never", **options)
    assert not (tmp_path / "never").exists()


def test_scans_without_names_and_tables_are_described_too(tmp_path):
    X, y = make_data()
    clf = NetworkClassifier("mean_mlp", max_epochs=0, random_state=0)
    clf.fit(np.stack(X["fmri"].tolist()), y).save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert config["participants"]["hashes"] == []
    assert config["region_table"] == {}
    assert config["training_data"][0]["n_participants"] is None
    assert config["training_data"][0]["t_r"] is None
    assert "participants are not known" in (tmp_path / "README.md").read_text()


# ------------------------------------------------------------------ the card


def test_the_card_says_what_it_is_and_how_to_load_it(saved):
    card = (saved / "README.md").read_text()
    front, _, page = card.removeprefix("---\n").partition("\n---\n")
    assert front.splitlines()[:2] == [
        'license: "cc-by-4.0"',
        'library_name: "bsym_sklearn"',
    ]
    for said in (
        "# BrainSymphonyClassifier",
        "| scans without sc | 2 |",
        "| repetition times in seconds | 1.5, 2.0 |",
        'BrainSymphonyClassifier.from_pretrained("...")',
        "| auc | 0.5 |",
        "Not for clinical use",
        "Training took 1 epochs",
        "| numpy |",
    ):
        assert said in page


def test_the_card_escapes_what_users_wrote(saved):
    page = (saved / "README.md").read_text()
    assert r"&lt;b&gt;\*c\*&lt;/b&gt;, a \| b" in page
    assert "<b>" not in page


def test_nothing_is_read_from_the_card(bundle, model):
    X, _ = make_data()
    (bundle / "README.md").write_text("---\nlicense: other\n---\n")
    again = BrainSymphonyClassifier.from_pretrained(bundle)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.license_ == "cc-by-4.0"
    with pytest.raises(CheckpointError, match="holds something else"):
        again.save_pretrained(bundle)


# ------------------------------------------------------------------ damage


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is unpickled."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a bundle was unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)


few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@few
@given(
    name=st.sampled_from(["config.json", "model.safetensors", "README.md"]),
    places=st.lists(st.integers(0, 2**20), min_size=1, max_size=4),
    byte=st.integers(0, 255),
    length=st.none() | st.integers(0, 2**20),
)
def test_damaged_bundles_are_refused_or_predict_the_same(
    name, places, byte, length, model, saved, bundle, no_code
):
    content = bytearray((saved / name).read_bytes())
    for place in places:
        content[place % len(content)] = byte
    if length is not None:
        del content[length % len(content) :]
    (bundle / name).write_bytes(content)
    X, _ = make_data()
    try:
        again = BrainSymphonyClassifier.from_pretrained(bundle)
    except CheckpointError:
        assert name != "README.md"
    else:
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    finally:
        (bundle / name).write_bytes((saved / name).read_bytes())


def leaves(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where the values of nested content are, whole parts of it too."""
    inside = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        inside = enumerate(content[:2])
    found = [path] if path else []
    return found + [x for key, value in inside for x in leaves(value, (*path, key))]


NASTY = [
    None,
    True,
    -1,
    0,
    3,
    10**9,
    10**30,
    0.5,
    "",
    "/etc/passwd",
    [],
    {},
    ["x"],
    {"array": [1], "dtype": "<U1000000000"},
    {"array": [[1], 2], "dtype": "<f8"},
    {"array": [300], "dtype": "<u1"},
    {"items": [[[], 1], 2]},
    json.loads("[" * 400 + "]" * 400),
]


@few
@given(place=st.integers(0, 2**20), value=st.sampled_from(NASTY))
def test_forged_settings_are_refused_or_load(place, value, saved, bundle, no_code):
    """Whoever computes the hashes anew gets no further than other numbers."""
    config = read_config(saved)
    paths = leaves({k: v for k, v in config.items() if k not in RESERVED})
    *above, last = paths[place % len(paths)]
    part = config
    for key in above:
        part = part[key]
    part[last] = value
    forge(bundle, config)
    try:
        again = BrainSymphonyClassifier.from_pretrained(bundle)
    except CheckpointError:
        return
    assert again.__sklearn_is_fitted__()


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", 2**20),
        ("depth", 10**9),
        ("perceiver_depth", 10**9),
        ("window", 10**9),
        ("n_regions", 10**7),
        ("n_states", 10**8),
        ("context_dim", 10**30),
        ("n_heads", 0),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_used(key, value, bundle):
    resource = importlib.import_module("resource")
    config = read_config(bundle)
    config["backbone"][key] = value
    forge(bundle, config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="cannot load 'bundle'"):
        BrainSymphonyClassifier.from_pretrained(bundle)
    X, y = make_data()
    with pytest.raises(CheckpointError, match="cannot use 'bundle' as `pretrained`"):
        BrainSymphonyClassifier(**TINY, pretrained=bundle).fit(X, y)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**19  # KiB


def test_absurd_sizes_of_a_rival_are_refused_as_pretrained(tmp_path):
    X, _ = make_data()
    rows = X[["fmri"]]
    BrainLMEmbedder(max_epochs=0, window=20).fit(rows).save_pretrained(tmp_path / "lm")
    config = read_config(tmp_path / "lm")
    config["backbone"]["dim"] = 2**20
    forge(tmp_path / "lm", config)
    with pytest.raises(CheckpointError, match="cannot use 'lm' as `pretrained`"):
        BrainLMEmbedder(max_epochs=0, pretrained=tmp_path / "lm").fit(rows)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("preprocessing", "window"), 10**12, "unusable window"),
        (("preprocessing", "t_r"), -1.0, "unusable repetition time"),
        (("preprocessing", "modalities"), ["fmri"], "unusable modalities"),
        (("fitted", "n_regions_"), 6, "unusable regions"),
        (("fitted", "regions_"), ["a"], "unusable regions"),
        (("fitted", "classes_"), ["a", "b"], "unusable target"),
        (("params", "batch_size"), -1, "batch_size == -1"),
        (("participants", "salt"), None, "Got the salt None"),
        (("participants", "method"), "md5", "Got the method 'md5'"),
        (("participants", "hashes"), ["00"], "Got hashes of another length"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(keys, value, message, bundle):
    config = read_config(bundle)
    part = config
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    forge(bundle, config)
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyClassifier.from_pretrained(bundle)


def test_settings_cannot_name_other_weights(bundle):
    config = read_config(bundle)
    config["params"]["pretrained"] = "hf://owner/name"
    config["params"]["checkpoint_dir"] = "/etc"
    forge(bundle, config)
    again = BrainSymphonyClassifier.from_pretrained(bundle)
    assert again.pretrained is None
    assert again.checkpoint_dir is None
