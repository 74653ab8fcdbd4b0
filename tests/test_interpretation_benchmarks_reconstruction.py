"""benchmarks/reconstruction.py is run on a tiny cohort folder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.data import make_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
N_SCANS = 8
QUICK = ["--seeds", "0", "--epochs", "1", "--dim", "8", "--depth", "1"]
QUICK += ["--window", "20", "--set", "n_heads=2", "decoder=residual"]


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a cohort folder: two conditions of each of four people."""
    cohort = make_cohort(n_scans=N_SCANS, n_regions=6, n_timepoints=50).data
    folder = tmp_path / "here"
    table = pd.DataFrame({"participant_id": [f"p{i // 2}" for i in range(N_SCANS)]})
    table["drug"] = ["placebo", "psilocybin"] * 4
    for part in ("fmri", "sc"):
        (folder / part).mkdir(parents=True)
        table[part] = [f"{part}/{i}.npy" for i in range(N_SCANS)]
        for path, values in zip(table[part], cohort[part], strict=True):
            np.save(folder / path, values)
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    return folder


def test_models_are_scored_beside_floors_and_the_printed_numbers(
    load, folder, tmp_path, capsys, monkeypatch
) -> None:
    script, out = load("reconstruction"), tmp_path / "out"
    monkeypatch.setattr(script, "draw", lambda folder: None)
    few = [("regions", 0.3), ("time_points", 0.15), ("regions", 0.3, 1, "regions")]
    tasks = tuple(script.Task(*task) for task in few)
    monkeypatch.setattr(script, "SERIES_TASKS", tasks)
    command = ["--data", str(folder), "--out", str(out), *QUICK]
    command += ["--last", "40", "--by", "drug"]
    script.main(command)
    first = capsys.readouterr().out
    summary = pd.read_csv(out / "summary.csv").set_index(["model", "hide"])
    series = ["BrainSymphony", "BrainSymphony, untrained", script.RANDOM, "region mean"]
    for hide, floor in (
        ("regions", "ridge from the other regions"),
        ("time_points", "Gaussian process"),
        ("edges", "mean edge"),
    ):
        models = summary.xs(hide, level="hide").index.unique()
        assert floor in models
        assert set(series[: 3 if hide == "edges" else 4]) <= set(models)
    assert summary["r2"].notna().all()
    assert (summary["n"] == 4).all()  # everybody was tested
    conditions = pd.read_csv(out / "conditions.csv")
    assert set(conditions["condition"]) == {"placebo", "psilocybin"}
    assert set(conditions["permute"]) == {"none", "regions"}
    settings = json.loads((out / "settings.json").read_text())
    assert settings["time_points"] == "40"
    expected = "--seeds 0 --last 40 --by drug --epochs 1 --dim 8 --depth 1"
    assert expected in settings["command"]
    assert settings["command"].endswith("--set n_heads=2 decoder=residual")
    assert str(tmp_path) not in (out / "settings.json").read_text()
    text = (out / "table.md").read_text()
    assert text == script.section(out)
    for part in ("## Reconstruction: `here`", "| region mean |", "Fig. 4a", "0.818"):
        assert part in text
    assert "Fig. 4a" not in script.section(out, with_printed=False)

    script.main(command)  # nothing is fitted twice
    again = capsys.readouterr().out
    assert "BrainSymphony, part 1, seed 0" in first
    assert "BrainSymphony, part 1, seed 0" not in again
    assert (out / "table.md").read_text() == text


def test_pictures_are_those_of_a_scan_held_out(load, folder, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
    script = load("reconstruction")
    rng = np.random.default_rng(0)
    series = {name: rng.normal(size=(30, 4)) for name in ("scan", "a", "b")}
    hidden = rng.random((30, 4)) < 0.3
    np.savez(
        tmp_path / "example.npz",
        scan=series["scan"],
        regions_decoded=series["a"],
        regions_hidden=hidden,
        time_points_decoded=series["b"],
        time_points_hidden=hidden,
        observed=rng.random((2, 4, 4)),
        reconstructed=rng.random((2, 4, 4)),
    )
    script.draw(tmp_path)
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {"carpet", "courses", "courses_regions", "connectomes", "weights"}


def test_a_difference_is_that_of_people_to_the_best_floor(load) -> None:
    page = load("_reconstruction_page")
    rows = [
        {
            "model": model,
            "hide": "regions",
            "ratio": 0.3,
            "span": 1,
            "participant": person,
            "squared_error": 1 - r2,
            "squared_spread": 1.0,
        }
        for model, scores in {
            "ours": (0.7, 0.8, 0.6),
            "ours, untrained": (0.9, 0.9, 0.9),  # is no floor
            "weak": (0.1, 0.1, 0.1),
            "strong": (0.5, 0.5, 0.5),
        }.items()
        for person, r2 in zip("abc", scores, strict=True)
    ]
    table = page.differences(pd.DataFrame(rows), "ours")
    (row,) = table.reset_index().to_dict("records")
    assert row["floor"] == "strong"
    assert row["difference"] == pytest.approx(0.2)
    assert row["low"] < 0.2 < row["high"]
    assert row["n"] == 3


def test_other_parameters_are_read_as_json_or_text(load) -> None:
    script = load("reconstruction")
    command = ["--data", "x", "--out", "y", "--set", "dropout=0.2"]
    options = script.parser().parse_args([*command, "objective=staged"])
    model = script.embedder(options)
    assert (model.dropout, model.objective) == (0.2, "staged")
    model.set_params(modalities="fmri")
    assert script.reads(model, script.Task("regions", 0.3))
    assert not script.reads(model, script.Task("edges", 0.2))
    with pytest.raises(SystemExit):
        script.parser().parse_args([*command, "colour=red"])
