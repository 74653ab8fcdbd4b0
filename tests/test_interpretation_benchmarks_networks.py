"""The benchmark of networks without labels is run on a tiny cohort folder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
QUICK = ["--seeds", "1", "--epochs", "1", "--window", "20", "--dim", "8"]
QUICK += ["--folds", "2", "--repeats", "1"]
N_PEOPLE, N_REGIONS = 11, 14


@pytest.fixture
def networks(monkeypatch):
    """Return the script as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("networks")


@pytest.fixture
def folder(tmp_path: Path, rng) -> Path:
    """Write two scans of each of 11 people: two networks, and two regions of none."""
    folder = tmp_path / "cohort"
    (folder / "fmri").mkdir(parents=True)
    mixing = np.repeat(np.eye(2), 6, axis=1)  # two signals, six regions each
    paths = []
    for i in range(2 * N_PEOPLE):
        scan = rng.normal(size=(40, N_REGIONS))
        scan[:, :12] += rng.normal(size=(40, 2)) @ mixing
        paths.append(f"fmri/{i}.npy")
        np.save(folder / paths[-1], scan.astype(np.float32))
    people = [f"sub-{i // 2}" for i in range(2 * N_PEOPLE)]
    table = pd.DataFrame({"participant_id": people, "fmri": paths})
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    regions = pd.DataFrame({"label": [f"r{i}" for i in range(N_REGIONS)]})
    regions["network7"] = ["Vis"] * 6 + ["Default"] * 6 + [None] * 2
    regions[["x", "y", "z"]] = rng.normal(scale=30, size=(N_REGIONS, 3))
    regions.loc[12:, ["x", "y", "z"]] = np.nan
    regions.to_csv(folder / "regions.tsv", sep="\t", index=False)
    return folder


@pytest.fixture
def few_gradients(networks, monkeypatch) -> None:
    """Ten gradients are too many for fourteen regions of noise."""
    monkeypatch.setattr(networks, "N_GRADIENTS", (2, 3))


def test_a_run_leaves_tables_a_section_and_a_picture(
    networks, folder, tmp_path, few_gradients, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    call = ["--data", str(folder), "--out", str(out), *QUICK]
    networks.main(call)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["participants"] == {"develop": 2, "pretrain": 6, "test": 3}
    assert settings["networks"] == {"Default": 6, "Vis": 6}
    table = pd.read_csv(out / "table.csv")
    assert set(table["level"]) == set(networks.LEVELS)
    group = table[table["level"] == networks.LEVELS[0]]
    rows = group[group["method"] == "logistic"].set_index("embedding")
    assert list(rows.index) == [
        "coordinates, folded",
        "gradients 2",
        "gradients 3",
        "connectivity",
        "untrained, fused",
        "untrained, spatial",
        "pretrained, fused",
        "pretrained, spatial",
        "learned positions",
        "pretrained, fused, seeds side by side",
    ]
    assert rows.loc["connectivity", "accuracy"] > 0.8
    assert np.isnan(rows.loc["connectivity", "difference"])
    assert rows.drop("connectivity")["difference"].notna().all()
    assert table["accuracy"].between(0, 1).all()
    scores = pd.read_csv(out / "scores.csv")
    alone = scores[scores["level"] == networks.LEVELS[2]]
    assert set(alone["part"]) == {0, 1, 2}  # a scan of each test participant
    assert set(scores.loc[scores["embedding"] == "pretrained, fused", "seed"]) == {1}
    text = (out / "table.md").read_text()
    assert text == networks.section(out)
    assert "python benchmarks/networks.py --data cohort --out FOLDER --seeds 1" in text
    assert str(tmp_path) not in text
    assert "quoted with 84.4% against a chance of 14.3%" in text
    assert (out / "networks_confusion.png").stat().st_size > 1000
    confusion = pd.read_csv(out / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == 12
    assert set(pd.read_csv(out / "tests.csv")["null"]) == {"shuffled", "turned"}
    capsys.readouterr()

    # A second run computes nothing that is there, and says the same.
    def refuse(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(networks, "score", refuse)
    networks.main(call)
    assert (out / "table.md").read_text() == text


def test_people_are_divided_once_and_whole(networks) -> None:
    people = pd.Series(np.repeat([f"sub-{i}" for i in range(55)], 2))
    role = networks.roles(people)
    assert people.groupby(role).nunique().to_dict() == {
        "develop": 8,
        "pretrain": 29,
        "test": 18,
    }
    assert pd.Series(role).groupby(people).nunique().eq(1).all()
    np.testing.assert_array_equal(role, networks.roles(people))


def test_a_folder_of_other_options_is_refused(networks, folder, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text(json.dumps({"options": {"epochs": 7}}))
    with pytest.raises(ValueError, match="'out' has results of other options"):
        networks.main(["--data", str(folder), "--out", str(out), *QUICK])


def test_differences_are_paired_with_connectivity(networks) -> None:
    page = importlib.import_module("_networks_page")
    level = networks.LEVELS[0]
    rows = [
        {
            "level": level,
            "embedding": name,
            "seed": seed,
            "method": "logistic",
            "repeat": 0,
            "part": part,
            "accuracy": 0.1 * part + gain * seed,
            "ari": 0.5,
        }
        for name, gain, seeds in (("connectivity", 0, [0]), ("model", 0.2, [0, 1]))
        for seed in seeds
        for part in range(5)
    ]
    table = page.summarize(pd.DataFrame(rows)).set_index("embedding")
    assert table.loc["model", "difference"] == pytest.approx(0.1)
    assert table.loc["model", "low"] == pytest.approx(0.1)  # the same in every fold
    assert table.loc["model", "sd"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert table.loc["connectivity", "accuracy"] == pytest.approx(0.2)
