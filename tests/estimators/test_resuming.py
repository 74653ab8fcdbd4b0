"""Killed fits that go on to the same bits, and callbacks that watch or stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    CheckpointError,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.training import net as training_net

N, R, T = 12, 5, 30
TINY: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 2,
    "max_epochs": 3,
    "batch_size": 6,
    "lr": 1e-2,
    "validation_fraction": 0.0,
    "random_state": 0,
}
ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


def make_data(n_scans: int = N, **options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(n_scans, R, T, **options)
    return cohort.data, cohort.target


def target_of(kind: type, X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    return X["age"].to_numpy() if kind is BrainSymphonyRegressor else y


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_weights(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------ resuming


class Killed(Exception):  # noqa: N818
    """The machine went away."""


class KillAfter:
    """A scikit-learn callback that raises after some epochs of a fit."""

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def setup(self, estimator: Any, context: Any) -> None:
        self.seen = 0

    def teardown(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_begin(self, estimator: Any, context: Any, **_: Any) -> None: ...

    def on_fit_task_end(self, estimator: Any, context: Any, **_: Any) -> bool:
        self.seen += context.task_name == "epoch"
        if self.seen == self.n_epochs:
            raise Killed
        return False


class StopAt(KillAfter):
    """A scikit-learn callback that asks to stop after some epochs of a fit."""

    def on_fit_task_end(self, estimator: Any, context: Any, **_: Any) -> bool:
        self.seen += context.task_name == "epoch"
        return self.seen == self.n_epochs


RESUMED = TINY | {
    "max_epochs": 5,
    "dropout": 0.3,
    "window": 20,
    "validation_fraction": 0.25,
    "patience": 2,
}


@each_estimator
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_a_killed_fit_continues_to_the_same_bits(kind, n_epochs, tmp_path):
    X, y = make_data()
    y = target_of(kind, X, y)
    params = dict(RESUMED)
    if kind is not BrainSymphonyEmbedder:
        params["pretrain_epochs"] = 2
    whole = kind(**params).fit(X, y)
    model = kind(**params, checkpoint_dir=tmp_path).set_callbacks(KillAfter(n_epochs))
    with pytest.raises(Killed):
        model.fit(X, y)
    again = kind(**params, checkpoint_dir=tmp_path).fit(X, y)
    assert again.n_iter_ == whole.n_iter_ >= n_epochs
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_array_equal(again.history_[name], whole.history_[name])
    assert same_weights(weights_of(again.net_.module_), weights_of(whole.net_.module_))
    np.testing.assert_array_equal(output(again, X), output(whole, X))


@each_estimator
def test_a_finished_fit_is_only_loaded(kind, tmp_path, monkeypatch):
    X, y = make_data()
    y = target_of(kind, X, y)
    model = kind(**RESUMED, checkpoint_dir=tmp_path).fit(X, y)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training_net._Net, "train_step", refuse)
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(output(again, X), output(model, X))
    assert again.n_iter_ == model.n_iter_
    with pytest.raises(AssertionError, match="trained again"):
        clone(model).set_params(lr=2e-2).fit(X, y)  # another fit


def test_fits_that_differ_share_a_folder(tmp_path):
    X, y = make_data()
    params = TINY | {"max_epochs": 1, "checkpoint_dir": tmp_path}
    BrainSymphonyClassifier(**params).fit(X, y)
    BrainSymphonyClassifier(**params | {"random_state": 1}).fit(X, y)
    BrainSymphonyClassifier(**params).fit(X, 1 - y)
    BrainSymphonyClassifier(**params).fit(X.iloc[::-1], y)
    BrainSymphonyClassifier(**params).fit(X, y, sample_weight=np.arange(N))
    BrainSymphonyEmbedder(**params).fit(X)
    assert len(list(tmp_path.iterdir())) == 6
    BrainSymphonyClassifier(**params | {"verbose": 0, "n_jobs": 1}).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("column", ["participant_id", "t_r"])
def test_fits_that_differ_in_a_column_that_is_read_do_not_share_a_state(
    column, tmp_path
):
    X, _ = make_data()
    X = X.assign(t_r=np.repeat([2.0, 1.0], N // 2))
    params = TINY | {"validation_fraction": 0.3, "t_r": "t_r"}
    other = X.assign(**{column: X[column].to_numpy()[::-1]})
    BrainSymphonyEmbedder(**params, checkpoint_dir=tmp_path).fit(X)
    got = BrainSymphonyEmbedder(**params, checkpoint_dir=tmp_path).fit(other)
    expected = BrainSymphonyEmbedder(**params).fit(other)
    np.testing.assert_array_equal(got.transform(other), expected.transform(other))


def test_a_warm_start_goes_on_beside_a_finished_state(tmp_path):
    X, y = make_data()
    models = [
        BrainSymphonyClassifier(**TINY, warm_start=True, checkpoint_dir=folder)
        for folder in (tmp_path, None)
    ]
    for model in models:
        model.fit(X, y).fit(X, y)
    np.testing.assert_array_equal(output(models[0], X), output(models[1], X))


def test_changed_pretrained_weights_are_another_fit(tmp_path):
    X, _ = make_data()
    outputs = []
    for seed in (0, 1):
        source = BrainSymphonyEmbedder(**TINY | {"max_epochs": 0, "random_state": seed})
        source.fit(X).save_pretrained(tmp_path / "source")
        params = TINY | {"max_epochs": 1, "checkpoint_dir": tmp_path / "states"}
        model = BrainSymphonyEmbedder(**params, pretrained=tmp_path / "source")
        outputs.append(model.fit(X).transform(X))
    assert not np.allclose(*outputs)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_a_fit_killed_within_an_epoch_continues_to_the_same_bits(
    steps, tmp_path, monkeypatch
):
    """2 epochs of pretraining, then 5 with targets, of 2 steps each."""
    X, y = make_data()
    params = RESUMED | {"pretrain_epochs": 2}
    whole = BrainSymphonyClassifier(**params).fit(X, y)
    train_step = training_net._Net.train_step
    done = []

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(done) == steps:
            raise Killed
        done.append(None)
        return train_step(self, *args, **kwargs)

    model = BrainSymphonyClassifier(**params, checkpoint_dir=tmp_path)
    monkeypatch.setattr(training_net._Net, "train_step", dying)
    with pytest.raises(Killed):
        model.fit(X, y)
    monkeypatch.setattr(training_net._Net, "train_step", train_step)
    again = clone(model).fit(X, y)
    assert same_weights(weights_of(again.net_.module_), weights_of(whole.net_.module_))


def test_folds_of_a_search_resume_each_on_its_own(tmp_path):
    X, y = make_data()
    base_model = BrainSymphonyClassifier(**TINY | {"max_epochs": 1})
    searches = [
        GridSearchCV(
            base_model.set_params(checkpoint_dir=folder),
            {"lr": [1e-3, 1e-2]},
            cv=2,
            scoring="neg_log_loss",
            error_score="raise",
        ).fit(X, y)
        for folder in (None, tmp_path, tmp_path)
    ]
    for search in searches[1:]:
        np.testing.assert_array_equal(
            search.cv_results_["mean_test_score"],
            searches[0].cv_results_["mean_test_score"],
        )
    assert len(list(tmp_path.iterdir())) == 5  # 2 values x 2 folds, and the refit


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_resuming_needs_an_integer_seed(random_state, tmp_path):
    X, _ = make_data()
    params = TINY | {"random_state": random_state, "checkpoint_dir": tmp_path}
    message = (
        "`checkpoint_dir` needs an integer `random_state`. Got .*cannot be resumed"
    )
    with pytest.raises(ValueError, match=message):
        BrainSymphonyEmbedder(**params).fit(X)


def test_a_damaged_state_raises_with_advice(tmp_path):
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY, checkpoint_dir=tmp_path).fit(X)
    (state,) = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="intact file"):
        clone(model).fit(X)


# ------------------------------------------------------------------ callbacks


@each_estimator
def test_a_callback_can_stop_the_fit(kind):
    X, y = make_data()
    model = kind(**TINY | {"max_epochs": 20}).set_callbacks(StopAt(3)).fit(X, y)
    assert model.n_iter_ == 3
    assert np.isfinite(output(model, X)).all()


def test_scoring_monitor_scores_every_epoch():
    X, y = make_data()
    monitor = ScoringMonitor(scoring="neg_log_loss")
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 12}).set_callbacks(monitor)
    model.fit(X, y)
    log = monitor.get_logs().data_as_pandas
    scores = log.loc[log.astype(str).eq("epoch").any(axis=1), "neg_log_loss"].to_numpy()
    assert len(scores) == 12
    assert scores[-1] > scores[0]
    proba = model.predict_proba(X)
    expected = np.log(proba[np.arange(N), y]).mean()
    assert scores[-1] == pytest.approx(expected, abs=1e-6)


def test_scoring_during_the_fit_does_not_change_it():
    X, y = make_data()
    params = TINY | {"dropout": 0.3}
    plain = BrainSymphonyClassifier(**params).fit(X, y)
    watched = BrainSymphonyClassifier(**params)
    watched.set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, y)
    np.testing.assert_array_equal(output(watched, X), output(plain, X))


def test_scoring_monitor_follows_pretraining():
    X, _ = make_data()
    # a y, ignored, as it scores nothing without; scoring=None fails in scikit-learn
    monitor = ScoringMonitor(scoring={"r2": lambda model, X, y: model.score(X)})
    model = BrainSymphonyEmbedder(**TINY).set_callbacks(monitor).fit(X, np.zeros(N))
    log = monitor.get_logs().data_as_pandas
    scores = log.loc[log.astype(str).eq("epoch").any(axis=1), "r2"].to_numpy()
    assert len(scores) == TINY["max_epochs"]
    assert scores[-1] == pytest.approx(model.score(X))


def test_progress_bars_nest_under_a_search(capsys):
    pytest.importorskip("rich", reason="ProgressBar needs rich")
    X, y = make_data()
    search = GridSearchCV(
        BrainSymphonyClassifier(**TINY | {"max_epochs": 2}), {"lr": [1e-3]}, cv=2
    ).set_callbacks(ProgressBar())
    search.fit(X, y)
    assert search.best_params_ == {"lr": 1e-3}
    assert "GridSearchCV" in capsys.readouterr().out


def test_a_callback_of_a_search_stops_every_fit():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 9}).set_callbacks(StopAt(2))
    search = GridSearchCV(model, {"lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
    assert search.best_estimator_.n_iter_ == 2


def test_verbose_shows_a_progress_bar(capsys):
    X, y = make_data()
    BrainSymphonyClassifier(**TINY, pretrain_epochs=1, verbose=1).fit(X, y)
    shown = capsys.readouterr().err
    assert "pretraining" in shown
    assert "fine-tuning" in shown
    BrainSymphonyClassifier(**TINY).fit(X, y)
    assert capsys.readouterr().err == ""
