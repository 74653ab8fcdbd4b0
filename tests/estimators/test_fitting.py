"""Fitting: weights, targets, strategies, stopping, resuming, lengths and times."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.estimators import base
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
SUPERVISED = ESTIMATORS[1:]
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


# ------------------------------------------------------------------ weights


@pytest.mark.parametrize("kind", SUPERVISED)
def test_equal_sample_weights_change_nothing(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    plain = output(kind(**TINY).fit(X, y), X)
    for weight in (1.0, 7.0):
        weighted = kind(**TINY).fit(X, y, sample_weight=np.full(N, weight))
        np.testing.assert_array_equal(output(weighted, X), plain)


def test_equal_class_weights_change_nothing():
    X, y = make_data()
    plain = output(BrainSymphonyClassifier(**TINY).fit(X, y), X)
    for class_weight in ({0: 1, 1: 1}, {0: 3.0, 1: 3.0}, "balanced"):  # y is balanced
        weighted = BrainSymphonyClassifier(**TINY, class_weight=class_weight).fit(X, y)
        np.testing.assert_array_equal(output(weighted, X), plain)


def test_class_weight_equals_the_sample_weight_that_it_means():
    X, y = make_data()
    by_class = BrainSymphonyClassifier(**TINY, class_weight={0: 1.0, 1: 4.0}).fit(X, y)
    by_scan = BrainSymphonyClassifier(**TINY).fit(X, y, np.where(y == 1, 4.0, 1.0))
    np.testing.assert_array_equal(output(by_class, X), output(by_scan, X))
    plain = BrainSymphonyClassifier(**TINY).fit(X, y)
    assert output(by_class, X)[:, 1].mean() > output(plain, X)[:, 1].mean()


def test_balanced_weights_pull_towards_the_rare_class():
    X, _ = make_data()
    rare = np.zeros(N, dtype=int)
    rare[:3] = 1
    plain, balanced = (
        output(BrainSymphonyClassifier(**TINY, class_weight=w).fit(X, rare), X)[:, 1]
        for w in (None, "balanced")
    )
    assert balanced.mean() > plain.mean()


@pytest.mark.parametrize("kind", SUPERVISED)
def test_targets_of_scans_without_weight_do_not_matter(kind):
    """Exact for the targets; the scans still count for scaling and batches."""
    X, y = make_data()
    y = target_of(kind, X, y).astype(float if kind is BrainSymphonyRegressor else int)
    weight = np.ones(N)
    weight[:4] = 0
    other = y.copy()
    if kind is BrainSymphonyRegressor:
        other[:4] = y[:4][::-1]  # the mean and spread of y stay as they are
    else:
        other[:4] = 1 - y[:4]
    first, second = (kind(**TINY).fit(X, t, sample_weight=weight) for t in (y, other))
    np.testing.assert_array_equal(output(first, X), output(second, X))
    assert not np.array_equal(output(kind(**TINY).fit(X, other), X), output(first, X))


def test_scans_without_weight_are_not_the_same_as_no_scans():
    """What sample-weight equivalence asks for, and mini-batches cannot give."""
    X, y = make_data()
    weight = np.ones(N)
    weight[:4] = 0
    weighted = BrainSymphonyClassifier(**TINY).fit(X, y, sample_weight=weight)
    removed = BrainSymphonyClassifier(**TINY).fit(X.iloc[4:], y[4:])
    difference = np.abs(output(weighted, X) - output(removed, X)).max()
    assert 0 < difference < 1


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(N), "[Ss]ample weights must contain at least one non-zero"),
        (-np.ones(N), "Negative values in data passed to `sample_weight`"),
        (np.ones(N - 1), r"sample_weight.shape == \(11,\), expected \(12,\)"),
        (np.full(N, np.nan), "sample_weight contains NaN"),
    ],
)
@pytest.mark.parametrize("kind", SUPERVISED)
def test_bad_sample_weights_raise(kind, weight, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        kind(**TINY).fit(X, y, sample_weight=weight)


# ------------------------------------------------------------------ targets


def test_three_classes_with_names_are_learned():
    X, y = make_data(18, n_classes=3)
    names = np.array(["third", "first", "second"])[y]
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 30}).fit(X, names)
    assert model.classes_.tolist() == ["first", "second", "third"]
    proba = model.predict_proba(X)
    assert proba.shape == (18, 3)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(1)])
    assert model.score(X, names) == 1


def test_labels_change_names_and_nothing_else():
    X, y = make_data()
    plain = BrainSymphonyClassifier(**TINY).fit(X, y)
    named = BrainSymphonyClassifier(**TINY).fit(X, np.array(["ctl", "pat"])[y])
    np.testing.assert_array_equal(named.predict_proba(X), plain.predict_proba(X))


def test_regression_is_equivariant_to_shift_and_scale():
    X, _ = make_data()
    age = X["age"].to_numpy()
    params = TINY | {"dtype": "float64"}
    model = BrainSymphonyRegressor(**params).fit(X, age)
    assert model.y_mean_ == age.mean()
    assert model.y_scale_ == age.std()
    for shift, scale in ((1000.0, 1.0), (0.0, 1e-3), (-5.0, 365.25)):
        other = BrainSymphonyRegressor(**params).fit(X, age * scale + shift)
        np.testing.assert_allclose(
            other.predict(X), model.predict(X) * scale + shift, rtol=1e-7
        )


def test_regression_of_a_constant_predicts_it():
    X, _ = make_data()
    model = BrainSymphonyRegressor(**TINY).fit(X, np.full(N, 42.0))
    np.testing.assert_allclose(model.predict(X), 42, atol=0.1)


def test_regression_learns_its_training_scans():
    X, y = make_data()
    model = BrainSymphonyRegressor(**TINY | {"max_epochs": 30}).fit(X, 10.0 * y)
    assert model.score(X, 10.0 * y) > 0.8


BAD_TARGETS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "other length": (
        lambda y: y[:-1],
        "needs one target per scan. Got inconsistent numbers.*: 12 scans and 11 targets"
        ". Select the same rows of both.",
    ),
    "None": (lambda y: None, "requires y to be passed, but the target y is None"),
    "NaN": (
        lambda y: np.where(np.arange(N) == 3, np.nan, y),
        "[Ii]nput y contains NaN",
    ),
    "infinite": (lambda y: np.where(y == 1, np.inf, y), "[Ii]nput y contains infinity"),
    "two columns": (lambda y: np.stack([y, y], 1), "y should be a 1d array"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
@pytest.mark.parametrize("kind", SUPERVISED)
def test_bad_targets_raise(kind, case):
    X, y = make_data()
    make_bad, message = BAD_TARGETS[case]
    for fit in (kind(**TINY).fit, kind(**TINY).partial_fit):
        with pytest.raises(ValueError, match=message):
            fit(X, make_bad(y))


def test_missing_labels_name_the_scan():
    X, y = make_data()
    labels = np.array(["ctl", "pat"], dtype=object)[y]
    labels[3] = None
    message = "needs a target for every scan. Got none, first in scan 3. Leave the scan"
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyClassifier(**TINY).fit(X, labels)


def test_column_vector_targets_warn():
    X, y = make_data()
    with pytest.warns(Warning, match="A column-vector y was passed"):
        model = BrainSymphonyClassifier(**TINY).fit(X, y[:, None])
    expected = BrainSymphonyClassifier(**TINY).fit(X, y).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)


def test_classification_refuses_what_is_no_class():
    X, y = make_data()
    with pytest.raises(BrainDataError, match=r"at least 2 classes in y\. Got 1 class"):
        BrainSymphonyClassifier(**TINY).fit(X, np.zeros(N))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        BrainSymphonyClassifier(**TINY).fit(X, X["age"] + 0.25)
    with pytest.raises(ValueError, match=r"class_weight|weights"):
        BrainSymphonyClassifier(**TINY, class_weight="unbalanced").fit(X, y)


def test_regression_refuses_text():
    X, _ = make_data()
    with pytest.raises(ValueError, match="could not convert string to float"):
        BrainSymphonyRegressor(**TINY).fit(X, np.array(["young"] * N))


# ------------------------------------------------------------------ partial_fit


@pytest.mark.parametrize("kind", SUPERVISED)
def test_partial_fit_learns_with_every_call(kind):
    X, y = make_data()
    model = kind(**TINY)
    for calls in range(1, 13):
        assert model.partial_fit(X, y) is model
        assert model.n_iter_ == calls
    losses = model.history_["train_loss"]
    assert losses.iloc[-3:].mean() < 0.7 * losses.iloc[0]
    assert model.history_["epoch"].tolist() == list(range(1, 13))


@pytest.mark.parametrize("kind", SUPERVISED)
def test_partial_fit_has_the_same_bits_again(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    first, second = (
        kind(**TINY).partial_fit(X, y).partial_fit(X.iloc[:6], y[:6]) for _ in range(2)
    )
    np.testing.assert_array_equal(output(first, X), output(second, X))
    assert first.participants_ == second.participants_
    assert len(first.participants_) == N


def test_partial_fit_needs_all_classes_in_the_first_call():
    X, y = make_data()
    few = np.flatnonzero(y == 0)
    model = BrainSymphonyClassifier(**TINY)
    model.partial_fit(X.iloc[few], y[few], classes=[0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.partial_fit(X, y).predict_proba(X).shape == (N, 3)
    message = (
        r"BrainSymphonyClassifier needs labels among \[0, 1, 2\]. Got \[9\]. Pass all "
        "`classes` in the first call."
    )
    with pytest.raises(BrainDataError, match=message):
        model.partial_fit(X, np.where(y == 1, 9, y))
    unseen = BrainSymphonyClassifier(**TINY).partial_fit(X, y)
    with pytest.raises(BrainDataError, match=r"Got \[2\]"):
        unseen.partial_fit(X, y + 1)


def test_partial_fit_after_fit_goes_on():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY).fit(X, y)
    before = output(model, X)
    model.partial_fit(X, y)
    assert model.n_iter_ == TINY["max_epochs"] + 1
    assert not np.array_equal(output(model, X), before)
    with pytest.raises(BrainDataError, match="needs scans of 5 regions, as in fit"):
        model.partial_fit(make_cohort(N, R + 1, T).data, y)


# ------------------------------------------------------------------ warm_start


@each_estimator
def test_warm_start_goes_on_from_the_last_weights(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    cold = kind(**TINY).fit(X, y)
    first_loss = cold.history_["train_loss"].iloc[0]
    cold.fit(X, y)
    assert cold.history_["train_loss"].iloc[0] == first_loss
    warm = kind(**TINY, warm_start=True).fit(X, y)
    assert warm.history_["train_loss"].iloc[0] == first_loss
    before = weights_of(warm.backbone_)
    warm.set_params(lr=1e-12).fit(X, y)
    for name, value in weights_of(warm.backbone_).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)
    warm.set_params(lr=1e-2).fit(X, y)
    assert warm.history_["train_loss"].iloc[-1] < first_loss


@each_estimator
def test_warm_start_keeps_sizes_and_classes(kind):
    X, y = make_data()
    warm = kind(**TINY, warm_start=True).fit(X, target_of(kind, X, y))
    with pytest.raises(BrainDataError, match="needs scans of 5 regions, as in fit"):
        warm.fit(make_cohort(N, R + 1, T).data, y)
    if kind is BrainSymphonyClassifier:
        with pytest.raises(BrainDataError, match=r"needs labels among \[0, 1\]"):
            warm.fit(X, y + 1)


@pytest.mark.filterwarnings("ignore:BrainSymphonyClassifier probes")
def test_warm_start_may_first_probe_and_then_fine_tune():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY, warm_start=True, strategy="probe").fit(X, y)
    before = weights_of(model.backbone_)
    assert same_weights(weights_of(model.fit(X, y).backbone_), before)
    model.set_params(strategy="finetune").fit(X, y)
    assert not same_weights(weights_of(model.backbone_), before)
    before = weights_of(model.backbone_)
    model.set_params(strategy="probe").fit(X, y)
    assert same_weights(weights_of(model.backbone_), before)


def test_warm_start_remembers_all_participants():
    X, y = make_data()
    for kind in ESTIMATORS:
        warm = kind(**TINY, warm_start=True).fit(X.iloc[:6], y[:6])
        assert len(warm.participants_) == 6
        warm.fit(X.iloc[6:], y[6:])
        assert len(warm.participants_) == N


# ------------------------------------------------------------------ strategies


@pytest.mark.parametrize("kind", SUPERVISED)
def test_pretrain_epochs_change_the_weights_that_fine_tuning_starts_from(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    still = TINY | {"lr": 1e-12, "max_epochs": 1}
    with pytest.warns(BrainSymphonyWarning, match="random weights"):
        random = kind(**still, strategy="probe").fit(X, y)
    learned = kind(**TINY, strategy="probe", pretrain_epochs=2).fit(X, y)
    assert not same_weights(weights_of(random.backbone_), weights_of(learned.backbone_))
    embedder = BrainSymphonyEmbedder(**TINY | {"max_epochs": 2}).fit(X)
    assert same_weights(weights_of(embedder.backbone_), weights_of(learned.backbone_))


@pytest.mark.parametrize("kind", SUPERVISED)
def test_probe_leaves_the_backbone_and_trains_the_head(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    message = (
        f"{kind.__name__} probes a backbone with random weights. Set `pretrained` or "
        "`pretrain_epochs`."
    )
    probes = []
    for epochs in (1, 5):
        with pytest.warns(BrainSymphonyWarning, match=message):
            model = kind(**TINY | {"max_epochs": epochs}, strategy="probe").fit(X, y)
        probes.append(model)
    first, second = probes
    assert same_weights(weights_of(first.backbone_), weights_of(second.backbone_))
    heads = [weights_of(model.net_.module_.head) for model in probes]
    assert not same_weights(*heads)
    tuned = kind(**TINY).fit(X, y)
    assert not same_weights(weights_of(tuned.backbone_), weights_of(first.backbone_))


def test_layer_decay_slows_layers_near_the_input():
    X, y = make_data()
    start, plain, decayed = (
        BrainSymphonyClassifier(**TINY | params).fit(X, y)
        for params in (
            {"lr": 1e-12},
            {"weight_decay": 0.0},
            {"weight_decay": 0.0, "layer_decay": 0.1},
        )
    )

    def moved(model: Any, part: str) -> float:
        now, then = (weights_of(m.net_.module_) for m in (model, start))
        return max(
            float((now[n] - then[n]).abs().max()) for n in now if n.startswith(part)
        )

    for part, share in (("backbone.fmri.context", 0.1), ("backbone.fmri.spatial", 0.5)):
        assert 0 < moved(decayed, part) < share * moved(plain, part)
    assert moved(decayed, "head") > 0.5 * moved(plain, "head")


@each_estimator
def test_validation_keeps_participants_together(kind, monkeypatch):
    X, y = make_data()
    X = X.assign(
        participant_id=np.repeat([f"p{i}" for i in range(6)], 2),
        family=np.repeat(["f0", "f1", "f2"], 4),
    )
    y = np.tile([0, 1], N // 2)
    splits = []

    def spy(task, train_set, valid_set, **options):
        splits.append((train_set.rows, valid_set.rows))
        return training_net.train(task, train_set, valid_set, **options)

    monkeypatch.setattr(base, "train", spy)
    for column in ("participant_id", "family"):
        model = kind(
            **TINY | {"validation_fraction": 0.34, "max_epochs": 1}, group_column=column
        ).fit(X, y)
        train, valid = splits.pop()
        groups = X[column].to_numpy()
        assert len(valid) == 4
        assert not set(groups[train]) & set(groups[valid])
        assert sorted([*train, *valid]) == list(range(N))
        assert "valid_loss" in model.history_


def test_rows_without_participant_raise():
    X, _ = make_data()
    names = [None if i == 4 else name for i, name in enumerate(X["participant_id"])]
    message = (
        "BrainSymphonyEmbedder needs 'participant_id' in every row, to keep a "
        "participant's scans together. Got none, first in scan 4. Fill it in, or drop"
    )
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY).fit(X.assign(participant_id=names))


def test_the_best_epoch_by_validation_is_kept():
    X, y = make_data()
    params = TINY | {"validation_fraction": 0.3, "lr": 0.05}
    long = BrainSymphonyClassifier(**params | {"max_epochs": 40, "patience": 3})
    long.fit(X, y)
    losses = long.history_["valid_loss"]
    assert long.n_iter_ < 40
    assert losses.idxmin() == long.n_iter_ - 1 - 3  # stopped 3 epochs later
    more = {"max_epochs": long.n_iter_ + 2, "patience": None}
    patient = BrainSymphonyClassifier(**params | more)
    assert patient.fit(X, y).n_iter_ == long.n_iter_ + 2


def test_no_epochs_keep_the_initial_weights():
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 0}).fit(X)
    assert model.n_iter_ == 0
    assert model.history_.empty
    same = BrainSymphonyEmbedder(**TINY | {"lr": 1e-15, "max_epochs": 1}).fit(X)
    np.testing.assert_allclose(model.transform(X), same.transform(X), atol=1e-6)


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


# ------------------------------------------------------------------ what goes wrong


def test_a_loss_that_explodes_names_the_epoch_and_what_to_try(monkeypatch):
    X, y = make_data()
    original = training_net._Net.get_loss
    calls = []

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(None)
        loss = original(self, *args, **kwargs)
        return loss * math.nan if len(calls) > 2 else loss  # 2 batches per epoch

    monkeypatch.setattr(training_net._Net, "get_loss", poisoned)
    message = (
        r"The loss of fine-tuning became nan \(train_loss\) in epoch 2. Lower `lr` "
        r"\(now 0.01\), set `standardize='zscore'`"
    )
    with pytest.raises(FloatingPointError, match=message):
        BrainSymphonyClassifier(**TINY).fit(X, y)


def test_a_huge_learning_rate_raises_instead_of_returning_nan():
    X, _ = make_data()
    with pytest.raises(FloatingPointError, match=r"of pretraining became .* in epoch"):
        BrainSymphonyEmbedder(**TINY | {"lr": 1e30, "max_epochs": 5}).fit(X)


def test_a_refused_target_leaves_the_last_fit():
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY).fit(X, y)
    expected = output(model, X)
    with pytest.raises(BrainDataError, match="one target per scan"):
        model.fit(X, y[:-1])
    np.testing.assert_array_equal(output(model, X), expected)


BAD_PARAMETERS: list[tuple[str, Any, type[Exception], str]] = [
    ("batch_size", 0, ValueError, "batch_size == 0, must be >= 1"),
    ("batch_size", 2.5, TypeError, "batch_size must be an instance of int"),
    ("max_epochs", -1, ValueError, "max_epochs == -1, must be >= "),
    ("verbose", -1, ValueError, "verbose == -1, must be >= 0"),
    ("window", 0, ValueError, "window == 0, must be >= 1"),
    ("n_windows", 0, ValueError, "n_windows == 0, must be >= 1"),
    ("patience", 0, ValueError, "patience == 0, must be >= 1"),
    ("lr", 0.0, ValueError, "lr == 0.0, must be > 0"),
    ("lr", "fast", TypeError, "lr must be an instance of float"),
    ("weight_decay", -0.1, ValueError, "weight_decay == -0.1, must be >= 0"),
    ("dropout", 1.0, ValueError, "dropout == 1.0, must be < 1"),
    ("validation_fraction", 1.0, ValueError, "validation_fraction == 1.0, must be < 1"),
    ("t_r", 0.0, ValueError, "t_r == 0.0, must be > 0"),
    ("mask_ratio", 1.0, ValueError, "mask_ratio == 1.0, must be < 1"),
    ("mask_ratio", 0.0, ValueError, "mask_ratio == 0.0, must be > 0"),
    ("mask_span", 0, ValueError, "mask_span == 0, must be >= 1"),
    ("dim", 0, ValueError, "dim == 0, must be >= 1"),
    ("depth", 0, ValueError, "depth == 0, must be >= 1"),
    ("n_heads", 3, ValueError, "multiple"),
    ("perceiver_depth", -1, ValueError, "perceiver_depth == -1, must be >= 0"),
    ("standardize", "minmax", ValueError, "standardize"),
    ("sc_scaling", "log10", ValueError, "sc_scaling"),
    ("missing_modality", "skip", ValueError, "missing_modality"),
    ("constant_regions", "drop", ValueError, "constant_regions"),
    ("modalities", "eeg", ValueError, "modalities"),
    ("dtype", "float16", ValueError, "dtype"),
    ("objective", "all", ValueError, "objective"),
    ("pooling", "max", ValueError, "pooling"),
    ("spatial_tokens", "words", ValueError, "words"),
    ("positions", "sine", ValueError, "sine"),
    ("perceiver_residual", "none", ValueError, "none"),
    ("final_norm", "batch", ValueError, "batch"),
    ("edge_weights", "heavy", ValueError, "heavy"),
    ("structural_positions", "sine", ValueError, "sine"),
    ("signed_attention", "both", ValueError, "both"),
    ("absent_edges", "random", ValueError, "random"),
    ("edge_symmetry", "none", ValueError, "none"),
    ("n_jobs", 0, ValueError, "n_jobs == 0, must be None, positive or negative"),
    ("n_jobs", "many", TypeError, "n_jobs must be an instance of int"),
    ("device", "quantum", (RuntimeError, ValueError), "quantum"),
]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    BAD_PARAMETERS,
    ids=[f"{name}={value}" for name, value, _, _ in BAD_PARAMETERS],
)
@each_estimator
def test_bad_parameters_raise_in_fit_and_not_before(kind, name, value, error, message):
    X, y = make_data()
    model = kind(**TINY | {name: value})  # set_params is checked too
    with pytest.raises(error, match=message):
        model.fit(X, y)
    assert getattr(model, name) == value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strategy", "freeze", "strategy"),
        ("pooling", "network", "pooling"),
        ("pretrain_epochs", -1, "pretrain_epochs == -1, must be >= 0"),
        ("max_epochs", 0, "max_epochs == 0, must be >= 1"),
        ("layer_decay", 0.0, "layer_decay == 0.0, must be > 0"),
        ("layer_decay", 1.5, "layer_decay == 1.5, must be <= 1"),
    ],
)
@pytest.mark.parametrize("kind", SUPERVISED)
def test_bad_parameters_of_supervision_raise(kind, name, value, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        kind(**TINY | {name: value}).fit(X, y)


def test_staged_pretraining_needs_an_epoch_per_stage():
    X, _ = make_data()
    message = "objective='staged' needs an epoch for each of 7 stages. Got 3. Train for"
    with pytest.raises(ValueError, match=message):
        BrainSymphonyEmbedder(**TINY, objective="staged").fit(X)
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 7}, objective="staged").fit(X)
    assert model.n_iter_ == 7


def test_network_pooling_needs_a_column_of_networks():
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY, pooling="network").fit(X)
    n_networks = X.attrs["regions"]["network"].nunique()
    assert model.transform(X).shape == (N, 8 * n_networks)
    regions = model.transform_regions(X)
    members = X.attrs["regions"]["network"] == "network-1"
    np.testing.assert_allclose(
        model.transform(X)[:, :8], regions[:, members].mean(1), atol=1e-6
    )
    bare = pd.DataFrame({"fmri": X["fmri"], "sc": X["sc"]})
    with pytest.raises(BrainDataError, match=r"needs a column 'network' in X\.attrs"):
        model.fit(bare)


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


# ------------------------------------------------------------------ regions and time


def test_masked_constant_regions_do_not_matter():
    X, _ = make_data()
    cells = [x.copy() for x in X["fmri"]]
    cells[1][:, 2] = 5.0
    other = [x.copy() for x in cells]
    other[1][:, 2] = -70.0
    message = "constant region 2, first in scan 1"
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY).fit(X.assign(fmri=cells))
    first, second = (
        BrainSymphonyEmbedder(**TINY, constant_regions="mask").fit(X.assign(fmri=c))
        for c in (cells, other)
    )
    values = [
        m.transform(X.assign(fmri=c)) for m, c in ((first, cells), (second, other))
    ]
    np.testing.assert_array_equal(*values)
    assert np.isfinite(values[0]).all()
    present = first.transform(X.assign(fmri=X["fmri"]))
    assert not np.allclose(present[1], values[0][1])
    np.testing.assert_allclose(present[0], values[0][0], atol=1e-5)


def slow_series(seconds: float, t_r: float, seed: int) -> np.ndarray:
    """Return slow sines of R regions, sampled every `t_r` seconds."""
    rng = np.random.default_rng(seed)
    time = np.arange(0, seconds, t_r)[:, None, None]
    frequency = rng.uniform(0.01, 0.05, size=(1, R, 3))
    phase = rng.uniform(0, 2 * np.pi, size=(1, R, 3))
    return np.sin(2 * np.pi * frequency * time + phase).sum(-1)


def test_the_same_scan_at_two_repetition_times_has_nearly_the_same_embedding():
    fast = [slow_series(120, 1.0, seed) for seed in range(6)]
    slow = [slow_series(120, 2.0, seed) for seed in range(6)]
    X = pd.DataFrame({"fmri": fast, "t_r": 1.0})
    other = pd.DataFrame({"fmri": slow, "t_r": 2.0})
    model = BrainSymphonyEmbedder(**TINY, t_r="t_r").fit(X)
    assert model.preprocessing_.t_r == 1.0
    assert model.preprocessing_.window == 120
    Z, resampled = model.transform(X), model.transform(other)
    scan_to_scan = np.abs(Z - Z[::-1]).mean()
    assert np.abs(resampled - Z).mean() < 0.1 * scan_to_scan
    ignorant = BrainSymphonyEmbedder(**TINY, window=120).fit(X[["fmri"]])
    ignored = ignorant.transform(other[["fmri"]]) - ignorant.transform(X[["fmri"]])
    assert np.abs(ignored).mean() > 3 * np.abs(resampled - Z).mean()


def test_one_number_is_the_repetition_time_of_all_scans():
    X, _ = make_data()
    plain = BrainSymphonyEmbedder(**TINY).fit_transform(X)
    timed = BrainSymphonyEmbedder(**TINY, t_r=0.72).fit(X)
    assert timed.preprocessing_.t_r == 0.72
    np.testing.assert_array_equal(timed.transform(X), plain)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "needs a column of that name, in seconds. Got .*'site'"),
        ([2.0, -1.0, *[2.0] * 10], "Got -1.0, first in scan 1. Correct it or leave"),
        ([2.0, 2.0, None, *[2.0] * 9], "seconds, above 0. Got nan, first in scan 2"),
    ],
)
def test_repetition_times_that_cannot_be_used_raise(column, message):
    X, _ = make_data()
    X = X if column is None else X.assign(t_r=column)
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY, t_r="t_r").fit(X)


def test_window_defaults_to_the_longest_scan_up_to_two_hundred():
    rng = np.random.default_rng(0)
    none = TINY | {"max_epochs": 0}
    for longest, window in ((37, 37), (260, 200)):
        X = [rng.normal(size=(t, R)) for t in (20, longest)]
        assert BrainSymphonyEmbedder(**none).fit(X).preprocessing_.window == window
    model = BrainSymphonyEmbedder(**none, window=12).fit(X)
    assert model.preprocessing_.window == 12
    assert model.attention(X, "temporal").shape == (2, 12, 12)


def test_a_long_scan_is_the_mean_of_its_windows():
    # unscaled: a window of a scaled scan is not a scaled window
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(40, R)) for _ in range(4)]
    model = BrainSymphonyEmbedder(
        **TINY, window=20, standardize=None, dtype="float64"
    ).fit(X)
    halves = (
        model.transform([x[:20] for x in X]) + model.transform([x[20:] for x in X])
    ) / 2
    np.testing.assert_allclose(model.transform(X), halves, atol=1e-10)
    middle = model.set_params(n_windows=1).transform(X)
    np.testing.assert_allclose(
        middle, model.transform([x[10:30] for x in X]), atol=1e-10
    )
    attention = model.set_params(n_windows=5).attention(X, average=False)
    assert attention[0].shape == (5, 1, 2, R, R)


def test_a_short_scan_is_padded_without_a_trace():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(t, R)) for t in (15, 40, 28)]
    model = BrainSymphonyEmbedder(**TINY, dtype="float64").fit(X)
    together = model.transform(X)
    alone = np.concatenate([model.transform([x]) for x in X])
    np.testing.assert_allclose(together, alone, atol=1e-10)
    shapes = [x.shape for x in model.reconstruct(X)]
    assert shapes == [(15, R), (40, R), (28, R)]


def test_random_crops_are_drawn_anew_in_every_epoch():
    X, _ = make_data()
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 4}, window=10).fit(X)
    assert model.history_["train_loss"].nunique() == 4


@each_estimator
def test_one_scan_is_enough_for_pretraining_and_regression(kind):
    X, y = make_data()
    if kind is BrainSymphonyClassifier:
        X, y = X.iloc[:2], [0, 1]
    else:
        X, y = X.iloc[:1], [3.0]
    model = kind(**TINY | {"validation_fraction": 0.5}).fit(X, y)
    assert model.n_iter_ == 3
    assert np.isfinite(output(model, X)).all()


@pytest.mark.parametrize("dtype", ["auto", "float32", "float64", "bfloat16"])
def test_every_precision_trains(dtype):
    X, y = make_data()
    model = BrainSymphonyClassifier(**TINY | {"max_epochs": 15}, dtype=dtype).fit(X, y)
    assert model.history_["train_loss"].iloc[-1] < model.history_["train_loss"].iloc[0]
    expected = torch.float64 if dtype == "float64" else torch.float32
    assert {p.dtype for p in model.net_.module_.parameters()} == {expected}
    assert model.predict_proba(X).dtype == np.float64
