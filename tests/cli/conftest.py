"""A cohort folder and two saved models, made once for all tests of the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("click", reason="the command line needs click")
from click.testing import CliRunner, Result

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.cli.main import bsym
from bsym_sklearn.data import load_cohort, make_cohort

TINY = {"dim": 8, "depth": 1, "max_epochs": 1, "random_state": 0}


def write_cohort(root: Path, prefix: str, random_state: int = 0) -> Path:
    """Write 12 scans of 6 people: two states, an age, an SC that some lack."""
    cohort = make_cohort(
        n_scans=12,
        n_regions=5,
        n_timepoints=40,
        missing_sc=0.25,
        random_state=random_state,
    )
    for part in ("fmri", "sc"):
        (root / part).mkdir(parents=True)
    table = cohort.data[["age", "site"]].copy()
    table.insert(0, "participant_id", [f"{prefix}{i // 2}" for i in range(12)])
    table["state"] = np.where(cohort.target == 0, "rest", "task")
    for name in ("fmri", "sc"):
        cells = []
        for i, values in enumerate(cohort.data[name]):
            cells.append("n/a" if values is None else f"{name}/{i}.npy")
            if values is not None:
                np.save(root / cells[-1], values)
        table[name] = cells
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    cohort.regions.to_csv(root / "regions.tsv", sep="\t", index=False)
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cohort folder that no test changes."""
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", "p")


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of other people."""
    return write_cohort(tmp_path_factory.mktemp("data") / "others", "q", 1)


@pytest.fixture(scope="session")
def embedder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of a pretrained model."""
    bundle = tmp_path_factory.mktemp("bundles") / "embedder"
    model = BrainSymphonyEmbedder(**TINY, validation_fraction=0)
    model.fit(load_cohort(folder)).save_pretrained(bundle)
    return bundle


@pytest.fixture(scope="session")
def classifier(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of a classifier of the state."""
    bundle = tmp_path_factory.mktemp("bundles") / "classifier"
    model = BrainSymphonyClassifier(**TINY, validation_fraction=0)
    X = load_cohort(folder)
    model.fit(X, X["state"]).save_pretrained(bundle)
    return bundle


@pytest.fixture
def run() -> Callable[..., Result]:
    """Return a function that runs a command and compares its exit code."""

    def _run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(bsym, [str(x) for x in arguments])
        assert result.exit_code == code, result.output
        return result

    return _run


@pytest.fixture
def table(folder: Path) -> pd.DataFrame:
    """Return the participants as they are on disk."""
    return pd.read_csv(folder / "participants.tsv", sep="\t")
