"""The smallest models and scans that take every path, and what they are known by."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from torch.optim.optimizer import register_optimizer_step_post_hook
from tqdm import tqdm

import bsym_sklearn
from bsym_sklearn import Candidate
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.data import make_cohort

N_SCANS, N_REGIONS, N_TIMEPOINTS = 12, 5, 30
TINY: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 2,
    "batch_size": 3,
    "max_epochs": 5,
    "validation_fraction": 0.25,
    "dropout": 0.2,
    "window": 20,
    "random_state": 0,
    "device": "cpu",
}
# Of a table of results: what may differ between two runs that agree.
INCIDENTAL = ("seconds", "seconds_pretraining", "seconds_predict", "peak_memory_mb")
INCIDENTAL += ("versions", "code", "commit", "weights")

tqdm.monitor_interval = 0  # or a comparison leaves a thread, and forks are not safe

_log: list[Path] = []  # where fits and steps are counted, in a child


class BrainSymphonyEmbedder(bsym_sklearn.BrainSymphonyEmbedder):
    """One whose fits are counted."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Count, and fit."""
        _count("fit")
        return super().fit(X, y)


class BrainSymphonyClassifier(bsym_sklearn.BrainSymphonyClassifier):
    """One whose fits are counted."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Count, and fit."""
        _count("fit")
        return super().fit(X, y, sample_weight)


@cache
def scans() -> tuple[pd.DataFrame, np.ndarray]:
    """Return scans of both modalities, one of them without SC, and their classes."""
    cohort = make_cohort(N_SCANS, N_REGIONS, N_TIMEPOINTS)
    X: pd.DataFrame = cohort.data
    X["sc"] = [None, *X["sc"][1:]]
    return X, cohort.target


@cache
def fitted(seed: int = 0, **parameters: Any) -> Any:
    """Return an embedder that is fitted once."""
    settings = TINY | {"max_epochs": 1, "random_state": seed} | parameters
    return bsym_sklearn.BrainSymphonyEmbedder(**settings).fit(scans()[0])


@cache
def fitted_classifier() -> Any:
    """Return a classifier that is fitted once."""
    settings = TINY | {"max_epochs": 1}
    return bsym_sklearn.BrainSymphonyClassifier(**settings).fit(*scans())


def warm_up() -> None:
    """Import and compile all that the children need, which then share it."""
    for model in (fitted(0), fitted(1)):
        model.transform(scans()[0])
    fitted_classifier()
    with TemporaryDirectory(prefix="reliability-") as name:
        compare_models(Path(name))


def digest(*arrays: Any) -> str:
    """Return the hash of shapes, types and bits."""
    whole = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        whole.update(f"{array.shape} {array.dtype.str}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()[:32]


def weights_digest(estimator: Any) -> str:
    """Return the hash of all weights and of the losses."""
    state = estimator.net_.module_.state_dict()
    values = [state[name].cpu().numpy() for name in sorted(state)]
    return digest(*values, estimator.history_["train_loss"])


def pretrain(folder: Path) -> str:
    """Fit an embedder that goes on where it was killed."""
    with counting_steps(folder / "log"):
        return pretrain_uncounted(folder)


def pretrain_uncounted(folder: Path, seed: int = 0) -> str:
    """Do the same and write nothing else."""
    settings = TINY | {"random_state": seed, "checkpoint_dir": folder / "states"}
    model = bsym_sklearn.BrainSymphonyEmbedder(**settings)
    return weights_digest(model.fit(scans()[0]))


def fine_tune(folder: Path) -> str:
    """Pretrain and fit a classifier that goes on where it was killed."""
    with counting_steps(folder / "log"):
        model = bsym_sklearn.BrainSymphonyClassifier(
            **TINY | {"max_epochs": 3},
            pretrain_epochs=2,
            checkpoint_dir=folder / "states",
        )
        return weights_digest(model.fit(*scans()))


def compare_counted(folder: Path) -> str:
    """Count the fits of a comparison that goes on where it was killed."""
    _log[:] = [folder / "log"]
    found = compare_models(folder, n_seeds=2)
    _log.clear()
    return found


def tune_counted(folder: Path) -> str:
    """Search two parameters in a study that goes on where it was killed."""
    from optuna.distributions import FloatDistribution

    from bsym_sklearn.analysis import studies
    from bsym_sklearn.analysis.optimization import optimize

    # Killed in the moment between being asked for and being signed, a trial is waited
    # for this long: five minutes, in which nothing would be tried here.
    studies.PATIENCE_SECONDS = 3.0
    space = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "dropout": FloatDistribution(0.0, 0.5),
    }
    _log[:] = [folder / "log"]
    found = optimize(
        BrainSymphonyClassifier(**TINY | {"max_epochs": 1}),
        *scans(),
        space=space,
        cv=2,
        n_trials=5,
        pruner=None,
        storage=folder / "study.log",
    )
    _log.clear()
    trials = found.trials.drop(columns="seconds").to_json(double_precision=15)
    text = json.dumps([found.params, found.score, trials])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def compare_models(folder: Path, n_seeds: int = 1) -> str:
    """Compare two models, one of which is pretrained, and return the hash of all."""
    settings = TINY | {"max_epochs": 1}
    classifier = BrainSymphonyClassifier(**settings)
    models = {
        "scratch": classifier,
        "pretrained": Candidate(
            clone(classifier), "pretrained", BrainSymphonyEmbedder(**settings)
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of code that changed meanwhile
        table = compare(
            models,
            *scans(),
            cv=2,
            seeds=range(n_seeds),
            store=folder / "store",
        )
    kept = table.drop(columns=list(INCIDENTAL)).to_dict("list")
    text = json.dumps(kept, default=lambda value: np.asarray(value).tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def counting_steps(path: Path) -> Iterator[None]:
    """Count the steps of all optimizers in a file."""
    _log[:] = [path]
    handle = register_optimizer_step_post_hook(lambda *_: _count("step"))
    try:
        yield
    finally:
        handle.remove()
        _log.clear()


def counted(folder: Path) -> int:
    """Return how many steps or fits there were, in all runs together."""
    path = folder / "log"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _count(what: str) -> None:
    """Add a line at once, which a kill cannot take back."""
    for path in _log:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)
