"""A comparison is fair, goes on where it was stopped, and says what it did."""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    ConnectivityFeatures,
    make_candidate,
)
from bsym_sklearn.analysis import cells
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.scores import METRICS
from bsym_sklearn.analysis.splits import Split, leave_one_group_out
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.data import check_cohort, load_cohort, make_cohort, save_shards
from bsym_sklearn.data.folder import RegionTable
from bsym_sklearn.estimators.features import RegionAmplitude
from bsym_sklearn.estimators.registry import Candidate
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

TINY = {"dim": 4, "depth": 1, "n_heads": 2, "batch_size": 8}
CHANCE = DummyClassifier(strategy="prior")
LINEAR = make_pipeline(RegionAmplitude(), LogisticRegression())


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, np.ndarray]:
    """Return 24 scans of 12 participants, with an age and a site, and two states."""
    made = make_cohort(n_scans=24, n_regions=4, n_timepoints=20)
    X = made.data.drop(columns="sc")
    X["participant_id"] = [f"p{i // 2}" for i in range(24)]
    X["site"] = [f"s{i // 8}" for i in range(24)]
    return X, np.where(made.target == 0, "rest", "task")


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """Return a list that grows by the name of each cell that is computed."""
    names: list[str] = []
    judge, pretrain = cells._judge, cells._pretrain

    def count(compute):
        def computed(cell, *others):
            names.append(cell.name)
            return compute(cell, *others)

        return computed

    monkeypatch.setattr(cells, "_judge", count(judge))
    monkeypatch.setattr(cells, "_pretrain", count(pretrain))
    return names


