"""Published supervised networks behave as BrainSymphony's estimators do."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    CheckpointError,
    NetworkClassifier,
    NetworkRegressor,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.estimators.network import NETWORKS

N, R, T = 12, 6, 30
TINY: dict[str, Any] = {"max_epochs": 3, "batch_size": 6, "random_state": 0}
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
EXPECTED = {
    WEIGHTS: "a weight of 2 is one scan that counts twice, not two scans: order, "
    "batches, dropout and Adam's steps depend on the number of rows"
}
CHECKED = {
    "max_epochs": 30,
    "batch_size": 64,
    "lr": 3e-2,
    "dropout": 0.0,
    "validation_fraction": 0.0,
    "dtype": "float64",
    "random_state": 0,
}
each_network = pytest.mark.parametrize("network", NETWORKS)
each_kind = pytest.mark.parametrize("kind", [NetworkClassifier, NetworkRegressor])


def make_data(n_scans: int = N) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    cohort = make_cohort(n_scans, R, T)
    X = cohort.data.drop(columns="sc")
    return X, cohort.target, X["age"].to_numpy()


def fit(kind: type, network: str, **options: Any) -> tuple[Any, pd.DataFrame]:
    X, y, age = make_data()
    estimator = kind(network, **TINY | options)
    return estimator.fit(X, y if kind is NetworkClassifier else age), X


def output(estimator: Any, X: Any) -> np.ndarray:
    if isinstance(estimator, NetworkClassifier):
        return estimator.predict_proba(X)
    return estimator.predict(X)


@parametrize_with_checks(
    [NetworkClassifier(**CHECKED), NetworkRegressor(**CHECKED)],
    expected_failed_checks=lambda _: EXPECTED,
    xfail_strict=True,
)
def test_estimator_passes_sklearns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@each_network
@each_kind
def test_networks_fit_predict_and_repeat_to_the_bit(kind: type, network: str) -> None:
    first, X = fit(kind, network)
    again, _ = fit(kind, network)
    assert np.isfinite(output(first, X)).all()
    np.testing.assert_array_equal(output(first, X), output(again, X))
    other, _ = fit(kind, network, random_state=1)
    assert not np.array_equal(output(first, X), output(other, X))


@each_network
@each_kind
def test_networks_are_saved_pickled_and_cloned(
    kind: type, network: str, tmp_path: Any
) -> None:
    estimator, X = fit(kind, network)
    estimator.save_pretrained(tmp_path / "saved")
    for copy in (
        kind.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(estimator)),  # noqa: S301  (our own bytes)
    ):
        np.testing.assert_array_equal(output(copy, X), output(estimator, X))
    assert not hasattr(clone(estimator), "net_")


def test_a_saved_network_is_not_loaded_as_another_class(tmp_path: Any) -> None:
    estimator, _ = fit(NetworkClassifier, "mean_mlp")
    estimator.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="Got a saved NetworkClassifier"):
        BrainSymphonyClassifier.from_pretrained(tmp_path / "saved")
    classifier = BrainSymphonyClassifier(pretrained=tmp_path / "saved")
    with pytest.raises(CheckpointError, match="cannot use"):
        classifier.fit(*make_data()[:2])


@each_network
def test_the_published_dropout_is_used_unless_another_is_asked_for(
    network: str,
) -> None:
    published, _ = fit(NetworkClassifier, network, max_epochs=1)
    own, _ = fit(NetworkClassifier, network, max_epochs=1, dropout=0.25)
    assert own.backbone_.config["dropout"] == 0.25
    assert (
        published.backbone_.config["dropout"]
        == (NETWORKS[network](n_regions=R, n_outputs=2).config["dropout"])
    )


def test_networks_work_in_cross_validation_and_grid_search() -> None:
    X, y, _ = make_data(16)
    scores = cross_val_score(NetworkClassifier(**TINY), X, y, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(
        NetworkClassifier(**TINY), {"network": ["mean_mlp", "brainnetcnn"]}, cv=2
    )
    assert search.fit(X, y).best_params_["network"] in NETWORKS


def test_a_network_learns_what_a_linear_model_learns() -> None:
    """A class that shifts every series: no claim about real data."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    X = rng.standard_normal((40, T, R)) + y[:, None, None]
    order = rng.permutation(40)
    train, test = order[:28], order[28:]
    linear = LogisticRegression().fit(X[train].mean(1), y[train])
    assert linear.score(X[test].mean(1), y[test]) == 1
    network = NetworkClassifier(standardize=None, max_epochs=20, random_state=0)
    assert network.fit(X[train], y[train]).score(X[test], y[test]) == 1


def test_auxiliary_losses_are_learned_from() -> None:
    estimator, X = fit(NetworkClassifier, "braingnn", validation_fraction=0.0)
    y = make_data()[1]
    task = estimator.net_.module_.train()
    series = torch.from_numpy(np.stack(X["fmri"].to_list())).float()
    labels = torch.from_numpy(y).long()
    prediction = task(series)
    assert task.loss(prediction, {"target": labels}) > task.backbone.auxiliary_loss(
        prediction[1], labels
    )
    assert task.backbone.auxiliary_loss(prediction[1], labels) > 0


@each_kind
def test_partial_fit_and_warm_start_go_on(kind: type) -> None:
    estimator, X = fit(kind, "mean_mlp")
    y = make_data()[1 if kind is NetworkClassifier else 2]
    before = output(estimator, X)
    estimator.partial_fit(X, y)
    after = output(estimator, X)
    assert not np.array_equal(before, after)
    estimator.set_params(warm_start=True).fit(X, y)
    assert not np.array_equal(after, output(estimator, X))


def test_scans_without_fmri_are_named() -> None:
    cohort = make_cohort(N, R, T)
    X = cohort.data.copy()
    X["fmri"] = [None if i == 4 else x for i, x in enumerate(X["fmri"])]
    with pytest.raises(BrainDataError, match=r"needs fMRI .* first in scan 4"):
        NetworkClassifier(**TINY).fit(X, cohort.target)


def test_an_unknown_network_is_an_error() -> None:
    X, y, _ = make_data()
    with pytest.raises(ValueError, match="`network` must be one of"):
        NetworkClassifier("resnet").fit(X, y)
