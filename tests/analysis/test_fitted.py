"""What a fitted model is made of, what it takes, and which code made it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bsym_sklearn import (
    BlendClassifier,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    FeatureClassifier,
)
from bsym_sklearn.analysis import provenance
from bsym_sklearn.analysis.fitted import chosen_parameters, count_parameters
from bsym_sklearn.analysis.memory import PeakMemory, one_thread
from bsym_sklearn.estimators.registry import make_model

TINY = {"dim": 4, "depth": 1, "n_heads": 2, "max_epochs": 1, "random_state": 0}


def test_linear_models_count_by_what_they_read(rng) -> None:
    X, y = rng.normal(size=(30, 6)), np.arange(30) % 3
    assert count_parameters(LogisticRegression().fit(X, y)) == 3 * 7
    assert count_parameters(LogisticRegression().fit(X, y > 0)) == 7
    search = GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=3)
    rotated = make_pipeline(StandardScaler(), PCA(2), search).fit(X, y)
    assert count_parameters(rotated) == 3 * 7  # of the 6 features, not of 2 rotations
    assert set(chosen_parameters(rotated)) == {"C"}
    members = [("a", clone(rotated)), ("b", LogisticRegression())]
    both = VotingClassifier(members).fit(X, y)
    assert count_parameters(both) == 2 * 3 * 7


@pytest.mark.parametrize("features", ["correlation", "sc"])
def test_calibrated_models_count_as_what_they_calibrate(cohort, features) -> None:
    X, y = cohort.data, cohort.target
    for model in ("ridge", "kernel_ridge"):
        fitted = FeatureClassifier(features, model=model).fit(X, y)
        assert count_parameters(fitted) == 6 * 5 // 2 + 1
        assert set(chosen_parameters(fitted)) == {"alpha"}


def test_every_calibrated_fold_counts_that_predicts(rng) -> None:
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    ensemble = CalibratedClassifierCV(RidgeClassifier(), cv=3)
    assert count_parameters(ensemble.fit(X, y)) == 3 * 5
    one = CalibratedClassifierCV(RidgeClassifier(), cv=3, ensemble=False)
    assert count_parameters(one.fit(X, y)) == 5


def test_a_blend_counts_its_members(cohort) -> None:
    X, y = cohort.data, cohort.target
    members = [
        ("ridge", FeatureClassifier("correlation", model="ridge")),
        ("sc", FeatureClassifier("sc")),
        ("network", BrainSymphonyClassifier(**TINY)),
    ]
    blend = BlendClassifier(members, n_inner_folds=2).fit(X, y)
    counts = [count_parameters(member) for member in blend.members_]
    assert min(counts) > 0
    assert count_parameters(blend) == sum(counts)
    chosen = chosen_parameters(blend)
    weights = [chosen[f"weight of {name}"] for name, _ in members]
    np.testing.assert_allclose(weights, blend.weights_)


def test_networks_count_without_the_decoders_of_pretraining(cohort) -> None:
    X, y = cohort.data, cohort.target
    embedder = BrainSymphonyEmbedder(**TINY).fit(X)
    backbone = sum(p.numel() for p in embedder.backbone_.parameters())
    assert count_parameters(embedder) == backbone
    pipeline = make_pipeline(embedder, LogisticRegression()).fit(X, y)
    width = pipeline[0].transform(X[:1]).shape[1]
    assert count_parameters(pipeline) == backbone + width + 1
    classifier = BrainSymphonyClassifier(**TINY).fit(X, y)
    network = sum(p.numel() for p in classifier.net_.module_.parameters())
    assert count_parameters(classifier) == network > 0


def test_models_by_name_say_what_they_chose(cohort) -> None:
    model = make_model("correlation").fit(cohort.data, cohort.target)
    assert chosen_parameters(model)
    assert count_parameters(model) == 6 * 5 // 2 + 1


def test_memory_in_use_at_the_same_time_is_seen() -> None:
    with PeakMemory(interval=0.001) as before:
        pass
    with PeakMemory(interval=0.001) as peak:
        block = np.ones(10_000_000)  # 80 MB
        threading.Event().wait(0.05)
        del block
    assert peak.megabytes > before.megabytes + 60


def test_threads_are_as_before_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_commit_is_that_of_tracked_files_only(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True)

    assert provenance._commit(tmp_path) is None
    git("init", "--quiet")
    (tmp_path / "version.py").write_text("1")
    assert provenance._commit(tmp_path) is None
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    commit = provenance._commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "version.py").write_text("2")
    assert provenance._commit(tmp_path) == f"{commit}-dirty"


def test_provenance_names_the_libraries_and_the_code() -> None:
    found = provenance.current_provenance()
    assert {"python", "bsym_sklearn", "torch", "scikit-learn"} <= set(found.versions)
    assert found.code == provenance.current_provenance().code