class Killed(DummyClassifier):
    """Stops the whole program, or only itself, when it is fitted."""

    def __init__(self, error: type[BaseException] = KeyboardInterrupt):
        super().__init__(strategy="prior")
        self.error = error

    def fit(self, X, y):
        raise self.error("stopped here")


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers whom it was fitted on."""

    seen: ClassVar[list[set[str]]] = []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen.append(set(X["participant_id"]))
        return self

    def predict(self, X):
        assert not set(X["participant_id"]) & self.seen[-1]
        return np.repeat(self.classes_[:1], len(X))

    def decision_function(self, X):
        return np.zeros(len(X))


def scores_of(table: pd.DataFrame) -> pd.DataFrame:
    kept = ["model", "split", "seed"]
    kept += [m for names in METRICS.values() for m in names if m in table]
    return table[kept]


def test_every_cell_has_a_row_with_all_that_was_promised(people) -> None:
    X, y = people
    table = compare({"chance": CHANCE, "linear": LINEAR}, X, y, cv=3, seeds=(0, 1))
    assert len(table) == 2 * 3 * 2
    assert set(table["model"]) == {"chance", "linear"}
    assert table[list(METRICS["classification"])].notna().all(axis=None)
    assert table.groupby("model")["auroc"].mean()["chance"] == 0.5
    assert table["level"].eq("A").all()
    assert table["test_fraction"].between(0.2, 0.5).all()
    assert table.loc[table["model"] == "chance", "degenerate"].all()
    linear = table[table["model"] == "linear"]
    assert linear["n_parameters"].eq(4 + 1).all()
    assert linear["peak_memory_mb"].gt(1).all()
    assert linear["versions"].iloc[0]["scikit-learn"]
    tested = np.concatenate(linear.loc[linear["seed"] == 0, "rows"].tolist())
    assert sorted(tested) == list(range(24))
    for row in linear.itertuples():
        np.testing.assert_array_equal(row.y_true, y[row.rows])
        np.testing.assert_array_equal(row.groups, X["participant_id"].iloc[row.rows])
        np.testing.assert_allclose(row.y_proba.sum(axis=1), 1)
        assert row.accuracy == (row.y_pred == row.y_true).mean()


def test_participants_stay_together_by_default(people) -> None:
    X, y = people
    Recorder.seen.clear()
    table = compare({"recorder": Recorder()}, X, y, cv=3)
    assert len(Recorder.seen) == 3
    assert table["auroc"].eq(0.5).all()  # by decisions: it has no probabilities
    assert table["log_loss"].isna().all()
    assert table["y_proba"].isna().all()


def test_a_participant_on_both_sides_is_refused(people) -> None:
    X, y = people
    leaky = [(np.arange(0, 24, 2), np.arange(1, 24, 2))]
    with pytest.raises(ValueError, match="Got 12 in both, first 'p0' in 'split 1'"):
        compare({"chance": CHANCE}, X, y, cv=leaky)
    with pytest.raises(ValueError, match="Got 12 in both"):
        compare(
            {"chance": CHANCE}, X[["fmri"]], y, groups=X["participant_id"], cv=leaky
        )
    # without a column or groups each scan is on its own
    assert len(compare({"chance": CHANCE}, X[["fmri"]], y, cv=leaky)) == 1


def test_finished_cells_are_not_computed_again(people, tmp_path, fits) -> None:
    X, y = people
    first = compare({"a": CHANCE, "b": LINEAR}, X, y, cv=3, store=tmp_path)
    assert len(fits) == 6
    fits.clear()
    # other labels, another order, one model more
    ridge = make_pipeline(RegionAmplitude(), RidgeClassifier())
    models = {"b": LINEAR, "new a": CHANCE, "c": ridge}
    again = compare(models, X, y, cv=3, store=tmp_path)
    assert fits == [f"c, fold {i}, seed 0" for i in (1, 2, 3)]
    old = again[again["model"] == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        old, first[first["model"] == "b"].reset_index(drop=True)
    )
    fits.clear()
    compare({"b": LINEAR}, X, y[::-1], cv=3, store=tmp_path)
    assert len(fits) == 3  # other targets
    compare({"b": LINEAR}, X.assign(age=0), y, cv=3, store=tmp_path)
    assert len(fits) == 6  # another table
    compare({"b": LINEAR}, X, y, cv=3, split_seed=1, store=tmp_path)
    assert len(fits) == 9  # other splits
    compare({"b": LINEAR}, X, y, cv=3, seeds=(7,), store=tmp_path)
    assert len(fits) == 12  # another seed


def test_a_killed_run_loses_one_cell_at_most(people, tmp_path, fits) -> None:
    X, y = people
    models = {"chance": CHANCE, "killed": Killed(), "linear": LINEAR}
    with pytest.raises(KeyboardInterrupt):
        compare(models, X, y, cv=2, store=tmp_path)
    assert fits == [
        "chance, fold 1, seed 0",
        "chance, fold 2, seed 0",
        "killed, fold 1, seed 0",
    ]
    fits.clear()
    del models["killed"]
    assert len(compare(models, X, y, cv=2, store=tmp_path)) == 4
    assert fits == ["linear, fold 1, seed 0", "linear, fold 2, seed 0"]


def test_a_model_that_fails_is_named_after_the_others_are_finished(
    people, tmp_path, fits
) -> None:
    X, y = people
    models = {"broken": Killed(ZeroDivisionError), "linear": LINEAR}
    message = "Got 2 fits that failed.*first broken, fold 1, seed 0: ZeroDivisionError"
    with pytest.raises(RuntimeError, match=message):
        compare(models, X, y, cv=2, store=tmp_path)
    assert len(fits) == 4
    (log, _) = (tmp_path / "failed").iterdir()
    assert "stopped here" in log.read_text()
    fits.clear()
    assert len(compare({"linear": LINEAR}, X, y, cv=2, store=tmp_path)) == 2
    assert fits == []


def test_a_damaged_cell_is_computed_again(people, tmp_path, fits) -> None:
    X, y = people
    first = compare({"linear": LINEAR}, X, y, cv=2, store=tmp_path)
    fits.clear()
    file = next((tmp_path / "cells").iterdir())
    file.write_text(file.read_text()[:100])
    with pytest.warns(BrainSymphonyWarning, match="damaged"):
        again = compare({"linear": LINEAR}, X, y, cv=2, store=tmp_path)
    assert len(fits) == 1
    pd.testing.assert_frame_equal(scores_of(again), scores_of(first))


def test_cells_of_older_code_are_told(people, tmp_path) -> None:
    X, y = people
    compare({"linear": LINEAR}, X, y, cv=2, store=tmp_path)
    store = CellStore(tmp_path)
    for n, path in enumerate((tmp_path / "cells").iterdir(), start=1):
        older = {"code": "older", "commit": "abc"}
        store.write(path.stem, (store.read(path.stem) or {}) | older)
        with pytest.warns(BrainSymphonyWarning, match=rf"Got {n} of 2 .* \['abc'\]"):
            compare({"linear": LINEAR}, X, y, cv=2, store=tmp_path)


def test_results_do_not_depend_on_how_much_runs_at_once(people) -> None:
    X, y = people
    network = BrainSymphonyClassifier(
        **TINY, max_epochs=2, group_column="participant_id"
    )
    models = {"linear": LINEAR, "network": network}
    alone = compare(models, X, y, cv=2, seeds=(0, 1), n_jobs=1)
    beside = compare(models, X, y, cv=2, seeds=(0, 1), n_jobs=2)
    pd.testing.assert_frame_equal(scores_of(alone), scores_of(beside))
    for one, two in zip(alone["y_proba"], beside["y_proba"], strict=True):
        np.testing.assert_array_equal(one, two)
    network_rows = alone[alone["model"] == "network"]
    assert network_rows.groupby("split")["log_loss"].nunique().eq(2).all()  # seeds


def test_parts_of_a_model_get_seeds_of_their_own() -> None:
    search = GridSearchCV(BrainSymphonyClassifier(), {"lr": [1e-3]})
    seeded = cells.with_seed(make_pipeline(DummyClassifier(), search), 5)
    params = seeded.get_params(deep=True)
    assert cells.seed_parameters(seeded) == [
        "dummyclassifier__random_state",
        "gridsearchcv__estimator__random_state",
    ]
    assert params["dummyclassifier__random_state"] == 5
    assert params["gridsearchcv__estimator__random_state"] == 1005


def test_pretraining_sees_the_training_rows_once_per_split_and_seed(
    people, tmp_path, fits
) -> None:
    X, y = people
    embedder = BrainSymphonyEmbedder(**TINY, max_epochs=1)
    frozen = make_pipeline(
        BrainSymphonyEmbedder(**TINY, max_epochs=0), LogisticRegression()
    )
    tuned = BrainSymphonyClassifier(**TINY, max_epochs=1)
    name = "brainsymphonyembedder__pretrained"
    models = {
        "frozen": Candidate(frozen, "frozen", embedder, pretrained_parameter=name),
        "finetuned": Candidate(tuned, "finetuned", embedder),
    }
    table = compare(models, X, y, cv=2, seeds=(0, 1), store=tmp_path)
    pretrained = [name for name in fits if name.startswith("pretraining")]
    assert len(pretrained) == 4  # shared by the two models
    assert len(table) == 8
    assert table["seconds"].gt(table["seconds_pretraining"]).all()
    assert table["seconds_pretraining"].gt(0).all()
    store = CellStore(tmp_path)
    seen = {
        frozenset(store.read(path.stem)["rows"])
        for path in (tmp_path / "cells").iterdir()
        if (tmp_path / "pretrained" / path.stem).is_dir()
    }
    splits = [frozenset(rows) for rows in table["rows"]]
    assert seen == {frozenset(range(24)) - test for test in splits}
    # one that sees all is another, and says so
    fits.clear()
    models.pop("finetuned")
    table = compare(models, X, y, cv=2, seeds=(0,), level="C", store=tmp_path)
    assert len(fits) == 1 + 2  # all scans are the same in both splits
    assert table["level"].eq("C").all()
    # weights that were deleted are made again, but only if they are needed
    fits.clear()
    for folder in (tmp_path / "pretrained").iterdir():
        folder.rename(tmp_path / folder.name)
    compare(models, X, y, cv=2, seeds=(0,), level="C", store=tmp_path)
    assert fits == []


def test_damaged_weights_in_a_store_are_made_again(people, tmp_path, fits) -> None:
    X, y = people
    embedder = BrainSymphonyEmbedder(**TINY, max_epochs=1)
    tuned = BrainSymphonyClassifier(**TINY, max_epochs=1)
    models = {"tuned": Candidate(tuned, "tuned", embedder)}
    compare(models, X, y, cv=2, seeds=(0,), store=tmp_path)
    for file in (tmp_path / "pretrained").glob("*/*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    compare(models, X, y, cv=2, seeds=(0,), store=tmp_path)  # nobody needs them
    store = CellStore(tmp_path)
    for path in (tmp_path / "cells").iterdir():
        if "scores" in (store.read(path.stem) or {}):
            path.unlink()
    fits.clear()
    compare(models, X, y, cv=2, seeds=(0,), store=tmp_path)
    assert [name.startswith("pretraining") for name in fits] == [True] * 2 + [False] * 2


def test_given_weights_must_not_have_seen_who_is_tested(people, tmp_path) -> None:
    X, y = people
    embedder = BrainSymphonyEmbedder(**TINY, max_epochs=1, random_state=0)
    others = X.assign(participant_id=[f"q{i}" for i in range(24)])
    for name, scans in (("same", X[:8]), ("others", others), ("nobody", X[["fmri"]])):
        embedder.fit(scans).save_pretrained(tmp_path / name)

    def run(name: str, level: str, X: pd.DataFrame = X) -> pd.DataFrame:
        given = BrainSymphonyClassifier(
            **TINY, max_epochs=1, pretrained=str(tmp_path / name)
        )
        return compare({"given": given}, X, y, cv=2, level=level)

    with pytest.raises(ValueError, match="Level 'A' needs all learning within"):
        run("others", "A")
    with pytest.raises(ValueError, match="Got 4 of 12 that 'same' of 'given' has seen"):
        run("same", "B")
    with pytest.raises(ValueError, match=r"they have seen\. Got none in 'nobody'"):
        run("nobody", "B")
    with pytest.raises(ValueError, match=r"needs the participants that .* Got none\."):
        run("others", "B", X.drop(columns="participant_id"))
    padded = X.assign(participant_id="sub-00" + X["participant_id"].str[1:])
    embedder.fit(padded[:8]).save_pretrained(tmp_path / "padded")
    numbers = X.assign(participant_id=X["participant_id"].str[1:].astype(float))
    with pytest.raises(ValueError, match="Got 4 of 12 that 'padded' of 'given' has"):
        run("padded", "B", numbers)
    assert run("others", "B")["level"].eq("B").all()
    assert run("same", "C")["level"].eq("C").all()


def test_another_cohort_of_arrays_is_the_test() -> None:
    X, y = np.random.default_rng(0).normal(size=(12, 20, 4)), np.arange(12) % 2
    others = (X[:6] + 1, y[:6])
    table = compare({"c": CHANCE}, X, y, groups=np.arange(12), external=others)
    assert table["n_test"].tolist() == [6]


def test_another_cohort_is_the_test(people) -> None:
    X, y = people
    others = X[:10].assign(participant_id=[f"q{i}" for i in range(10)])
    table = compare({"linear": LINEAR}, X, y, external=(others, y[:10]))
    assert table["split"].tolist() == ["external"]
    assert table["rows"].iloc[0].tolist() == list(range(24, 34))
    assert table[["n_train", "n_test"]].to_numpy().tolist() == [[24, 10]]
    np.testing.assert_array_equal(table["y_true"].iloc[0], y[:10])
    families = X["site"].astype(str).to_numpy()  # whatever the groups are
    numbered = X.assign(participant_id=range(24))
    with_gaps = others.assign(participant_id=np.arange(10.0))  # 1.0 is 1
    for groups, cohort, tested in (
        (None, X, X[:10]),
        (families, X, X[:10]),
        (None, numbered, with_gaps),
    ):
        external = (tested, y[:10])
        with pytest.raises(ValueError, match=r"Got \d+ that are in both, such as"):
            compare({"linear": LINEAR}, cohort, y, groups=groups, external=external)


def test_a_site_is_left_out(people) -> None:
    X, y = people
    cv = LeaveOneGroupOut()
    table = compare({"linear": LINEAR}, X, y, groups=X["site"], cv=cv)
    assert len(table) == 3
    for row in table.itertuples():
        assert len(set(X["site"].iloc[row.rows])) == 1


def test_values_are_regressed_and_models_are_found_by_name(people) -> None:
    X, _ = people
    table = compare(
        ["dummy", "amplitude", "confounds"], X, X["age"] + 0.5, cv=2, confounds=["site"]
    )
    assert table["label"].iloc[0] == "chance"
    assert table["family"].unique().tolist() == ["floor"]
    assert table[list(METRICS["regression"])[:2]].notna().all(axis=None)
    assert table.loc[table["model"] == "amplitude", "tuned"].iloc[0]


def test_arrays_and_lists_are_cohorts_too(rng) -> None:
    y = np.tile([0, 1], 6)
    series = rng.normal(size=(12, 10, 3))
    by_array = compare({"linear": LINEAR}, series, y, cv=2)
    by_list = compare({"linear": LINEAR}, list(series), y, cv=2)
    pd.testing.assert_frame_equal(scores_of(by_array), scores_of(by_list))
    table = compare({"linear": LogisticRegression()}, rng.normal(size=(12, 3)), y, cv=2)
    assert table["n_parameters"].tolist() == [4, 4]


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ({}, {}, "models of different labels"),
        (["sc"], {}, r"'sc' needs \['sc'\]. Got a cohort with \['fmri'\]"),
        (["dummy"], {"confounds": ["mood"]}, r"confounds \['mood'\] as columns"),
        (["dummy"], {"level": "D"}, "`level` must be one of"),
        (["dummy"], {"cv": []}, "splits of different names"),
        (["nothing"], {}, "nothing"),
        (
            {"a": Candidate(CHANCE, "same"), "b": "dummy"},
            {"cv": [Split(np.arange(4), np.arange(4, 8), "x")], "n_trials": -1},
            "n_trials",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(people, models, options, message) -> None:
    X, y = people
    with pytest.raises(ValueError, match=message):
        compare(models, X, y, **options)


def test_targets_that_are_missing_are_refused(people) -> None:
    X, y = people
    labels = y.astype(object)
    labels[3] = None
    with pytest.raises(BrainDataError, match="Got none, first in scan 3"):
        compare({"chance": CHANCE}, X, labels)
    with pytest.raises(BrainDataError, match="the group of every scan"):
        compare({"chance": CHANCE}, X, y, groups=labels)
    with pytest.raises(TypeError, match=r"Write \['dummy'\]"):
        compare("dummy", X, y)


def test_models_with_a_space_are_tuned_within_the_training_rows(
    people, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("optuna", reason="the search needs optuna")
    X, y = people
    searched = []
    tune = cells.tune

    def watch(estimator, space, scans, target, splits, **options):
        searched.append((len(target), len(splits), options["n_trials"]))
        owners = scans["participant_id"].to_numpy()
        for fit, check in splits:
            assert not set(owners[fit]) & set(owners[check])
        return tune(estimator, space, scans, target, splits, **options)

    monkeypatch.setattr(cells, "tune", watch)
    models = ["tangent", "mean_mlp"]
    table = compare(models, X, y, cv=2, n_trials=2, store=tmp_path)
    network = table[table["model"] == "mean_mlp"]
    assert all({"lr", "dropout", "weight_decay"} <= set(t) for t in network["tuned"])
    assert searched == [(n, 3, 2) for n in network["n_train"]]
    untuned = compare(["mean_mlp"], X, y, cv=2, store=tmp_path)
    assert untuned["tuned"].tolist() == [{}, {}]
    assert len(searched) == 2


@pytest.mark.parametrize("backend", ["threading", "dask"])
def test_the_workers_are_those_of_the_configuration(people, backend) -> None:
    X, y = people
    expected = compare({"linear": LINEAR}, X, y, cv=2)
    if backend == "dask":
        distributed = pytest.importorskip("distributed", reason="needs dask")
        client = distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        )
    try:
        with joblib.parallel_config(backend=backend, n_jobs=2):
            table = compare({"linear": LINEAR}, X, y, cv=2)
    finally:
        if backend == "dask":
            client.close()
    pd.testing.assert_frame_equal(scores_of(table), scores_of(expected))


def test_weights_of_a_pretrainer_are_looked_at_too(people, tmp_path) -> None:
    X, y = people
    BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=0).fit(X).save_pretrained(
        tmp_path / "all"
    )
    candidate = make_candidate("brainsymphony-frozen", pretrain_epochs=1)
    candidate.pretrainer.set_params(pretrained=str(tmp_path / "all"))
    with pytest.raises(ValueError, match="Level 'A' needs all learning within"):
        compare({"x": candidate}, X, y, cv=2)


def test_frozen_models_are_looked_at_too(people) -> None:
    X, y = people
    embedder = BrainSymphonyEmbedder(**TINY, max_epochs=0, random_state=0)
    others = X.assign(participant_id=[f"q{i}" for i in range(24)])

    def run(scans: pd.DataFrame, level: str) -> pd.DataFrame:
        frozen = FrozenEstimator(embedder.fit(scans))
        model = make_pipeline(frozen, LogisticRegression())
        chance = DummyClassifier(strategy="prior")
        return compare({"x": model, "chance": chance}, X, y, cv=2, level=level)

    with pytest.raises(ValueError, match=r"Level 'A' .* Got 'x' with what .*Embedder'"):
        run(others, "A")
    with pytest.raises(ValueError, match="Got 12 of 12 that 'BrainSymphonyEmbedder'"):
        run(X, "B")
    both = make_union(
        *(FrozenEstimator(deepcopy(embedder.fit(x))) for x in (X, others))
    )
    with pytest.raises(ValueError, match="Got 12 of 12 that 'BrainSymphonyEmbedder'"):
        compare({"x": make_pipeline(both, CHANCE)}, X, y, cv=2, level="B")
    levels = run(others, "B").groupby("label")["level"].first()
    assert levels.to_dict() == {"chance": "A", "x": "B"}


def test_nobody_is_on_both_sides_whatever_made_the_split(people) -> None:
    X, y = people
    site = np.arange(24) % 2  # everybody was scanned in both
    splits = leave_one_group_out(site)
    with pytest.raises(ValueError, match="Got 12 in both"):
        compare({"chance": CHANCE}, X, y, groups=site, cv=splits)


def test_what_has_changed_is_compared_again(people, tmp_path) -> None:
    X, y = people

    def compared(k: int, X: pd.DataFrame) -> int:
        """Return the number of fits in the store after a model of k columns."""
        columns = FunctionTransformer(lambda values: values[:, :k])
        model = make_pipeline(ConnectivityFeatures(), columns, LogisticRegression())
        compare({"linear": model}, X, y, cv=2, store=tmp_path)
        return len(list((tmp_path / "cells").iterdir()))

    codes = X["site"].astype("category").cat.codes
    moved = X.copy()
    moved.attrs["regions"] = RegionTable({"x": np.arange(4.0)})
    assert [compared(1, X), compared(1, X), compared(3, X)] == [2, 2, 4]
    assert compared(3, X.assign(site=codes)) == 6
    assert compared(3, X.assign(site=codes.astype(str))) == 8
    assert compared(3, moved) == 10


def test_one_score_per_class_is_needed(rng) -> None:
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    model = SVC(decision_function_shape="ovo")
    for one in (model, make_pipeline(model)):
        with pytest.raises(RuntimeError, match="Set it to 'ovr'"):
            compare({"svc": one}, X, y, cv=2)


def test_masks_and_numbers_of_numpy_are_splits(people) -> None:
    X, y = people
    half = np.arange(24) < 12
    table = compare({"linear": LINEAR}, X, y, cv=[(half, ~half)], seeds=np.arange(1))
    assert table["rows"].iloc[0].tolist() == list(range(12, 24))
    assert len(compare({"linear": LINEAR}, X, y, cv=np.int64(2))) == 2
    with pytest.raises(ValueError, match="at least one seed"):
        compare({"linear": LINEAR}, X, y, seeds=())


def test_a_copy_of_the_cohort_is_not_computed_again(people, fits, tmp_path) -> None:
    X, y = people
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = [tmp_path / name / f"{i}.npy" for i in range(24)]
        for path, values in zip(paths, X["fmri"], strict=True):
            np.save(path, values)
        copied = X.assign(fmri=[str(path) for path in paths])
        compare({"linear": LINEAR}, copied, y, cv=2, store=tmp_path / "store")
        assert len(fits) == 2
    np.save(paths[0], X["fmri"].iloc[1])
    compare({"linear": LINEAR}, copied, y, cv=2, store=tmp_path / "store")
    assert len(fits) == 4


def test_shards_are_one_cohort_wherever_they_lie(people, tmp_path) -> None:
    X, _ = people
    hashes = []
    for name in ("a", "b"):
        save_shards(X, tmp_path / name)
        cohort = check_cohort(load_cohort(tmp_path / name))
        hashes.append(cohort.content_hash())
    assert hashes[0] == hashes[1]
