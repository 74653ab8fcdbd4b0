from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.model import BrainSymphony, TaskHead
from bsym_sklearn.training.compiling import compiled
from bsym_sklearn.training.net import TrainingSettings, train
from bsym_sklearn.training.objectives import SupervisedTask
from bsym_sklearn.training.scans import ScanReader, WindowDataset

R, WINDOW = 4, 10
SETTINGS = TrainingSettings(max_epochs=2, batch_size=4, compile=True)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def make_task() -> SupervisedTask:
    """Return a task without dropout, whose draws would break up what is compiled."""
    generator = torch.Generator().manual_seed(0)
    backbone = BrainSymphony(
        R,
        WINDOW,
        modalities=("fmri",),
        dim=8,
        depth=1,
        perceiver_depth=0,
        n_heads=2,
        mlp_dim=8,
        generator=generator,
    )
    return SupervisedTask(backbone, TaskHead(R, 8, 2), kind="classification")


def make_set(n_scans: int = 8) -> WindowDataset:
    scans = list(np.random.default_rng(0).normal(size=(n_scans, 14, R)))
    reader = ScanReader(check_cohort(scans), None, None, ("fmri",))
    return WindowDataset(reader, WINDOW, targets=torch.arange(n_scans) % 2)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_error_says_what_to_do() -> None:
    task = make_task()
    message = (
        r"compile=True needs a C\+\+ compiler\. Got none on the PATH\. Install g\+\+, "
        r"clang or Visual Studio's build tools, name one in the environment variable "
        r"CXX, or use compile=False\."
    )
    with pytest.raises(RuntimeError, match=message):
        train(task, make_set(), settings=SETTINGS, seed=0)
    train(task, make_set(), settings=replace(SETTINGS, compile=False), seed=0)


def test_a_module_is_compiled_in_place_and_then_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        torch, "compile", lambda call, **_: lambda x: call(x) + 1000
    )  # what a compiler does, seen from outside
    monkeypatch.setattr("shutil.which", lambda name: name)
    layer, x = nn.Linear(2, 1), torch.ones(1, 2)
    names, plain = list(layer.state_dict()), layer(x).item()
    with compiled(layer):
        assert layer(x).item() == pytest.approx(plain + 1000)
        assert list(layer.state_dict()) == names
        for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
            assert copied(x).item() == plain
    assert layer(x).item() == plain
    with pytest.raises(KeyboardInterrupt), compiled(layer):
        raise KeyboardInterrupt
    assert layer(x).item() == plain


@pytest.mark.slow
def test_compiled_training_has_the_losses_of_the_plain_one() -> None:
    losses = []
    for wanted in (True, False):
        settings = replace(SETTINGS, compile=wanted)
        net = train(make_task(), make_set(), settings=settings, seed=0)
        losses.append([b["train_loss"] for e in net.history for b in e["batches"]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
