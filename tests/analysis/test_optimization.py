"""The search that is shared: by processes, over time, and after the death of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold

from bsym_sklearn.analysis import optimization
from bsym_sklearn.analysis.optimization import optimize

pytest.importorskip("optuna", reason="the search needs optuna")
import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from bsym_sklearn.analysis import studies

SPACE = {"level": FloatDistribution(-10.0, 10.0)}
X, Y = np.zeros((12, 1)), np.linspace(2.9, 3.1, 12)
# One worker: the call of `worker`, in a process of its own.
WORKER = """
import sys, time
import numpy as np
from optuna.distributions import FloatDistribution
from sklearn.dummy import DummyRegressor
from bsym_sklearn.analysis.optimization import optimize

def scoring(model, X, y):
    print("scoring", flush=True)
    time.sleep(float(sys.argv[2]))
    return -abs(model.constant - 3)

found = optimize(
    DummyRegressor(strategy="constant", constant=0.0), np.zeros((12, 1)),
    np.linspace(2.9, 3.1, 12), cv=2, n_trials=6, storage=sys.argv[1],
    space={"constant": FloatDistribution(-10.0, 10.0)}, scoring=scoring,
)
print(len(found.trials), found.score, flush=True)
"""


class Constant(RegressorMixin, BaseEstimator):
    """Predicts `level`; refuses levels above `highest`."""

    def __init__(self, level=0.0, highest=10.0, error=ValueError):
        self.level = level
        self.highest = highest
        self.error = error

    def fit(self, X, y):
        if self.level > self.highest:
            raise self.error("the level is too high")
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.full(len(X), float(self.level))


def search(model=None, **options):
    options = {"space": SPACE, "cv": 3, "n_trials": 8} | options
    return optimize(model or Constant(), X, Y, **options)


def places(tmp_path: Path) -> list[str]:
    """Return a storage of each kind."""
    return [str(tmp_path / "journal.log"), f"sqlite:///{tmp_path}/trials.db"]


def open_journal(path: Path, name: str) -> optuna.Study:
    return studies.open_study(name, path, sampler=studies.TrialSeeds(0))


# ---------------------------------------------------------------------- one process


def test_search_finds_the_best_level() -> None:
    found = search(n_trials=40, pruner=None)
    assert found.params["level"] == pytest.approx(3.0, abs=0.6)
    assert found.score == found.trials["score"].max()
    assert found.trials["level"][0] == 0.0  # as it came
    assert found.trials["n_folds"].eq(3).all()
    assert found.trials["error"].eq("").all()
    assert found.best_estimator is None


def test_bad_trials_are_not_computed_to_the_end() -> None:
    found = search(n_trials=30)
    pruned = found.trials["n_folds"] < 3
    assert 5 < pruned.sum() < 25
    assert found.trials["score"].isna().eq(pruned).all()
    assert not pruned[:5].any()  # there is no median yet
    assert found.score == found.trials["score"].max()


def test_folds_at_a_time_change_no_trial() -> None:
    alone = search()
    with joblib.parallel_config(backend="threading"):
        together = search(n_jobs=2)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        alone.trials.drop(columns=drop), together.trials.drop(columns=drop)
    )


def test_a_name_brings_its_model_and_space(cohort) -> None:
    found = optimize("mean_mlp", cohort.data, cohort.target, cv=2, n_trials=1, seed=3)
    assert set(found.params) == {"lr", "weight_decay", "dropout"}
    assert np.isfinite(found.score)


def test_groups_stay_on_one_side_and_the_best_is_refitted() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(24, 3)), np.repeat(["a", "b"], 12)
    groups = np.tile(np.arange(6), 4)
    space = {"C": FloatDistribution(1e-3, 1e3, log=True)}
    seen = []

    def scoring(model, X, y) -> float:
        seen.append(len(y))
        return model.score(X, y)

    model = LogisticRegression()
    options = {"space": space, "groups": groups, "n_trials": 2, "refit": True}
    found = optimize(
        model, values, labels, cv=GroupKFold(3), scoring=scoring, **options
    )
    assert seen == [8] * 6
    assert found.best_estimator.get_params()["C"] == found.params["C"]
    assert found.best_estimator.predict(values).shape == (24,)
    assert not hasattr(model, "classes_")
    named = optimize(
        model, values, labels, cv=GroupKFold(3), scoring="accuracy", **options
    )
    pd.testing.assert_series_equal(named.trials["score"], found.trials["score"])


def test_parameters_keep_their_kinds(tmp_path) -> None:
    space = {
        "max_iter": IntDistribution(5, 9),
        "solver": CategoricalDistribution(["auto", "svd"]),
        "fit_intercept": CategoricalDistribution([True, False]),
    }
    for place in (None, places(tmp_path)[0]):
        found = optimize(
            Ridge(solver="auto", max_iter=5),
            X,
            Y,
            space=space,
            cv=2,
            n_trials=1,
            storage=place,
        )
        assert found.params == {"max_iter": 5, "solver": "auto", "fit_intercept": True}
        assert type(found.params["max_iter"]) is int


def test_bad_trials_count_and_bugs_are_raised(tmp_path) -> None:
    found = search(Constant(highest=0.0), n_trials=20)
    failed = found.trials["error"] != ""
    assert 0 < failed.sum() < 20
    assert (found.trials["level"][failed] > 0).all()
    assert -2.0 < found.params["level"] <= 0.0
    with pytest.raises(ValueError, match=r"Got none in 3, first ValueError: the lev"):
        search(Constant(highest=-20.0), n_trials=3)
    place = tmp_path / "journal.log"
    buggy = Constant(highest=-20.0, error=KeyError)
    with pytest.raises(KeyError, match="too high"):
        search(buggy, storage=place, study_name="buggy")
    (trial,) = open_journal(place, "buggy").trials
    assert trial.state == TrialState.FAIL  # free for the next call


def test_time_is_limited() -> None:
    with pytest.raises(ValueError, match=r"Got none in 0\."):
        search(timeout=0)


def test_wrong_settings_raise() -> None:
    with pytest.raises(ValueError, match=r"parameter to search\. Got none for Const"):
        search(space={})
    with pytest.raises(ValueError, match="Got none for 'tangent'"):
        search("tangent", space=None)
    with pytest.raises(ValueError, match="n_trials == 0, must be >= 1"):
        search(n_trials=0)
    with pytest.raises(ValueError, match="timeout == -1, must be >= 0"):
        search(timeout=-1)
    with pytest.raises(ValueError, match="pruner"):
        search(pruner="mean")


def test_search_names_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[tune\]"'):
        search()


# ------------------------------------------------------------------- over some time


@pytest.mark.parametrize("kind", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_same_call_goes_on_with_the_same_trials(tmp_path, kind) -> None:
    whole = search()
    place = places(tmp_path)[kind]
    first = search(storage=place, n_trials=3)
    assert len(first.trials) == 3
    then = search(storage=place)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        then.trials.drop(columns=drop), whole.trials.drop(columns=drop)
    )
    again = search(storage=place)  # nothing is left to do
    pd.testing.assert_frame_equal(again.trials, then.trials)
    assert again.study_name == first.study_name


def test_a_search_that_was_killed_at_once_begins_with_the_given_parameters(
    tmp_path,
) -> None:
    place = tmp_path / "journal.log"
    name = search(storage=place, n_trials=1).study_name
    place.unlink()
    open_journal(place, name)  # as a process leaves it that is killed here
    assert search(storage=place, n_trials=1).trials["level"].tolist() == [0.0]


def test_problems_do_not_mix(tmp_path) -> None:
    place = tmp_path / "journal.log"
    named = {"storage": place, "study_name": "mine", "n_trials": 1}
    search(**named)
    search(**named)
    with pytest.raises(ValueError, match=r"Got 'mine', whose .* other splits"):
        search(**named, cv=2)
    with pytest.raises(ValueError, match="other model"):
        search(Constant(highest=5.0), **named)
    with pytest.raises(ValueError, match="other space"):
        search(**named, space={"level": FloatDistribution(0.0, 1.0)})
    with pytest.raises(ValueError, match="other scoring"):
        search(**named, scoring="r2")
    with pytest.raises(ValueError, match="other data"):
        optimize(Constant(), X, Y + 1, space=SPACE, cv=3, **named)
    names = {search(storage=place, cv=cv, n_trials=1).study_name for cv in (2, 3)}
    assert len(names) == 2
    assert all(name.startswith("Constant-") for name in names)


def test_a_line_that_was_written_in_part_is_cut(tmp_path) -> None:
    place = tmp_path / "journal.log"
    search(storage=place, n_trials=2)
    with place.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert len(search(storage=place, n_trials=3).trials) == 3
    assert len(search(storage=place, n_trials=4).trials) == 4


# ---------------------------------------------------------------- several processes


def abandon(study: optuna.Study, **fields) -> optuna.trial.Trial:
    """Begin a trial as a worker would that has died since."""
    trial = studies.claim(study, SPACE, 99)
    host, _, started, seen = trial.user_attrs[studies.WORKER]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = {"host": host, "pid": ended.pid, "started": started, "seen": seen} | fields
    trial.set_user_attr(studies.WORKER, list(dead.values()))
    return trial


@pytest.mark.parametrize("kind", [0, 1])
def test_the_trial_of_a_dead_process_is_repeated(tmp_path, kind) -> None:
    place = places(tmp_path)[kind]
    name = search(storage=place, n_trials=2).study_name
    lost = abandon(open_journal(place, name))
    found = search(storage=place, n_trials=4)
    assert found.trials["level"].tolist().count(lost.params["level"]) == 1
    assert found.trials["score"].notna().sum() == 4
    trials = open_journal(place, name).trials
    assert [t.state for t in trials].count(TrialState.FAIL) == 1
    # and the trials are those of a process that nobody killed
    assert found.trials["level"].tolist() == search(n_trials=4).trials["level"].tolist()


def test_a_silent_process_elsewhere_counts_as_dead(tmp_path) -> None:
    study = open_journal(tmp_path / "journal.log", "s")
    now = time.time()
    abandon(study, host="elsewhere", seen=now)
    assert studies.retire_dead(study) == 0
    abandon(study, host="elsewhere", seen=now - studies.PATIENCE_SECONDS - 1)
    assert studies.retire_dead(study) == 1
    assert studies.retire_dead(study) == 0
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]


def test_parameters_that_kill_twice_are_bad(tmp_path) -> None:
    study = open_journal(tmp_path / "journal.log", "s")
    first = abandon(study)
    studies.retire_dead(study)
    second = abandon(study)
    assert second.params == first.params
    studies.retire_dead(study)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.PRUNED]


def test_a_trial_that_died_while_it_was_drawn_is_drawn_again(
    tmp_path, monkeypatch
) -> None:
    space = {name: FloatDistribution(0.0, 1.0) for name in ("first", "second")}
    whole = studies.open_study(sampler=studies.TrialSeeds(0))
    study = studies.open_study(
        "s", tmp_path / "journal.log", sampler=studies.TrialSeeds(0)
    )
    study.ask({"first": space["first"]})
    monkeypatch.setattr(studies, "PATIENCE_SECONDS", -1.0)
    assert studies.retire_dead(study) == 1
    expected = studies.claim(whole, space, 1).params
    assert studies.claim(study, space, 1).params == expected


def test_a_process_that_was_thought_dead_does_no_harm(tmp_path, caplog) -> None:
    place = tmp_path / "journal.log"

    def scoring(model, X, y) -> float:
        study = open_journal(place, "s")
        running = study.get_trials(states=(TrialState.RUNNING,))
        if len(study.trials) == 1 and running:
            study.tell(running[0].number, state=TrialState.FAIL)
        return -abs(model.level)

    found = search(storage=place, study_name="s", scoring=scoring, n_trials=2)
    assert len(found.trials) == 2
    assert "Trial 0 was taken over by another process" in caplog.text


def test_processes_begin_no_trial_too_many(tmp_path) -> None:
    study = open_journal(tmp_path / "journal.log", "s")
    claimed = [studies.claim(study, SPACE, 3) for _ in range(5)]
    assert [trial is not None for trial in claimed] == [True] * 3 + [False] * 2


def test_of_two_that_claim_the_last_trial_one_gives_it_back(monkeypatch) -> None:
    study = studies.open_study(sampler=studies.TrialSeeds(0))
    study.ask(SPACE)
    now, looks = study.get_trials, []

    def get_trials(*args, **options):
        looks.append(args)
        return [] if len(looks) == 1 else now(*args, **options)

    monkeypatch.setattr(study, "get_trials", get_trials)
    assert studies.claim(study, SPACE, 1) is None
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL]


def test_processes_draw_other_trials() -> None:
    study = studies.open_study(sampler=studies.TrialSeeds(0))
    others = studies.open_study(sampler=studies.TrialSeeds(1))
    levels = [study.ask(SPACE).params["level"] for _ in range(3)]
    assert len({*levels, others.ask(SPACE).params["level"]}) == 4


def test_a_process_gives_signs_of_life(monkeypatch) -> None:
    monkeypatch.setattr(studies, "BEAT_SECONDS", 0.01)
    study = studies.open_study(sampler=studies.TrialSeeds(0))
    trial = studies.claim(study, SPACE, 1)
    first = study.trials[0].user_attrs[studies.WORKER]
    with studies.signs_of_life(trial):
        time.sleep(0.2)
    last = study.trials[0].user_attrs[studies.WORKER]
    assert last[:3] == first[:3]
    assert last[3] > first[3]


def start(place: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(place), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow  # three processes that import torch
def test_the_other_process_finishes_when_one_is_killed(tmp_path) -> None:
    place = tmp_path / "journal.log"
    doomed = start(place, 60)  # it never ends a trial
    assert doomed.stdout.readline() == "scoring\n"
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    doomed.stdout.close()
    workers = [start(place, 0.05) for _ in range(2)]
    said = [worker.communicate(timeout=300)[0].splitlines()[-1] for worker in workers]
    assert said[0] == said[1]
    assert said[0].startswith("6 ")
    backend = optuna.storages.journal.JournalFileBackend(str(place))
    storage = optuna.storages.JournalStorage(backend)
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    states = [trial.state for trial in trials]
    assert states[0] == TrialState.FAIL
    assert sum(state != TrialState.FAIL for state in states) == 6
    assert trials[0].params in [trial.params for trial in trials[1:]]


def test_those_who_wait_for_the_last_trial_do_it_if_its_process_dies(
    tmp_path, monkeypatch
) -> None:
    place = tmp_path / "journal.log"
    name = search(storage=place, n_trials=1).study_name
    study = open_journal(place, name)
    trial = abandon(study, host="elsewhere")
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        sign = study.trials[1].user_attrs[studies.WORKER]
        sign[3] -= studies.PATIENCE_SECONDS + 1
        trial.set_user_attr(studies.WORKER, sign)

    monkeypatch.setattr(optimization.time, "sleep", nap)
    found = search(storage=place, n_trials=2)
    assert len(naps) == 1
    assert found.trials["level"][1] == trial.params["level"]
