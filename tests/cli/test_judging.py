"""``bsym evaluate`` and ``bsym compare``."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyClassifier
from bsym_sklearn.analysis.scores import classification_scores
from bsym_sklearn.data import load_cohort

QUICK = ("--target", "state", "--folds", 2)


def test_a_comparison_leaves_its_files_and_resumes(run, folder, tmp_path) -> None:
    out = tmp_path / "results"
    arguments = ("compare", folder, *QUICK, "--out", out)
    first = run(*arguments, "--models", "dummy", "amplitude")
    assert "amplitude + linear" in first.stdout
    assert "Best AUROC of 2 models over 2 splits" in first.stdout
    assert first.stdout == (out / "table.txt").read_text()
    names = {path.name for path in out.iterdir()}
    expected = {"cells", "cells.csv", "predictions.csv", "settings.toml"}
    expected |= {f"table.{suffix}" for suffix in ("txt", "md", "tex", "csv")}
    if importlib.util.find_spec("matplotlib") is not None:
        expected.add("forest.png")
    assert names == expected
    cells = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(cells) == 4
    settings = ("compare", "--config", out / "settings.toml")
    names = ("dummy", "amplitude", "confounds")
    more = run(*settings, "-q", "--models", *names, "--confounds", "age", "site")
    assert "confounds + linear" in more.stdout
    assert more.stderr == ""
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert cells.items() <= kept.items()  # nothing was computed again
    assert len(kept) == 6
    table = pd.read_csv(out / "cells.csv")
    assert set(table["model"]) == {"dummy", "amplitude", "confounds"}


def test_a_folder_with_other_things_is_not_written_to(run, folder, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    result = run("compare", folder, *QUICK, "--out", tmp_path, code=2)
    assert "holds something else than a comparison" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_cohort_can_be_the_test(run, folder, others, tmp_path) -> None:
    arguments = ("--models", "dummy", "amplitude", "--external", others)
    arguments += ("--n-resamples", 20)
    out = tmp_path / "out"
    run("compare", folder, "--target", "state", "--out", out, *arguments)
    cells = pd.read_csv(out / "cells.csv")
    assert list(cells["split"]) == ["external"] * 2
    assert list(cells["n_test"]) == [12, 12]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "stat"), "has no column 'stat'. Did you mean 'state'?"),
        (("--target", "fmri"), "has no column 'fmri'."),
        (("--groups", "family"), "There are 'participant_id', 'age', 'site', 'state'."),
        (("--confounds", "agee"), "has no column 'agee'. Did you mean 'age'?"),
        (("--leave-out", "sites"), "Did you mean 'site'?"),
        (("--models", "tangnt"), "no model 'tangnt' of classification. Did you mean"),
        (("--models", "confounds"), "The model 'confounds' needs confounds"),
        (("--models", "dummy", "dummy"), "compare needs each model once"),
        (("--metric", "auc", "--models", "dummy"), "needs one of the scores"),
        (("--confounds", "state"), "cannot be a confound of itself"),
        (("--folds", "9", "--models", "dummy"), "9"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(
    run, folder, tmp_path, arguments, message
) -> None:
    given = ("compare", folder, "--out", tmp_path / "o", *QUICK, *arguments)
    result = run(*given, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_models_that_cannot_be_fitted_are_named(
    run, folder, tmp_path, monkeypatch
) -> None:
    from sklearn.dummy import DummyClassifier

    def fail(self, X, y) -> None:
        raise FloatingPointError("The loss became nan.")

    monkeypatch.setattr(DummyClassifier, "fit", fail)
    out = tmp_path / "o"
    given = ("compare", folder, "--out", out, *QUICK, "--models", "dummy", "amplitude")
    result = run(*given, code=5)
    assert "2 fits that failed" in result.stderr
    assert "The loss became nan." in result.stderr
    assert len(list((out / "cells").iterdir())) == 2  # the other model is finished


@pytest.mark.parametrize("option", [("compare", "--rope"), ("pretrain", "--lr")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(run, folder, tmp_path, option, value) -> None:
    command, name = option
    target = ("--target", "state") if command == "compare" else ()
    given = (command, folder, *target, "--out", tmp_path / "out", name, value)
    assert f"{value} is not a finite number" in run(*given, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_models_are_listed(run) -> None:
    lines = run("compare", "--list-models").stdout.splitlines()
    assert lines[0].split() == ["name", "needs", "what", "it", "is"]
    assert {"dummy", "tangent+sc"} <= {line.split()[0] for line in lines}


def test_one_model_is_judged_beside_simple_ones(run, folder, tmp_path) -> None:
    out = tmp_path / "scores.json"
    given = ("evaluate", folder, *QUICK, "--model", "amplitude", "--store", tmp_path)
    result = run(*given, "--out", out)
    assert "Best AUROC of 3 models" in result.stdout
    scores = json.loads(out.read_text())
    assert [m["model"] for m in scores["models"]] == ["dummy", "tangent", "amplitude"]
    assert 0 <= scores["models"][2]["auroc"] <= 1
    printed = json.loads(run(*given, "--json").stdout)
    assert printed == scores  # nothing was computed again, not even the seconds
    run(*given, "--out", out, code=2)
    run(*given, "--out", tmp_path / "s.tsv")
    table = pd.read_csv(tmp_path / "s.tsv", sep="\t", index_col="model")
    assert table.loc["amplitude", "auroc"] == scores["models"][2]["auroc"]


def test_a_saved_embedder_is_judged_on_other_people(
    run, folder, others, embedder
) -> None:
    given = ("--model", embedder, *QUICK)
    result = run("evaluate", folder, *given, code=3)
    assert "Got 6 of 6 that it has seen." in result.stderr
    text = run("evaluate", others, *given).stdout
    assert "embedder frozen + linear" in text
    assert text.splitlines()[3].split()[-1] == "B"


def test_a_saved_classifier_is_judged_as_it_is(run, folder, others, classifier) -> None:
    given = ("--target", "state", "--n-resamples", 20, "--json")
    result = run("evaluate", folder, "--model", classifier, *given, code=3)
    assert "needs other people" in result.stderr
    said = run("evaluate", others, "--model", classifier, *given).stdout
    (scores,) = json.loads(said)["models"]
    model = BrainSymphonyClassifier.from_pretrained(classifier)
    X = load_cohort(others)
    p = model.predict_proba(X)
    expected = classification_scores(X["state"], model.predict(X), p, model.classes_)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["auroc_low"] <= scores["auroc"] <= scores["auroc_high"]
    assert "seconds_predict" not in scores
    text = run("evaluate", others, "--model", classifier, *given[:-1]).stdout
    assert "BrainSymphonyClassifier" in text


def test_predictions_need_no_target(run, others, classifier, embedder, tmp_path):
    out = tmp_path / "predictions.tsv"
    given = ("evaluate", others, "--model", classifier, "--predict-only")
    run(*given, "--out", out)
    table = pd.read_csv(out, sep="\t")
    assert run(*given).stdout == out.read_text()
    X = load_cohort(others)
    model = BrainSymphonyClassifier.from_pretrained(classifier)
    assert list(table["predicted"]) == list(model.predict(X))
    assert np.allclose(table["probability_task"], model.predict_proba(X)[:, 1])
    assert list(table["participant_id"]) == list(X["participant_id"])
    given = ("evaluate", others, "--model", embedder, "--predict-only")
    assert "needs a saved classifier" in run(*given, code=2).stderr


def test_labels_that_a_classifier_does_not_know_are_named(
    run, others, classifier, table, tmp_path
) -> None:
    cohort = tmp_path / "other.tsv"
    paths = {"fmri": [f"{others}/{x}" for x in table["fmri"]]}
    table.assign(**paths, sc="n/a", state="sleep").drop(
        columns="participant_id"
    ).to_csv(cohort, sep="\t", index=False)
    given = ("evaluate", cohort, "--model", classifier, "--target", "state")
    result = run(*given, code=3)
    assert "Got 'sleep', first in scan 0. It knows ['rest', 'task']." in result.stderr
    assert "whether the model has seen these people is not known" in result.stderr


def test_labels_of_a_column_with_a_gap_are_those_of_the_model(
    run, folder, tmp_path
) -> None:
    X = load_cohort(folder)
    codes = (X["state"] == "task").astype(float)  # as a column with n/a is read
    model = BrainSymphonyClassifier(dim=8, depth=1, max_epochs=1, random_state=0)
    model.fit(X.drop(columns=["state"]), codes)
    model.save_pretrained(tmp_path / "model")
    table = X.assign(state=codes.astype(int).astype(str)).drop(columns="participant_id")
    table.loc[3, "state"] = "n/a"
    table.to_csv(tmp_path / "scans.tsv", sep="\t", index=False, na_rep="n/a")
    result = run(
        "evaluate", tmp_path / "scans.tsv", "--model", tmp_path / "model",
        "--target", "state", "--level", "C",
    )  # fmt: skip
    assert "1 of 12 scans have no 'state' and are left out" in result.stderr
