"""Going on, probing, fine-tuning, and when to stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bsym_sklearn import (
    BrainDataError,
    BrainLMClassifier,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    BrainSymphonyWarning,
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
TINY_PATCHES: dict[str, Any] = {
    "max_epochs": 3,
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


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_weights(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------ warm_start


@each_estimator
def test_warm_start_goes_on_from_the_last_weights(kind):
    X, y = make_data()
    y = target_of(kind, X, y)
    params = TINY | {"lr": 2e-3}  # states learn faster still
    params |= {"head_dropout": 0.0} if kind in SUPERVISED else {}
    cold = kind(**params).fit(X, y)
    first_loss = cold.history_["train_loss"].iloc[0]
    cold.fit(X, y)
    assert cold.history_["train_loss"].iloc[0] == first_loss
    warm = kind(**params, warm_start=True).fit(X, y)
    assert warm.history_["train_loss"].iloc[0] == first_loss
    before = weights_of(warm.backbone_)
    warm.set_params(lr=1e-12).fit(X, y)
    for name, value in weights_of(warm.backbone_).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)
    warm.set_params(lr=2e-3).fit(X, y)
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
@pytest.mark.parametrize("kind", [BrainSymphonyClassifier, BrainLMClassifier])
def test_warm_start_may_first_probe_and_then_fine_tune(kind):
    X, y = make_data()
    sizes = TINY if kind is BrainSymphonyClassifier else TINY_PATCHES
    model = kind(**sizes, warm_start=True, strategy="probe").fit(X, y)
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
