"""benchmarks/psychedelic.py is run as functions on a tiny cohort folder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.data import load_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
N_PEOPLE, N_REGIONS = 6, 4


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def folder(tmp_path, rng) -> Path:
    """Return a cohort in which the drug joins the first two regions."""
    folder = tmp_path / "here"
    (folder / "fmri").mkdir(parents=True)
    rows = []
    for drug in ("placebo", "psilocybin"):
        for session in ("pre", "post"):
            for i in reversed(range(N_PEOPLE)):
                scan = rng.normal(size=(24, N_REGIONS))
                if (drug, session) == ("psilocybin", "post"):
                    scan[:, 1] = scan[:, 0] + rng.normal(size=24) / 4
                path = f"fmri/{drug}-{session}-{i}.npy"
                np.save(folder / path, scan)
                rows.append((f"s{i}", drug, session, 3.0, path))
    columns = ["participant_id", "condition", "session", "t_r", "fmri"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    regions = pd.DataFrame({"label": [*"abcd"], "network": [*"xxyy"]})
    regions.to_csv(folder / "regions.tsv", sep="\t", index=False)
    return folder


def call(load, folder: Path, out: Path) -> None:
    options = ["--seeds", "3", "--epochs", "1", "--dim", "8", "--device", "cpu"]
    load("psychedelic").main(["--data", str(folder), "--out", str(out), *options])


@pytest.mark.filterwarnings("ignore:contrast needs more than 20 arrangements")
def test_contrasts_are_tabled_beside_their_controls(
    load, folder, tmp_path, capsys, monkeypatch
) -> None:
    script, out = load("psychedelic"), tmp_path / "out"
    monkeypatch.setattr(script, "draw", lambda *parts: None)
    call(load, folder, out)
    tests = pd.read_csv(out / "contrasts.csv")
    assert len(tests) == 7 * 4 * 5  # sources, measures and contrasts
    assert (tests["arrangements"] == 32).all()
    assert set(tests.loc[tests["measure"] == "lobes", "tested"]) <= {1, 2}
    edges = tests[(tests["source"] == "connectivity") & (tests["measure"] == "edges")]
    edges = edges.set_index("contrast")
    assert (edges["tested"] == 6).all()
    assert edges.loc[script.MAIN, "surviving"] == 1
    top = pd.read_csv(out / "top.csv").query("source == 'connectivity'")
    top = top[(top["measure"] == "edges") & (top["contrast"] == script.MAIN)]
    assert top["region"].iloc[0] == "a - b"
    assert top["difference"].iloc[0] > 1
    hidden = pd.read_csv(out / "hidden.csv")
    assert hidden["n"].eq(N_PEOPLE).all()
    assert len(hidden) == 4 * 2
    settings = json.loads((out / "settings.json").read_text())
    assert settings["command"] == (
        "python benchmarks/psychedelic.py --data here --seeds 3 --epochs 1 --dim 8 "
        "--device cpu --out FOLDER"
    )
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "In the null controls, a cell survives in " in text
    assert "connectivity, edges: psilocybin post - placebo post: 1" in text
    assert str(tmp_path) not in text
    fits = {p: p.stat().st_mtime_ns for p in (out / "pretrained").rglob("*.json")}
    assert len(list((out / "pretrained").iterdir())) == N_PEOPLE + 1 + 1
    call(load, folder, out)
    assert fits == {
        p: p.stat().st_mtime_ns for p in (out / "pretrained").rglob("*.json")
    }
    assert (out / "table.md").read_text() == text


def test_steadiness_over_seeds_is_described(load, rng) -> None:
    script, page = load("psychedelic"), load("_psychedelic_page")
    before = rng.normal(size=(8, 3))
    after = before + rng.normal(size=(8, 3)) / 4 + [0, 0, 3]
    seeds = [script.contrast(after + rng.normal(size=(8, 3)) / 9, before) for _ in "ab"]
    row = script.describe_contrast(script.contrast(after, before), seeds)
    assert row["seeds_surviving"] == "1 1"
    assert row["seeds_share"] == 1
    assert row["seeds_correlation"] > 0.9
    assert (row["surviving"], row["tested"], row["people"]) == (1, 3, 8)
    key = {"source": "spatial, others", "measure": "lobes", "surviving_fdr": 1}
    both = [
        key | row | {"contrast": script.MAIN},
        key | row | {"contrast": "control: x", "share_below_05": 0.25},
    ]
    table = page._more(pd.DataFrame(both), script.MAIN)
    assert table["each seed (max)"].item() == "1 1"
    assert table["in controls"].item() == "0.250"


def test_models_of_a_person_did_not_see_the_person(load, folder, tmp_path) -> None:
    maps, script = load("_psychedelic_maps"), load("psychedelic")
    command = ["--data", str(folder), "--out", str(tmp_path), "--epochs", "0"]
    options = script.parser().parse_args([*command, "--dim", "8"])
    store = script.CellStore(tmp_path)
    study = maps.Study(load_cohort(folder), store, options)
    asked = []
    for model, rows in study.models(maps.LEFT_OUT, 0):
        assert len(model.participants_) == N_PEOPLE - 1
        assert len(set(study.people[rows])) == 1
        asked += rows.tolist()
    assert sorted(asked) == list(range(4 * N_PEOPLE))
    for rows in study.rows.values():
        assert study.people[rows].tolist() == [f"s{i}" for i in range(N_PEOPLE)]


def test_people_who_lack_a_scan_are_refused(load, folder) -> None:
    maps = load("_psychedelic_maps")
    with pytest.raises(ValueError, match=r"'placebo pre': 5, .* of 6 people"):
        maps.find_occasions(load_cohort(folder).iloc[1:])


def test_regions_without_a_table_are_those_of_aal(load, folder) -> None:
    maps = load("_psychedelic_maps")
    cohort = load_cohort(folder)
    assert maps.read_atlas(cohort, 4) == ([*"abcd"], [*"xxyy"])
    cohort.attrs.clear()
    assert maps.read_atlas(cohort, 4).labels[-1] == "region 3"
    atlas = maps.read_atlas(cohort, 90)
    assert len(set(atlas.labels)) == len(atlas.lobes) == 90
    assert atlas.labels[:2] == ["Precentral_L", "Precentral_R"]
    assert atlas.labels[-1] == "Temporal_Inf_R"
    assert pd.Series(atlas.lobes).value_counts().to_dict() == {
        "Frontal": 22,
        "Limbic": 14,
        "Occipital": 14,
        "Temporal": 12,
        "Central": 10,
        "Parietal": 10,
        "Subcortical": 8,
    }


def test_labels_of_aal_fit_the_real_scans(load, shared) -> None:
    folder = shared / "data" / "psilocybin"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/psilocybin")
    cohort = load_cohort(folder)
    labels = load("_psychedelic_maps").read_atlas(cohort, 90).labels
    r = np.mean([np.corrcoef(np.load(p).astype(float).T) for p in cohort["fmri"]], 0)
    np.fill_diagonal(r, -1)
    for name in ("Calcarine", "Precuneus", "Putamen", "Postcentral"):  # two halves
        left = labels.index(f"{name}_L")
        assert labels[int(r[left].argmax())] == f"{name}_R"
    nearest = {labels[i] for i in np.argsort(-r[labels.index("Calcarine_L")])[:4]}
    assert nearest <= {"Calcarine_R", "Lingual_L", "Lingual_R", "Cuneus_L", "Cuneus_R"}
