"""Fixtures that every test may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch


def pytest_configure() -> None:
    """Keep torch to one thread: parallel workers share few cores."""
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator in the same state for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data beside the project, or skip."""
    folder = Path(__file__).parents[1] / ".." / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared, which are not here")
    return folder.resolve()


@pytest.fixture
def cohort() -> Bunch:
    """Return twelve synthetic scans of two classes with both modalities."""
    from bsym_sklearn.data import make_cohort  # only the tests that ask for it

    return make_cohort(n_scans=12, n_regions=6, n_timepoints=40)
