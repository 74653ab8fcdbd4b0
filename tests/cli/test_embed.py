"""``bsym embed``: the same numbers as in Python, in every kind of file."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.data import load_cohort


@pytest.mark.parametrize("suffix", ["tsv", "csv", "npz", "parquet"])
def test_features_are_those_of_transform(
    run, folder, embedder, tmp_path, suffix
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    out = tmp_path / f"features.{suffix}"
    result = run("embed", folder, "--model", embedder, "--out", out, "--keep", "age")
    assert result.stdout == f"{out}\n"
    model = BrainSymphonyEmbedder.from_pretrained(embedder)
    X = load_cohort(folder)
    names = list(model.get_feature_names_out())
    if suffix == "npz":
        with np.load(out, allow_pickle=False) as file:
            content = dict(file)
        assert list(content["feature_names"]) == names
        found = content["features"]
    else:
        read = {"tsv": lambda p: pd.read_csv(p, sep="\t"), "csv": pd.read_csv}
        content = read.get(suffix, pd.read_parquet)(out)
        assert list(content) == ["scan", "participant_id", "age", *names]
        found = content[names].to_numpy(np.float32)
    assert (found == model.transform(X)).all()
    assert list(content["participant_id"]) == list(X["participant_id"])
    assert list(content["scan"]) == list(range(12))
    assert np.allclose(content["age"], X["age"])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_regions_are_those_of_transform_regions(
    run, folder, embedder, tmp_path
) -> None:
    out = tmp_path / "regions.npz"
    run("embed", folder, "--model", embedder, "--out", out, "--regions")
    model = BrainSymphonyEmbedder.from_pretrained(embedder)
    with np.load(out, allow_pickle=False) as content:
        expected = model.transform_regions(load_cohort(folder))
        assert (content["embeddings"] == expected).all()
        assert list(content["regions"]) == list(model.regions_)


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_table_with_paths_is_a_cohort(run, folder, embedder, tmp_path, suffix, table):
    strange = tmp_path / "a b; é" / "-x"
    shutil.copytree(folder, strange)
    moved = table.iloc[:3].assign(fmri=[f"{strange}/{x}" for x in table["fmri"][:3]])
    cohort = strange / f"'some' $(scans){suffix}"
    moved.to_csv(cohort, sep="\t" if suffix == ".tsv" else ",", index=False)
    outs = tmp_path / "one.csv", strange / "--model.csv"
    arguments = ("--model", embedder, "--pooling", "mean", "--out")
    run("embed", folder, *arguments, outs[0])
    run("embed", cohort, *arguments, outs[1])
    whole, part = map(pd.read_csv, outs)
    numbers = [name for name in part if "embedder" in name]
    assert len(numbers) == 8
    assert np.allclose(whole[numbers].iloc[:3], part[numbers], atol=1e-5)


def test_an_older_file_is_kept(run, folder, embedder, tmp_path) -> None:
    out = tmp_path / "features.tsv"
    out.write_text("mine")
    arguments = ("embed", folder, "--model", embedder, "--out", out)
    assert f"'{out}' is there already. Add --overwrite." in (
        run(*arguments, code=2).stderr
    )
    assert out.read_text() == "mine"
    run(*arguments, "--overwrite")
    assert len(out.read_text()) > 1000


def test_a_full_disk_leaves_the_older_file(
    run, folder, embedder, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "features.tsv"
    out.write_text("mine")

    def full(self, path, **_: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    arguments = ("embed", folder, "--model", embedder, "--out", out, "--overwrite")
    assert "Error: [Errno 28] No space left" in run(*arguments, code=1).stderr
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_models_and_files_that_do_not_fit_are_named(
    run, folder, embedder, classifier, tmp_path
) -> None:
    def fails(code: int, *arguments: object) -> str:
        result = run("embed", folder, *arguments, code=code)
        assert not list(tmp_path.glob("*.*"))
        return result.stderr

    out, model = ("--out", tmp_path / "a.tsv"), ("--model", embedder)
    text = fails(2, "--model", classifier, *out)
    assert "BrainSymphonyClassifier gives no embedding." in text
    assert "ends in .npz. Got" in fails(2, *model, *out, "--regions")
    assert "ends in .parquet, .tsv" in fails(2, *model, "--out", tmp_path / "a.xls")
    text = fails(2, *model, *out, "--keep", "agge")
    assert "has no column 'agge'. Did you mean 'age'?" in text
    assert "knows no networks" in fails(2, *model, *out, "--pooling", "network")
    if importlib.util.find_spec("pyarrow") is None:
        text = fails(1, *model, "--out", tmp_path / "a.parquet")
        assert "Parquet files need pyarrow" in text


def test_a_damaged_model_is_named(run, folder, embedder, tmp_path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(embedder, bundle)
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    out = tmp_path / "a.tsv"
    result = run("embed", folder, "--model", bundle, "--out", out, code=4)
    assert "Error: " in result.stderr
    assert "damaged" in result.stderr
    (bundle / "config.json").unlink()
    run("embed", folder, "--model", bundle, "--out", out, code=4)
    assert not out.exists()
