"""Fits that are stopped in the middle of an epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback as SkorchCallback

from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.model.kernels import use_kernel
from bsym_sklearn.training.callbacks import UpdateTarget
from bsym_sklearn.training.checkpoints import load_state
from bsym_sklearn.training.net import TrainingSettings, train
from bsym_sklearn.training.objectives import MaskedTask
from bsym_sklearn.training.scans import (
    Batches,
    RandomWindows,
    ScanReader,
    WindowDataset,
)

R, WINDOW = 4, 10
SETTINGS = TrainingSettings(max_epochs=3, batch_size=2, lr=1e-2, checkpoint_seconds=0)

Net = Any  # skorch's


class Killed(Exception):  # noqa: N818
    """What a test raises where a machine would stop."""


def make_sets() -> tuple[WindowDataset, WindowDataset]:
    """Return five training scans, in batches of 2, 2 and 1, and two for validation."""
    fmri = np.random.default_rng(0).normal(size=(7, 16, R))
    reader = ScanReader(check_cohort(fmri), None, None, ("fmri",))
    return tuple(
        WindowDataset(reader, WINDOW, rows=rows) for rows in (range(5), range(5, 7))
    )


def make_task() -> MaskedTask:
    generator = torch.Generator().manual_seed(0)
    backbone = BrainSymphony(
        R,
        WINDOW,
        modalities=("fmri",),
        dim=8,
        depth=1,
        n_heads=2,
        mlp_dim=8,
        dropout=0.2,
        generator=generator,
    )
    return MaskedTask(backbone, generator=generator)


class Note(SkorchCallback):
    """Note what is trained in each step, and stop at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.rows: list[list[int]] = []

    def on_batch_end(
        self, net: Net, batch: Any = None, training: bool = False, **_: Any
    ) -> None:
        if not training:
            return
        if len(self.rows) == self.stop_at:
            raise Killed  # before this step is noted, after it was kept
        self.rows.append(batch[1]["row"].tolist())


def fit(
    note: SkorchCallback, path: Path | None = None, **settings: Any
) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
    """Return the losses of each epoch and the weights."""
    with use_kernel("torch"):
        net = train(
            make_task(),
            *make_sets(),
            settings=replace(SETTINGS, checkpoint=path, **settings),
            seed=3,
            callbacks=[note],
        )
    losses = [(epoch["train_loss"], epoch["valid_loss"]) for epoch in net.history]
    return losses, [value.numpy() for value in net.module_.state_dict().values()]


def assert_same_bits(one: Any, two: Any) -> None:
    assert one[0] == two[0]
    for left, right in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def expected() -> tuple[Any, list[list[int]]]:
    """Return a fit that nothing stopped, and its steps."""
    note = Note()
    return fit(note), note.rows


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 1}, {"n_jobs": 1}])
def test_a_fit_that_stops_at_any_step_loses_none(
    options: dict[str, Any], expected: tuple[Any, list[list[int]]], tmp_path: Path
) -> None:
    result, rows = expected
    if "micro_batch_size" in options:  # it draws otherwise
        result = fit(Note(), **options)
    path = tmp_path / "fit.safetensors"
    stops = (0, 1, 2, 7) if not options else (4,)
    n_done = 0
    for stop_at in stops:
        note = Note(stop_at - n_done)
        with pytest.raises(Killed):
            fit(note, path, **options)
        assert note.rows == rows[n_done:stop_at]
        n_done = stop_at + 1  # kept before it was stopped
        _, metadata = load_state(path)
        assert len(metadata["history"]) * 3 + len(metadata["batches"]) == n_done
    note = Note()
    assert_same_bits(fit(note, path, **options), result)
    assert note.rows == rows[n_done:]


