"""Same seed, same bits: in threads, in processes, and with the caller's state kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed, parallel_config

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)
from bsym_sklearn.data import make_cohort

N, R, T = 8, 6, 40
# Everything that draws: weights, order, crops (window), dropout, masks, validation.
RANDOM = {
    "dim": 8,
    "depth": 1,
    "n_heads": 2,
    "dropout": 0.3,
    "window": 20,
    "max_epochs": 2,
    "batch_size": 4,
    "lr": 1e-2,
    "validation_fraction": 0.25,
}
SEEDS = range(4)
ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]


def make_data() -> tuple[pd.DataFrame, np.ndarray]:
    cohort = make_cohort(N, R, T, unequal=True, missing_sc=0.2)
    return cohort.data, cohort.target


def fit_once(kind: type, seed: int) -> np.ndarray:
    """Fit and return the output and all weights, side by side."""
    X, y = make_data()
    params = dict(RANDOM)
    if kind is not BrainSymphonyEmbedder:
        params["pretrain_epochs"] = 1
    model = kind(**params, random_state=seed).fit(X, y)
    values = model.transform(X) if hasattr(model, "transform") else model.predict(X)
    weights = [p.detach().numpy().ravel() for p in model.net_.module_.parameters()]
    return np.concatenate([values.ravel(), *weights])


@pytest.fixture(scope="module")
def sequential() -> dict[type, list[np.ndarray]]:
    """Return the results of fits one after the other."""
    return {kind: [fit_once(kind, seed) for seed in SEEDS] for kind in ESTIMATORS}


@contextmanager
def dask_threads() -> Iterator[None]:
    """Make joblib use two threads of a dask cluster in this process."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        parallel_config(backend="dask"),
    ):
        yield


BACKENDS: dict[str, Callable[[], AbstractContextManager]] = {
    "loky": lambda: parallel_config(backend="loky", inner_max_num_threads=1),
    "threading": lambda: parallel_config(backend="threading"),
    "dask threads": dask_threads,
}


def test_seeds_differ(sequential):
    for results in sequential.values():
        for other in results[1:]:
            assert not np.allclose(results[0], other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ESTIMATORS[:2])
def test_parallel_fits_have_the_bits_of_sequential_ones(kind, backend, sequential):
    with BACKENDS[backend]():
        parallel = Parallel(n_jobs=2)(delayed(fit_once)(kind, seed) for seed in SEEDS)
    for got, expected in zip(parallel, sequential[kind], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_threads_may_share_a_fitted_model():
    X, y = make_data()
    model = BrainSymphonyClassifier(**RANDOM, random_state=0).fit(X, y)
    expected = model.predict_proba(X)
    with parallel_config(backend="threading"):
        results = Parallel(n_jobs=2)(delayed(model.predict_proba)(X) for _ in range(4))
    for got in results:
        np.testing.assert_array_equal(got, expected)


# ----------------------------------------------------------------- caller's state


@contextmanager
def untouched(dtype: torch.dtype) -> Iterator[None]:
    """Assert that global random state, default dtype and switches stay as set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    try:
        yield
        assert torch.equal(torch.get_rng_state(), torch_state)
        after = np.random.get_state()  # noqa: NPY002
        np.testing.assert_array_equal(after[1], numpy_state[1])
        assert after[2:] == numpy_state[2:]
        assert torch.get_default_dtype() == dtype
        assert torch.is_grad_enabled()
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_global_state_is_untouched(kind, dtype, tmp_path):
    X, y = make_data()
    with untouched(dtype):
        model = kind(**RANDOM, random_state=0)
    with untouched(dtype):
        model.fit(X, y)
    with untouched(dtype):
        first = model.transform(X) if hasattr(model, "transform") else model.predict(X)
        if isinstance(model, BrainSymphonyEmbedder):
            model.reconstruct(X)
            model.transform_regions(X)
        model.score(X, y)
        model.attention(X)
    with untouched(dtype):
        model.save_pretrained(tmp_path / "saved")
    with untouched(dtype):
        again = kind.from_pretrained(tmp_path / "saved")
    with untouched(dtype):
        second = again.transform(X) if hasattr(again, "transform") else again.predict(X)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_result_does_not_depend_on_global_state(kind, sequential):
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(fit_once(kind, 0), sequential[kind][0])
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_state_instance_advances_and_none_differs():
    X, _ = make_data()
    params = RANDOM | {"max_epochs": 0}
    state = np.random.RandomState(0)
    model = BrainSymphonyEmbedder(**params, random_state=state)
    first, second = model.fit_transform(X), model.fit_transform(X)
    assert not np.allclose(first, second)
    again = BrainSymphonyEmbedder(**params, random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(again.fit_transform(X), first)
    free = BrainSymphonyEmbedder(**params)
    assert not np.allclose(free.fit_transform(X), free.fit_transform(X))


# ------------------------------------------------------- threads and reading processes


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow  # oversubscribed where cores are few
def test_number_of_torch_threads_changes_no_more_than_rounding(sequential):
    # gradients are summed in another order: not the same bits, unlike everything above
    with torch_threads(2):
        got = fit_once(BrainSymphonyClassifier, 0)
    expected = sequential[BrainSymphonyClassifier][0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ESTIMATORS[:2])
def test_reading_processes_change_nothing(kind, tmp_path):
    X, y = make_data()
    X = X.assign(**{column: as_paths(X[column], tmp_path) for column in ("fmri", "sc")})
    models = [kind(**RANDOM, random_state=0, n_jobs=n_jobs) for n_jobs in (None, 2)]
    with untouched(torch.float32):
        outputs = [
            m.transform(X) if hasattr(m, "transform") else m.predict(X)
            for m in (model.fit(X, y) for model in models)
        ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    for a, b in zip(*(m.net_.module_.parameters() for m in models), strict=True):
        assert torch.equal(a, b)


def as_paths(cells: pd.Series, folder: Path) -> list[str | None]:
    """Write the cells to .npy files and return their paths."""
    paths: list[str | None] = []
    for i, cell in enumerate(cells):
        path = None if cell is None else str(folder / f"{cells.name}{i}.npy")
        if path is not None:
            np.save(path, cell)
        paths.append(path)
    return paths
