"""The paper's tasks in benchmarks/ are run as functions on tiny cohort folders."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.data import load_cohort, make_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
N_SCANS, N_PEOPLE = 24, 12
QUICK = ["--seeds", "0", "--n-jobs", "1", "--folds", "2", "--window", "8"]
QUICK += ["--max-epochs", "1", "--pretrain-epochs", "1"]


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def write_cohort(
    root: Path, name: str, *, n_regions: int = 4, seed: int = 0, last_label: str = "z"
) -> Path:
    """Write a cohort folder: two scans with fMRI and SC of each of 12 people."""
    cohort = make_cohort(
        n_scans=N_SCANS, n_regions=n_regions, n_timepoints=16, random_state=seed
    )
    folder = root / name
    table = pd.DataFrame(
        {"participant_id": [f"{name}{i // 2}" for i in range(N_SCANS)]}
    )
    table["sex"] = ["F" if i // 2 % 2 else "M" for i in range(N_SCANS)]
    table["age"] = 20.5 + np.arange(N_SCANS) // 2
    for part in ("fmri", "sc"):
        (folder / part).mkdir(parents=True)
        table[part] = [f"{part}/{i}.npy" for i in range(N_SCANS)]
        for path, values in zip(table[part], cohort.data[part], strict=True):
            np.save(folder / path, values)
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    labels = [*"abcdefg"[: n_regions - 1], last_label]
    regions = pd.DataFrame({"label": labels})
    regions.to_csv(folder / "regions.tsv", sep="\t", index=False)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_cohort(tmp_path, "here")


@pytest.fixture
def without_pictures(load, monkeypatch) -> None:
    """Leave out pictures, which take longest here."""
    monkeypatch.setattr(load("_runs"), "draw", lambda folder, summary: None)


def call(load, script: str, folder: Path, out: Path, *options: str) -> None:
    arguments = ["--cohort", str(folder), "--out", str(out), *QUICK, *options]
    load(script).main(arguments)


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "table.csv", index_col="label")


def test_sex_and_age_stand_beside_what_the_paper_prints(
    load, folder, tmp_path, capsys, without_pictures
) -> None:
    out = tmp_path / "out"
    targets = ["--target", "sex", "age", "--modalities", "sc", "both"]
    call(load, "paper", folder, out, *targets)
    figure = pd.read_csv(out / "figure2.csv", index_col=[0, 1])
    assert list(figure.index) == [
        ("none", "chance"),
        *[("sc", row) for row in ("classical", "linear probe", "fine-tuned")],
        *[("fmri+sc", row) for row in ("classical", "linear probe", "fine-tuned")],
    ]
    best = figure.loc[("fmri+sc", "fine-tuned")]
    assert best["sex: printed accuracy"] == 0.9404
    assert best["age: printed mse"] == 0.363
    assert figure.loc[("sc", "linear probe"), "age: printed rho"] == 0.72
    ours = figure[["sex: accuracy", "sex: f1", "age: 1 - r2"]]
    assert ours.notna().all(axis=None)
    assert "do not rank the rows" in (out / "figure2.md").read_text()
    assert "of other people, other scans" in capsys.readouterr().out
    beside = pd.read_csv(out / "sex" / "beside.csv", index_col="model")
    assert beside.loc["SC + linear", "source"] == "measured here"
    assert "Brain-JEPA" in beside.index
    table = table_of(out / "age")
    label = "BrainSymphony fmri+sc, fine-tuned"
    assert 1 - table.loc[label, "r2"] == pytest.approx(best["age: 1 - r2"])
    weights = list((out / "sex" / "pretrained").iterdir())
    assert len(weights) == 2 * 2  # a fold and a modality: probe and fine-tuning share


def test_what_the_paper_calls_a_target_can_be_said(load, folder, tmp_path) -> None:
    paper = load("paper")
    command = ["--cohort", str(folder), "--target", "Gender", "mood"]
    options = paper.parser().parse_args(command)
    assert paper.printed_names(options) == [None, None]
    options = paper.parser().parse_args([*command, "--printed", "sex", "age"])
    assert paper.printed_names(options) == ["sex", "age"]
    options = paper.parser().parse_args([*command, "--printed", "sex"])
    with pytest.raises(ValueError, match=r"one of \['age', 'sex'\] for each of"):
        paper.printed_names(options)


def test_scans_that_lack_a_modality_are_left_out_for_all(load, folder) -> None:
    runs, paper = load("_runs"), load("paper")
    command = ["--cohort", str(folder), "--target", "sex", *QUICK]
    options = paper.parser().parse_args(command)
    cohort = load_cohort(folder)
    cohort.loc[[0, 5], "sc"] = None
    task, notes = runs.complete_task(cohort, "sex", ("fmri", "sc"), options)
    assert len(task.y) == N_SCANS - 2
    assert notes == [
        "2 of 24 scans lack one of ['fmri', 'sc'] and are left out for all models."
    ]
    assert runs.complete_task(cohort, "sex", ("fmri",), options)[1] == []
    with pytest.raises(ValueError, match=r"Got none of \['sc'\] in 'here'"):
        runs.complete_task(cohort.assign(sc=None), "sex", ("sc",), options)


@pytest.mark.parametrize("target", ["sex", "age"])
def test_shares_of_training_people_are_nested(load, folder, target) -> None:
    low_data = load("low_data")
    task = load("_tasks").cohort_task(load_cohort(folder), target, n_folds=2)
    splits = low_data.make_splits(task, [0.1, 0.5, 1.0], seed=0)
    assert [split.name for split in splits[:3]] == [
        *["fold 1 @ 0.1", "fold 1 @ 0.5", "fold 1 @ 1"]
    ]
    few, half, every = (split.train for split in splits[:3])
    assert set(few) < set(every)
    assert set(few) <= set(half) <= set(every)
    np.testing.assert_array_equal(every, task.splits[0].train)
    for split in splits[:3]:
        np.testing.assert_array_equal(split.test, task.splits[0].test)
        people = task.groups[split.train]
        assert (pd.Series(people).value_counts() == 2).all()  # all scans of a person
    if target == "sex":
        assert set(task.y[few]) == {"F", "M"}
        assert len(set(task.groups[few])) == 4  # two of each
    other = low_data.make_splits(task, [0.1], seed=1)[0].train
    assert set(other) != set(few)


def test_low_data_leaves_a_table_and_curves(load, folder, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    models = ["--models", "dummy", "tangent", "brainsymphony-scratch"]
    options = ["--target", "sex", "--shares", "0.4", "1", *models]
    call(load, "low_data", folder, out, *options)
    curves = pd.read_csv(out / "curves.csv")
    assert list(curves) == ["model", "share", "n_train", "auroc", "auroc_sd"]
    assert len(curves) == 3 * 2
    assert curves["auroc"].between(0, 1).all()
    scans = curves.groupby("share")["n_train"].first()
    assert scans.to_dict() == {0.4: 8, 1.0: 12}
    assert (out / "curves.md").read_text().startswith("| model | 40% (8 scans) |")
    assert "AUROC by share of the training people" in capsys.readouterr().out
    full = table_of(out / "share-100").loc["tangent + linear", "auroc"]
    line = curves.query("model == 'tangent + linear' and share == 1")
    assert line["auroc"].item() == pytest.approx(full)
    if importlib.util.find_spec("matplotlib") is not None:
        assert (out / "curves.png").stat().st_size > 1000
    cells = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(cells) == 3 * 2 * 2
    call(load, "low_data", folder, out, *options)
    assert {
        path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()
    } == cells


@pytest.mark.parametrize("text", ["0", "1.5"])
def test_shares_outside_the_unit_interval_are_refused(load, text, capsys) -> None:
    command = ["--cohort", "x", "--target", "sex", "--shares", text]
    with pytest.raises(SystemExit):
        load("low_data").parser().parse_args(command)
    assert f"{text} is not in (0, 1]" in capsys.readouterr().err


def test_weights_of_another_cohort_are_transferred(
    load, folder, tmp_path, capsys, without_pictures
) -> None:
    out = tmp_path / "out"
    source = write_cohort(tmp_path, "there", seed=1)
    options = ["--source", str(source), "--target", "sex", "--modality", "sc"]
    call(load, "transfer", folder, out, *options)
    table = table_of(out)
    assert table["level"].to_dict() == {
        "chance": "A",
        "SC + linear": "A",
        "BrainSymphony from scratch": "A",
        "BrainSymphony pretrained here, fine-tuned": "A",
        "BrainSymphony pretrained on there, probed": "B",
        "BrainSymphony pretrained on there, fine-tuned": "B",
    }
    assert table["auroc"].between(0, 1).all()
    assert len(list((out / "pretrained").iterdir())) == 1 + 2  # the source, two folds
    said = pd.read_csv(out / "predictions.csv").groupby("model")["probability_M"]
    probabilities = said.apply(lambda p: tuple(p.round(9)))
    ours = probabilities[probabilities.index.str.startswith("BrainSymphony")]
    assert ours.nunique() == 4  # the weights are other ones, and used
    text = capsys.readouterr().out
    assert "Against scratch: BrainSymphony pretrained on there, probed" in text
    assert "Pretraining on 24 scans of there took" in text


def test_rows_of_a_cohort_can_be_what_is_pretrained_on(load, folder) -> None:
    transfer = load("transfer")
    command = ["--cohort", str(folder), "--target", "sex", *QUICK]
    parse = transfer.parser().parse_args
    options = parse([*command, "--source-rows", "sex", "F"])
    source, cohort = transfer.read_cohorts(options)
    assert set(source["sex"]) == {"F"}
    assert set(cohort["sex"]) == {"M"}
    assert len(source) + len(cohort) == len(load_cohort(folder))
    assert transfer.source_name(options) == "F"
    with pytest.raises(ValueError, match=r"Got 0 of 24 with sex in \['f'\]"):
        transfer.read_cohorts(parse([*command, "--source-rows", "sex", "f"]))


def test_weights_that_have_seen_a_tested_person_are_refused(
    load, folder, tmp_path
) -> None:
    transfer, runs = load("transfer"), load("_runs")
    source = ["--source", str(folder), "--target", "sex", "--modality", "sc"]
    with pytest.raises(ValueError, match="Got 12 in both, first 'here0'"):
        call(load, "transfer", folder, tmp_path / "out", *source)
    # the assertion itself, by the hashes in the weights
    command = ["--cohort", str(folder), *QUICK, *source]
    options = transfer.parser().parse_args(command)
    task, _ = runs.read_complete_task(options, ("sc",))
    how = {"modalities": "sc"}
    weights, _ = transfer.pretrain(task.X, how, 0, tmp_path, options)
    models = transfer.transferred(task.kind, weights, how, options)
    with pytest.raises(ValueError, match=r"Level 'B' needs .* Got 12 of 12 that"):
        runs.run(models, task, tmp_path, options, level="B")


def test_another_atlas_is_refused_before_anything_is_fitted(
    load, folder, tmp_path
) -> None:
    sizes = write_cohort(tmp_path, "larger", n_regions=5)
    labels = write_cohort(tmp_path, "renamed", last_label="y")
    found = {
        sizes: "Got 5 regions in --source and 4 in --cohort. Weights are bound",
        labels: r"first 'y' and 'z' of region 3\. Weights are bound",
    }
    for source, message in found.items():
        options = ["--source", str(source), "--target", "sex"]
        with pytest.raises(ValueError, match=message):
            call(load, "transfer", folder, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_fusion_is_tested_with_ever_less(load, folder, tmp_path) -> None:
    out = tmp_path / "out"
    options = ["--target", "sex", "--scratch", "--shares", "0", "0.5", "1"]
    call(load, "missing_modality", folder, out, *options)
    curves = pd.read_csv(out / "curves.csv")
    wide = curves.pivot_table(index="model", columns="share", values="auroc")
    assert wide.shape == (7, 3)
    assert wide.notna().all(axis=None)
    complete, as_many = (
        wide.loc[f"BrainSymphony, {training}"]
        for training in ("trained on complete scans", "as many missing in training")
    )
    alone = wide.loc["BrainSymphony, fmri only"]
    assert complete[0.0] == as_many[0.0]
    assert as_many[1.0] == alone[1.0]
    assert (alone == alone[0.0]).all()
    table = table_of(out / "share-50")
    assert table["splits"].eq(2).all()
    assert np.isnan(table.loc["BrainSymphony, fmri only", "p_holm"])  # the reference
    predictions = pd.read_csv(out / "share-50" / "predictions.csv")
    assert len(predictions) == 7 * N_SCANS
    n_cells = len(list((out / "cells").iterdir()))
    assert n_cells == 2 * (2 + 3 + 2)  # folds x (complete, alone, half missing)


def test_a_mixed_cell_takes_copies_for_what_is_missing(load, folder) -> None:
    missing = load("missing_modality")
    task = load("_tasks").cohort_task(load_cohort(folder), "age", n_folds=2)
    n, rows = len(task.y), task.splits[0].test
    place = np.random.default_rng(0).permutation(n)
    both = np.append(rows, rows + n)
    cell = {
        "rows": both,
        "groups": np.append(task.groups, task.groups)[both],
        "y_true": np.append(task.y, task.y)[both],
        "y_pred": np.append(task.y, task.y + 100)[both],
        "y_proba": None,
        "n_train": n - len(rows),
    }
    taken = []
    for share in (0.0, 0.25, 0.75, 1.0):
        mixed = missing.mix(cell, share, place, task)
        is_copy = mixed["y_pred"] - mixed["y_true"] == 100
        assert is_copy.sum() == round(share * len(rows))
        assert mixed["mae"] == pytest.approx(100 * is_copy.mean())
        assert mixed["test_fraction"] == task.splits[0].test_fraction
        taken.append(set(np.flatnonzero(is_copy)))
    assert taken[0] < taken[1] < taken[2] < taken[3]
    thin = missing.thinned(task.splits[0], 0.25, place)
    np.testing.assert_array_equal(thin.train % n, task.splits[0].train)
    assert (thin.train >= n).sum() == round(0.25 * len(thin.train))
    twice = missing.with_copies(task, "sc")
    assert twice.X["sc"].iloc[n:].isna().all()
    assert twice.X["sc"].iloc[:n].notna().all()
    assert twice.X["fmri"].iloc[n:].tolist() == twice.X["fmri"].iloc[:n].tolist()


def test_predictions_do_not_depend_on_copies_beside_them(
    load, folder, tmp_path
) -> None:
    missing, runs = load("missing_modality"), load("_runs")
    command = ["--cohort", str(folder), "--target", "sex", "--scratch", *QUICK]
    command += ["--shares", "0"]
    options = missing.parser().parse_args(command)
    task, _ = runs.read_complete_task(options, ("fmri", "sc"))
    models = missing.make_models(task.kind, "both", options)
    plain = runs.run(models, task, tmp_path, options)
    found = pd.concat(missing.run_seed(task, 0, tmp_path, options))
    label = "BrainSymphony, trained on complete scans"
    whole = found[(found["label"] == label) & (found["share"] == 0)]
    ours = plain[plain["model"] == "brainsymphony"]
    for with_copies, without in zip(whole["y_proba"], ours["y_proba"], strict=True):
        np.testing.assert_allclose(with_copies, without, atol=1e-6)


def test_ablations_are_tested_against_the_base(load, folder, tmp_path) -> None:
    out = tmp_path / "out"
    only = ["without fused", "sc only", "absent_edges as released"]
    call(load, "ablations", folder, out, "--target", "sex", "--only", *only)
    table = table_of(out)
    assert list(table.index) == ["base", *only]
    assert np.isnan(table.loc["base", "difference"])
    gain = table["auroc"] - table.loc["base", "auroc"]
    np.testing.assert_allclose(table["difference"][1:], gain[1:], atol=1e-9)
    assert table["p_holm"][1:].between(0, 1).all()
    if importlib.util.find_spec("matplotlib") is not None:
        assert (out / "forest.png").stat().st_size > 1000
    # the head is no part of pretraining: base and "without fused" share it
    assert len(list((out / "pretrained").iterdir())) == 3 * 2


def test_every_ablation_is_one_change_of_the_base(load) -> None:
    ablations = load("ablations")
    options = ablations.parser().parse_args(["--cohort", "x", "--target", "sex"])
    base = ablations.model("base", {}, "classification", options)
    before = base.estimator.get_params()
    every = ablations.changes(("fmri", "sc"))
    for name, change in every.items():
        made = ablations.model(name, change, "classification", options)
        after = made.estimator.get_params()
        assert {key for key in after if after[key] != before[key]} == set(change), name
        assert len(change) == 1
    assert {"without spatial", "no gate", "fused alone"} <= set(every)
    assert not {"spatial alone", "structural alone"} & set(every)  # blind to one
    only_sc = ablations.changes(("sc",))
    assert list(only_sc) == [
        *["without structural", "without fused", "structural alone", "fused alone"],
        *["signed_attention as released", "absent_edges as released"],
        "edge_symmetry as released",
    ]
    scratch = ablations.changes(("fmri",), scratch=True)
    assert "decoder as released" not in scratch
    with pytest.raises(ValueError, match=r"Got \['no head'\]"):
        ablations.checked(["no head"], every)


def test_one_page_names_the_runs_without_places(load, tmp_path) -> None:
    page = load("paper_page")
    command = "benchmarks/low_data.py --cohort /far/people --out /away --seeds 0"
    run = tmp_path / "runs" / "low"
    share = run / "share-50"
    share.mkdir(parents=True)
    settings = {
        "command": command,
        "task": "sex",
        "n_scans": 24,
        "n_groups": 12,
        "splits": ["fold 1", "fold 2"],
        "options": {"cohort": "/far/people", "seeds": [0]},
    }
    (share / "settings.json").write_text(json.dumps(settings))
    pd.DataFrame({"commit": ["0123456789"]}).to_csv(share / "cells.csv")
    (run / "curves.md").write_text("| model | 50% |\n")
    document = tmp_path / "page.md"
    page.main(["--results", str(tmp_path / "runs"), "--document", str(document)])
    text = document.read_text()
    assert "python benchmarks/low_data.py --cohort people --seeds 0`" in text
    assert "24 scans of 12 people, 2 splits, 1 seed(s); fits of 0123456" in text
    assert "| model | 50% |" in text
    assert "/far" not in text
    assert "/away" not in text