def test_a_state_is_kept_when_it_is_due(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step takes a second, and a state is due after two and at the end of epochs."""
    now = 0.0
    saves: list[tuple[float, int, int]] = []

    def tick(net: Net, training: bool = False, **_: Any) -> None:
        nonlocal now
        now += training

    def note(path: Path, tensors: Any, metadata: dict[str, Any]) -> None:
        saves.append((now, len(metadata["history"]), len(metadata["batches"])))

    name = "bsym_sklearn.training.callbacks"
    monkeypatch.setattr(f"{name}.time.monotonic", lambda: now)
    monkeypatch.setattr(f"{name}.save_state", note)
    clock = SkorchCallback()
    clock.on_batch_begin = tick
    fit(clock, tmp_path / "fit", checkpoint_seconds=2, max_epochs=2)
    assert saves == [(2, 0, 2), (3, 1, 0), (5, 1, 2), (6, 2, 0), (6, 2, 0)]


def test_keeping_states_changes_no_bit(
    expected: tuple[Any, list[list[int]]], tmp_path: Path
) -> None:
    assert_same_bits(fit(Note(), tmp_path / "fit"), expected[0])


def test_a_state_without_batches_is_of_an_older_version(
    expected: tuple[Any, list[list[int]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "fit"
    with pytest.raises(Killed):
        fit(Note(3), path, checkpoint_seconds=600)

    def older(path: Path) -> Any:
        tensors, metadata = load_state(path)
        assert metadata.pop("batches") == []
        return tensors, metadata

    monkeypatch.setattr("bsym_sklearn.training.callbacks.load_state", older)
    assert_same_bits(fit(Note(), path), expected[0])


def test_the_schedule_of_a_target_encoder_counts_kept_batches(tmp_path: Path) -> None:
    """What follows the encoder depends on the share of the steps that are done."""
    shares: list[float] = []

    class Following(UpdateTarget):
        stop_at: int | None = None

        def on_batch_end(self, net: Net, training: bool = False, **kwargs: Any) -> None:
            net.module_.backbone.update_target = shares.append
            try:
                super().on_batch_end(net, training, **kwargs)
            finally:
                del net.module_.backbone.update_target
            if len(shares) == self.stop_at:
                raise Killed

    following = Following()
    following.stop_at = 5
    with pytest.raises(Killed):
        fit(following, tmp_path / "fit")
    fit(Following(), tmp_path / "fit")
    np.testing.assert_allclose(shares, np.arange(1, 10) / 9)


# The order of an epoch


def test_an_epoch_goes_on_at_any_batch() -> None:
    train_set, _ = make_sets()

    def draw(first: int) -> list[list[tuple[int, int]]]:
        windows = RandomWindows(train_set, torch.Generator().manual_seed(1))
        batches = Batches(windows, 2)
        batches.first = first
        assert len(batches) == len(batches.sizes())
        shares = list(batches)
        assert [len(share.windows) for share in shares] == batches.sizes()
        return [share.windows for share in shares]

    whole = draw(0)
    assert [len(batch) for batch in whole] == [2, 2, 1]
    for first in range(4):
        assert draw(first) == whole[first:]


def test_shares_of_a_batch_lack_no_modality_that_it_has() -> None:
    """Else a process would draw other masks for its part than one alone does."""
    fmri: list[Any] = list(np.random.default_rng(0).normal(size=(3, 16, R)))
    sc: list[Any] = [np.ones((R, R)) - np.eye(R), None, None]
    fmri[0] = None
    columns = {"fmri": fmri, "sc": sc}
    cohort = check_cohort(pd.DataFrame(columns))
    dataset = WindowDataset(ScanReader(cohort, None, None, ("fmri", "sc")), WINDOW)
    windows = [(0, 0), (1, 3), (2, 5)]
    whole, _ = dataset.batch(windows)
    for own in (slice(0, 1), slice(1, 3)):
        part, target = dataset.batch(windows, own)
        assert part.keys() >= {"fmri", "sc"}
        assert target["row"].tolist() == [row for row, _ in windows[own]]
        for name in ("fmri", "sc"):
            assert torch.equal(part[name], whole[name][own])
            has = part.get(f"has_{name}", torch.ones(len(part[name]), dtype=bool))
            assert torch.equal(has, whole[f"has_{name}"][own])
    nothing, target = dataset.batch(windows, slice(3, 3))
    assert nothing == {}
    assert target["row"].tolist() == []
    assert "sc" not in dataset.batch(windows[1:])[0]


# Processes that are killed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_process_killed_at_any_time_costs_no_bit(seed: int, tmp_path: Path) -> None:
    fit_script = f"""
import importlib.util, sys, pathlib, time
spec = importlib.util.spec_from_file_location("resume", {__file__!r})
resume = importlib.util.module_from_spec(spec)
sys.modules["resume"] = resume
spec.loader.exec_module(resume)
class Slow(resume.SkorchCallback):
    def on_batch_end(self, net, **kwargs):
        time.sleep(0.02)
print("begin", flush=True)
resume.fit(Slow(), pathlib.Path(sys.argv[1]), max_epochs=40)
"""
    path = tmp_path / "fit.safetensors"
    rng = np.random.default_rng(seed)
    n_kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", fit_script, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        try:
            process.wait(timeout=rng.uniform(0.2, 3))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_kills += 1
            time.sleep(0.01)
    assert n_kills > 0
    assert_same_bits(fit(Note(), path, max_epochs=40), fit(Note(), max_epochs=40))
