"""Exported graphs say what the estimator says, alone and in batches of any size."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import bsym_sklearn
from bsym_sklearn import (
    BrainLMEmbedder,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import RegionScaler, make_cohort
from bsym_sklearn.data.checks import find_constant_regions
from bsym_sklearn.estimators.export import DESCRIPTION, export_graph
from bsym_sklearn.estimators.graph import SeriesScaling, constant_regions

N, R, T = 6, 6, 30
TINY = {
    "dim": 8,
    "depth": 1,
    "n_heads": 2,
    "max_epochs": 1,
    "lr": 1e-2,
    "missing_modality": "allow",
    "random_state": 0,
}
EXACT, CLOSE = 1e-10, 1e-5  # in float64, and in float32
VARIANTS = [
    {},
    {"modalities": "fmri", "pooling": "mean"},
    {"modalities": "sc", "pooling": "network"},
    {"standardize": "robust", "constant_regions": "mask"},
    {"standardize": "cohort_robust", "sc_scaling": "linear"},
    {"standardize": None, "sc_scaling": None, "spatial_tokens": "both"},
    {"positions": "gradient", "temporal_tokens": "linear", "temporal_kernel": 3},
    {"edge_weights": "multi_hop", "decoder": "residual"},
    {"edge_weights": "diffusion", "signed_attention": "reference"},
    {"final_norm": "reference", "spatial_tokens": "series", "decoder": "reference"},
]
Runner = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def scans() -> pd.DataFrame:
    """Return scans of one window in units of a scanner."""
    cohort = make_cohort(N, R, T)
    X = cohort.data.assign(fmri=[1000 + 50 * x for x in cohort.data["fmri"]])
    X.attrs["regions"] = cohort.regions
    return X


@pytest.fixture(scope="module")
def embedder(scans: pd.DataFrame) -> BrainSymphonyEmbedder:
    """Return an embedder of both modalities in double precision."""
    return BrainSymphonyEmbedder(**TINY, dtype="float64").fit(scans)


def inputs_of(X: pd.DataFrame, about: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.stack(X[name]).astype(one["dtype"])
        for name, one in about["inputs"].items()
    }


def open_torch(path: Path) -> tuple[Runner, dict[str, Any]]:
    """Return what runs a ``.pt2`` file, and its description."""
    files = {DESCRIPTION: ""}
    module = torch.export.load(path, extra_files=files).module()

    def run(**scans: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(**{k: torch.from_numpy(x) for k, x in scans.items()}).numpy()

    return run, json.loads(files[DESCRIPTION])


def open_onnx(path: Path) -> tuple[Runner, dict[str, Any]]:
    """Return what runs an ``.onnx`` file, and its description."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION])
    assert [one.name for one in session.get_outputs()] == [about["output"]["name"]]
    return lambda **scans: session.run(None, scans)[0], about


def assert_says_the_same(
    path: Path, about: dict[str, Any], X: pd.DataFrame, expected: np.ndarray
) -> None:
    """Compare a file with the estimator for several numbers of scans."""
    run, found = (open_onnx if path.suffix == ".onnx" else open_torch)(path)
    assert found == about
    inputs = inputs_of(X, about)
    within = CLOSE if "float32" in str(about["inputs"]) else EXACT
    for size in (1, 4, N):
        said = run(**{name: x[:size] for name, x in inputs.items()})
        assert said.shape == (size, about["output"]["shape"][1])
        error = np.abs(said - expected[:size]).max() / np.abs(expected).max()
        assert error < within


def check_embedder(
    X: pd.DataFrame, path: Path, *, modalities: str = "auto", **options: Any
) -> None:
    """Fit on both modalities, export a graph of some, and compare."""
    model = BrainSymphonyEmbedder(**TINY | options).fit(X)
    given = X if modalities == "auto" else X.drop(columns={"fmri", "sc"} - {modalities})
    about = export_graph(model, path, modalities=modalities)
    assert about["columns"] == model.get_feature_names_out().tolist()
    assert_says_the_same(path, about, given, model.transform(given))


