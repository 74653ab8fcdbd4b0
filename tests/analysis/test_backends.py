"""Fits on the workers of joblib's backends: the same scores, and little to send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
from joblib import delayed
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.analysis.cells import Cell, run
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.problem import make_problem
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.data import make_cohort

TINY = {
    "dim": 8,
    "depth": 1,
    "n_heads": 2,
    "max_epochs": 1,
    "dropout": 0.2,
    "random_state": 0,
}
FOLDS = KFold(2)


@contextmanager
def dask() -> Iterator[None]:
    """Let a process of a dask cluster compute."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        yield


@contextmanager
def ray() -> Iterator[None]:
    """Let a process of ray compute."""
    engine = pytest.importorskip("ray", reason="ray is not installed")
    from ray.util.joblib import register_ray

    register_ray()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # it would write a token
    engine.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with joblib.parallel_config(backend="ray", n_jobs=2):
            yield
    finally:
        engine.shutdown()


@contextmanager
def threads() -> Iterator[None]:
    """Let threads of this process compute."""
    with joblib.parallel_config(backend="threading", n_jobs=2):
        yield


BACKENDS = [
    threads,
    dask,
    pytest.param(ray, marks=pytest.mark.slow),
]


def all_scores(cohort) -> dict[str, np.ndarray]:
    """Return what the tools that fit many times say of a tiny model."""
    X, y = cohort.data, cohort.target
    model = BrainSymphonyClassifier(**TINY)
    results = cross_validate(model, X, y, cv=FOLDS, scoring="neg_log_loss")
    search = GridSearchCV(model, {"lr": [1e-4, 1e-2]}, cv=FOLDS, scoring="neg_log_loss")
    search.fit(X, y)
    table = compare({"ours": model, "none": DummyClassifier()}, X, y, cv=2)
    return {
        "cross_validate": results["test_score"],
        "GridSearchCV": search.cv_results_["mean_test_score"],
        "refit": search.predict_proba(X),
        "compare": np.stack(table["y_proba"]),
    }


@pytest.fixture(scope="module")
def people():
    return make_cohort(n_scans=12, n_regions=6, n_timepoints=40)


@pytest.fixture(scope="module")
def sequential(people) -> dict[str, np.ndarray]:
    return all_scores(people)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_are_those_of_one_process(backend, people, sequential) -> None:
    with backend():
        parallel = all_scores(people)
    for name, expected in sequential.items():
        np.testing.assert_array_equal(parallel[name], expected, err_msg=name)


# ------------------------------------------------------------------- what is sent


@pytest.fixture
def many_paths(tmp_path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return 200 scans as paths to files of 38 kB each."""
    rng = np.random.default_rng(0)
    fmri, sc = rng.normal(size=(120, 40)), np.ones((40, 40))
    rows = []
    for i in range(200):
        paths = {name: tmp_path / f"{name}-{i:03}.npy" for name in ("fmri", "sc")}
        np.save(paths["fmri"], fmri)
        np.save(paths["sc"], sc)
        named = {name: os.fspath(path) for name, path in paths.items()}
        rows.append({"participant_id": f"sub-{i:03}", **named})
    return pd.DataFrame(rows), np.resize([0, 1], 200)


def test_a_fold_of_paths_is_sent_as_paths(many_paths) -> None:
    X, y = many_paths
    train, test = next(FOLDS.split(y))
    model = make_pipeline(BrainSymphonyEmbedder(), LogisticRegression())
    task = delayed(cross_validate)(clone(model), X, y, cv=[(train, test)])
    assert len(cloudpickle.dumps(task)) < 100_000
    arrays = X.assign(fmri=[np.load(path) for path in X["fmri"]])
    assert len(cloudpickle.dumps(delayed(cross_validate)(model, arrays, y))) > 7_000_000


def test_a_cell_of_a_comparison_is_sent_as_paths(many_paths, tmp_path) -> None:
    X, y = many_paths
    problem, splits = make_problem(X, y, cv=2)
    cell = Cell("ab12", "ours", BrainSymphonyClassifier(), splits[0], seed=0)
    task = delayed(run)(cell, problem, CellStore(tmp_path), current_provenance())
    assert len(cloudpickle.dumps(task)) < 100_000


def test_pretrained_weights_are_sent_as_a_path(people, tmp_path) -> None:
    embedder = BrainSymphonyEmbedder(**TINY | {"dim": 64}).fit(people.data)
    embedder.save_pretrained(tmp_path / "saved")
    size = sum(file.stat().st_size for file in (tmp_path / "saved").iterdir())
    model = BrainSymphonyClassifier(pretrained=str(tmp_path / "saved"))
    assert len(cloudpickle.dumps(model)) < 5_000 < size / 20
