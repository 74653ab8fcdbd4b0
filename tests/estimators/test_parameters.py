"""What goes wrong: each bad parameter and failure has its own words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
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
SUPERVISED = ESTIMATORS[1:]
each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


def make_data(n_scans: int = N, **options: Any) -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(n_scans, R, T, **options)
    return cohort.data, cohort.target


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


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


def test_weights_that_the_last_step_spoils_are_an_error(monkeypatch):
    X, y = make_data()
    original = training_net._Net.get_loss

    def steep(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        weight = next(self.module_.parameters())
        return original(self, *args, **kwargs) + (0 * weight.sum()).sqrt()

    monkeypatch.setattr(training_net._Net, "get_loss", steep)
    options = TINY | {"max_epochs": 1, "batch_size": len(X), "validation_fraction": 0.0}
    message = r"The weights of .* became NaN or infinite in epoch 1\. Lower `lr`"
    with pytest.raises(FloatingPointError, match=message):
        BrainSymphonyClassifier(**options).fit(X, y)


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
    ("micro_batch_size", 0, ValueError, "micro_batch_size == 0, must be >= 1"),
    (
        "micro_batch_size",
        "half",
        ValueError,
        "a number of scans, 'auto' or None. Got 'half'",
    ),
    ("micro_batch_size", 2.5, TypeError, "micro_batch_size must be an instance of int"),
    ("compile", "yes", TypeError, "compile must be an instance of bool"),
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
    ("temporal_tokens", "words", ValueError, "`temporal_tokens` must be one of"),
    ("temporal_kernel", 0, ValueError, "temporal_kernel == 0, must be >= 1"),
    ("temporal_kernel", 2, ValueError, "must be odd and at least 1. Got 2"),
    ("temporal_kernel", 1.5, TypeError, "temporal_kernel must be an instance of int"),
    ("positions", "sine", ValueError, "sine"),
    ("perceiver_residual", "none", ValueError, "none"),
    ("final_norm", "batch", ValueError, "batch"),
    ("edge_weights", "heavy", ValueError, "heavy"),
    ("structural_positions", "sine", ValueError, "sine"),
    ("signed_attention", "both", ValueError, "both"),
    ("absent_edges", "random", ValueError, "random"),
    ("edge_symmetry", "none", ValueError, "none"),
    ("fusion", "sum", ValueError, "`fusion` must be one of"),
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
        ("head_dropout", 1.0, "head_dropout == 1.0, must be < 1"),
        ("head_dropout", -0.1, "head_dropout == -0.1, must be >= 0"),
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