def test_the_torch_graph_says_what_transform_says(
    embedder: BrainSymphonyEmbedder, scans: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "embedder.pt2"
    about = export_graph(embedder, path)
    assert about["inputs"] == {
        "fmri": {"shape": ["batch", T, R], "dtype": "float64"},
        "sc": {"shape": ["batch", R, R], "dtype": "float64"},
    }
    assert about["regions"] == list(embedder.regions_)
    assert_says_the_same(path, about, scans, embedder.transform(scans))
    # nothing but the file is left, it names no place of this machine, and the
    # estimator still has its decoders
    assert list(path.parent.iterdir()) == [path]
    assert str(Path(bsym_sklearn.__file__).parent).encode() not in path.read_bytes()
    assert embedder.reconstruct(scans, modality="sc").shape == (N, R, R)


def test_the_onnx_graph_says_what_transform_says(
    scans: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    path = tmp_path / "embedder.onnx"
    check_embedder(scans, path, modalities="sc")
    assert list(tmp_path.iterdir()) == [path]
    assert str(Path(bsym_sklearn.__file__).parent).encode() not in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_torch_graphs_of_other_options_say_the_same(
    options: dict[str, Any], scans: pd.DataFrame, tmp_path: Path
) -> None:
    check_embedder(scans, tmp_path / "e.pt2", dtype="float64", **options)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["spectral", "reference"])
def test_torch_graphs_have_spectral_positions(
    positions: str, scans: pd.DataFrame, tmp_path: Path
) -> None:
    options = {"structural_positions": positions, "dtype": "float64"}
    check_embedder(scans, tmp_path / "e.pt2", modalities="sc", **options)


@pytest.mark.slow
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_onnx_graphs_of_other_options_say_the_same(
    options: dict[str, Any], scans: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    check_embedder(scans, tmp_path / "e.onnx", **options)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_classifiers_and_regressors_have_graphs(
    suffix: str, scans: pd.DataFrame, tmp_path: Path
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    path = tmp_path / f"model{suffix}"
    y = np.array(["a", "b", "c"] * 2)
    clf = BrainSymphonyClassifier(**TINY).fit(scans, y)
    about = export_graph(clf, path)
    assert about["columns"] == ["a", "b", "c"]
    assert_says_the_same(path, about, scans, clf.predict_proba(scans))
    age = BrainSymphonyRegressor(**TINY).fit(scans, scans["age"])
    about = export_graph(age, path)
    assert_says_the_same(path, about, scans, age.predict(scans)[:, None])


@pytest.mark.slow
def test_windows_that_were_scaled_with_their_scan_average_to_its_embedding(
    scans: pd.DataFrame, tmp_path: Path
) -> None:
    X, window = scans.drop(columns="sc"), T // 2
    model = BrainSymphonyEmbedder(**TINY, dtype="float64", window=window).fit(X)
    about = export_graph(model, tmp_path / "windows.pt2", inputs="scaled")
    assert about["scans"] == "scaled"
    run, _ = open_torch(tmp_path / "windows.pt2")
    halves = np.split(np.stack(model.scaled(X)), 2, axis=1)
    said = np.mean([run(fmri=half) for half in halves], axis=0)
    np.testing.assert_allclose(said, model.transform(X), rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", ["zscore", "robust"])
@pytest.mark.parametrize("per", ["scan", "cohort"])
def test_series_are_scaled_as_by_the_region_scaler(
    method: Any, per: Any, rng: np.random.Generator
) -> None:
    X = 1000 + rng.standard_normal((3, 12, 5))
    X[1, :, 2] = 7.0  # never changes
    X[2, 1:, 3] = X[2, 0, 3]
    X[2, 5, 3] += 1.0  # changes once: no spread between its quartiles
    scaler = RegionScaler(method=method, per=per, constant_regions="mask").fit(list(X))
    scaled = SeriesScaling(scaler, 12)(torch.from_numpy(X)).numpy()
    expected = np.stack([scaler.scale(x) for x in X])
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-11)
    constant = constant_regions(torch.from_numpy(X)).numpy()
    np.testing.assert_array_equal(constant, [find_constant_regions(x) for x in X])
    assert constant.sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tf"}, r"`format` must be one of \('torch', 'onnx'\). Got 'tf'."),
        ({}, r"`suffix` must be one of \('.pt2', '.onnx'\). Got '.h5'."),
        ({"format": "torch", "inputs": "z"}, r"`inputs` must be one of .* Got 'z'."),
        ({"format": "torch", "modalities": "eeg"}, "`modalities` must be .* 'eeg'"),
        ({"format": "onnx"}, "Got a model with dtype='float64'. Write a '.pt2' file"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, str],
    message: str,
    embedder: BrainSymphonyEmbedder,
    tmp_path: Path,
) -> None:
    if options.get("format") == "onnx":
        pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match=message):
        export_graph(embedder, tmp_path / "e.h5", **options)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_graph_is_refused(scans: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "e.pt2"
    with pytest.raises(NotFittedError):
        export_graph(BrainSymphonyEmbedder(), path)
    other = BrainLMEmbedder(max_epochs=0).fit(scans.drop(columns="sc"))
    with pytest.raises(TypeError, match="Got a BrainLMEmbedder"):
        export_graph(other, path)
    options = {"max_epochs": 0, "structural_positions": "spectral"}
    spectral = BrainSymphonyEmbedder(**TINY | options, modalities="sc").fit(scans)
    with pytest.raises(ValueError, match=r"needs a model of 'fmri' .* on \['sc'\]"):
        export_graph(spectral, path, modalities="both")
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match="with structural_positions='spectral'"):
        export_graph(spectral, tmp_path / "e.onnx")


def test_the_extra_is_named_where_onnx_is_missing(
    embedder: BrainSymphonyEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[onnx\]"'):
        export_graph(embedder, tmp_path / "e.onnx")
