from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from skorch.callbacks import Callback as SkorchCallback
from torch import Tensor, nn

from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.model import BrainSymphony, TaskHead
from bsym_sklearn.model.layers import Dropout
from bsym_sklearn.training import checkpoints
from bsym_sklearn.training import net as net_module
from bsym_sklearn.training.callbacks import StopTraining
from bsym_sklearn.training.net import (
    TrainingSettings,
    make_net,
    resolve_device,
    set_history,
    train,
)
from bsym_sklearn.training.objectives import MaskedTask, SupervisedTask
from bsym_sklearn.training.scans import ScanReader, WindowDataset

R, WINDOW = 4, 10
BOTH = ("fmri", "sc")
SIZES: dict[str, Any] = {
    "dim": 8,
    "depth": 1,
    "perceiver_depth": 1,
    "n_heads": 2,
    "structural_heads": 2,
    "mlp_dim": 8,
    "context_dim": 2,
    "projection_dim": 4,
}
SETTINGS = TrainingSettings(max_epochs=3, batch_size=3, lr=1e-2)
every_modality = pytest.mark.parametrize(
    "modalities", [("fmri",), ("sc",), BOTH], ids=["fmri", "sc", "both"]
)

Sets = tuple[WindowDataset, WindowDataset]
Net = Any  # skorch's


class Killed(Exception):  # noqa: N818
    """What a test raises where a machine would stop."""


class Spy(SkorchCallback):
    """Call a function at one kind of event."""

    def __init__(self, event: str, call: Callable[..., None]) -> None:
        setattr(self, event, lambda net, **kwargs: call(net, **kwargs))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_sets(
    modalities: tuple[str, ...] = BOTH, n_train: int = 4, *, supervised: bool = False
) -> Sets:
    """Return training and validation windows; scans are longer than the window."""
    rng = np.random.default_rng(0)
    n_scans = n_train + 2
    upper = np.triu(rng.uniform(0, 1, size=(n_scans, R, R)), 1)
    fmri: list[Any] = list(rng.normal(size=(n_scans, 16, R)))
    sc: list[Any] = list(upper + upper.transpose(0, 2, 1))
    fmri[1] = fmri[1][:6]  # one is shorter than the window
    if modalities != ("sc",):
        sc[2] = None  # and one lacks a modality
    frame = pd.DataFrame({"fmri": fmri, "sc": sc})
    reader = ScanReader(check_cohort(frame), None, None, modalities)
    targets = torch.arange(n_scans) % 2 if supervised else None
    train_set, valid_set = (
        WindowDataset(reader, WINDOW, rows=rows, targets=targets)
        for rows in (range(n_train), range(n_train, n_scans))
    )
    return train_set, valid_set


def make_backbone(modalities: tuple[str, ...] = BOTH, **options: Any) -> BrainSymphony:
    sizes: dict[str, Any] = {**SIZES, "dropout": 0.2, **options}
    return BrainSymphony(R, WINDOW, modalities=modalities, **sizes)


def make_task(
    modalities: tuple[str, ...] = BOTH, *, staged: bool = False, **options: Any
) -> MaskedTask:
    backbone = make_backbone(modalities, **options)
    return MaskedTask(backbone, staged=staged, generator=seeded())


def make_classifier(*, frozen: bool = False) -> SupervisedTask:
    head = TaskHead(R, SIZES["dim"], 2, dropout=0.2)
    return SupervisedTask(make_backbone(), head, kind="classification", frozen=frozen)


def losses(net: Net) -> list[tuple[float, ...]]:
    names = ("train_loss", "valid_loss")
    return [tuple(e[name] for name in names if name in e) for e in net.history]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_bits(left: Net, right: Net) -> None:
    assert losses(left) == losses(right)
    others = weights(right.module_)
    for name, value in weights(left.module_).items():
        assert torch.equal(value, others[name]), name


# The optimizer


def test_only_weight_matrices_decay() -> None:
    task = make_task(positions="gradient", n_gradients=3, final_norm="layer")
    net = make_net(task, replace(SETTINGS, weight_decay=0.3))
    decay = {
        id(parameter): group["weight_decay"]
        for group in net.optimizer_.param_groups
        for parameter in group["params"]
    }
    norms = {
        f"{name}.weight"
        for name, part in task.named_modules()
        if isinstance(part, nn.LayerNorm)
    }
    assert norms
    decaying = set()
    for name, parameter in task.named_parameters():
        assert decay[id(parameter)] in (0.0, 0.3)
        if decay[id(parameter)]:
            decaying.add(name)
    matrices = {
        f"{name}.weight"
        for name, part in task.named_modules()
        if isinstance(part, (nn.Linear, nn.Conv1d))
    }
    assert decaying == matrices
    spared = {name for name, _ in task.named_parameters()} - decaying
    for ending in (".bias", "mask_token", "latents", "alpha", "table"):
        assert any(name.endswith(ending) for name in spared), ending
    assert norms <= spared


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_every_parameter_is_in_one_group(weight_decay: float) -> None:
    task = make_task()
    scales = {"backbone.gate.project.weight": 0.5, "decoders.regions.bias": 0.1}
    net = make_net(task, replace(SETTINGS, weight_decay=weight_decay), lr_scales=scales)
    groups = net.optimizer_.param_groups
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in task.parameters()}
    assert isinstance(net.optimizer_, torch.optim.AdamW)


def test_frozen_parameters_are_not_optimised() -> None:
    task = make_classifier(frozen=True)
    before = weights(task.backbone)
    net = train(task, *make_sets(supervised=True), settings=SETTINGS, seed=0)
    groups = net.optimizer_.param_groups
    members = {id(p) for group in groups for p in group["params"]}
    assert members == {id(p) for p in task.head.parameters()}
    assert all(torch.equal(before[k], v) for k, v in weights(task.backbone).items())
    assert task.head.readouts["fused"].weight.any()


def record_rates(
    settings: TrainingSettings, n_train: int = 7, **options: Any
) -> tuple[list[list[float]], Net]:
    """Return the learning rate of every group at every step of a fit."""
    rates: list[list[float]] = []

    def record(net: Net, **_: Any) -> None:
        rates.append([group["lr"] for group in net.optimizer_.param_groups])

    callback = Spy("on_grad_computed", record)
    sets = make_sets(("sc",), n_train)
    task = make_task(("sc",))
    net = train(task, *sets, settings=settings, seed=0, callbacks=[callback], **options)
    return rates, net


def test_the_rate_warms_up_and_decays_along_a_cosine() -> None:
    settings = replace(SETTINGS, max_epochs=10)  # 3 steps each, so 30
    rates, _ = record_rates(settings)
    factors = np.array(rates)[:, 0] / settings.lr
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(27) / 27))
    expected = np.concatenate([[1 / 3, 2 / 3, 1.0], cosine])
    np.testing.assert_allclose(factors, expected, rtol=1e-12)
    assert factors[-1] < 0.01
    assert np.all(np.array(rates) == np.array(rates)[:, :1])  # in every group


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_the_shortest_fits_have_a_rate_too(max_epochs: int) -> None:
    settings = replace(SETTINGS, max_epochs=max_epochs, batch_size=100)
    rates, _ = record_rates(settings)
    assert [rate[0] / settings.lr for rate in rates] == [1.0, 1.0][:max_epochs]


def test_a_constant_rate_stays() -> None:
    rates, _ = record_rates(replace(SETTINGS, constant_lr=True))
    assert len(rates) == 9
    assert all(rate == SETTINGS.lr for step in rates for rate in step)


@pytest.mark.parametrize("constant_lr", [True, False])
def test_rates_are_scaled_by_parameter(constant_lr: bool) -> None:
    scales = {"backbone.sc.embed.weight": 0.25, "backbone.sc.embed.bias": 0.0}
    before = weights(make_task(("sc",)))
    rates, net = record_rates(
        replace(SETTINGS, constant_lr=constant_lr, weight_decay=0.1), lr_scales=scales
    )
    names = {id(p): name for name, p in net.module_.named_parameters()}
    for i, group in enumerate(net.optimizer_.param_groups):
        for parameter in group["params"]:
            scale = scales.get(names[id(parameter)], 1.0)
            shares = {step[i] / max(step) for step in rates}
            assert shares == {scale}
    after = weights(net.module_)
    frozen = "backbone.sc.embed.bias"
    assert torch.equal(before[frozen], after[frozen])
    moved = "backbone.sc.embed.weight"
    assert not torch.equal(before[moved], after[moved])


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def record(net: Net, **_: Any) -> None:
        gradients = [p.grad.norm() for p in net.module_.parameters()]
        norms.append(torch.stack(gradients).norm().item())

    for limit in (1.0, 0.1, 1e9):
        monkeypatch.setattr(net_module, "GRADIENT_CLIP_NORM", limit)
        train(
            make_task(("sc",)),
            *make_sets(("sc",), 7),
            settings=replace(SETTINGS, max_epochs=1),
            seed=0,
            callbacks=[Spy("on_grad_computed", record)],
        )
    assert norms[6] > 1.0  # unclipped
    assert norms[0] == pytest.approx(1.0, abs=1e-3)
    assert norms[3] == pytest.approx(0.1, abs=1e-3)
    assert net_module.GRADIENT_CLIP_NORM == 1e9


def test_gradients_are_clipped_at_norm_one() -> None:
    assert net_module.GRADIENT_CLIP_NORM == 1.0


# Epochs


@every_modality
@pytest.mark.parametrize("staged", [False, True])
def test_each_modality_trains_joint_and_staged(
    modalities: tuple[str, ...], staged: bool
) -> None:
    task = make_task(modalities, staged=staged)
    before = weights(task)
    settings = replace(SETTINGS, max_epochs=7)
    net = train(task, *make_sets(modalities), settings=settings, seed=0)
    assert net.module_ is task
    assert len(net.history) == 7
    assert [len(epoch) for epoch in losses(net)] == [2] * 7
    assert all(math.isfinite(loss) for epoch in losses(net) for loss in epoch)
    moved = [n for n, v in weights(task).items() if not torch.equal(v, before[n])]
    assert moved
    assert not any(torch.isnan(value).any() for value in weights(task).values())


@every_modality
@pytest.mark.parametrize("repeats", [1, 2])
def test_stages_come_one_after_the_other(
    modalities: tuple[str, ...], repeats: int
) -> None:
    task = make_task(modalities, staged=True)
    stages: list[str] = []
    moved: list[set[str]] = []
    before = weights(task)

    def record(net: Net, **_: Any) -> None:
        now = weights(net.module_)
        moved.append({n for n, v in now.items() if not torch.equal(v, before[n])})
        before.update(now)
        stages.append(net.module_.stage)

    train(
        task,
        *make_sets(modalities),
        settings=replace(SETTINGS, max_epochs=repeats * len(task.stages)),
        seed=0,
        callbacks=[Spy("on_epoch_end", record)],
    )
    assert stages == [stage for stage in task.stages for _ in range(repeats)]
    assert task.stage is None
    own = {
        "regions": ("backbone.fmri.spatial", "decoders.regions"),
        "time_points": ("backbone.fmri.temporal", "decoders.time_points"),
        "points": ("backbone.fmri.context",),
        "reconstruction": ("backbone.fmri",),
        "edges": ("backbone.sc",),
        "fused_reconstruction": ("backbone",),
        "fused_edges": ("backbone",),
    }
    for stage, names in zip(stages, moved, strict=True):
        assert names
        assert all(name.startswith(own[stage]) for name in names), stage


def test_a_fit_without_stages_trains_all_objectives_at_once() -> None:
    stages = []
    record = Spy("on_epoch_end", lambda net, **_: stages.append(net.module_.stage))
    train(
        make_task(),
        *make_sets(),
        settings=SETTINGS,
        seed=0,
        callbacks=[record],
    )
    assert stages == [None] * 3


def test_validation_masks_are_those_of_every_epoch() -> None:
    """With nothing learned, the validation loss stays and the training loss moves."""
    settings = replace(SETTINGS, lr=0.0, weight_decay=0.0)
    net = train(make_task(dropout=0.0), *make_sets(), settings=settings, seed=0)
    train_losses, valid_losses = zip(*losses(net), strict=True)
    assert len(set(valid_losses)) == 1
    assert len(set(train_losses)) == 3


def test_without_validation_scans_the_last_weights_are_kept() -> None:
    last: dict[str, Tensor] = {}
    keep = Spy("on_epoch_end", lambda net, **_: last.update(weights(net.module_)))
    train_set, _ = make_sets()
    net = train(make_task(), train_set, settings=SETTINGS, seed=0, callbacks=[keep])
    assert [len(epoch) for epoch in losses(net)] == [1] * 3
    assert all(torch.equal(last[n], v) for n, v in weights(net.module_).items())


@pytest.mark.parametrize("n_train", [1, 2, 3, 4, 7])
def test_no_scan_is_dropped(n_train: int) -> None:
    seen: list[int] = []

    def record(net: Net, batch: Any, training: bool, **_: Any) -> None:
        if training:
            seen.extend(batch[1]["row"].tolist())

    task = make_task(("sc",))
    before = weights(task)
    net = train(
        task,
        *make_sets(("sc",), n_train),
        settings=replace(SETTINGS, max_epochs=2),
        seed=0,
        callbacks=[Spy("on_batch_begin", record)],
    )
    assert sorted(seen) == sorted([*range(n_train)] * 2)
    assert net.history[0]["train_batch_count"] == -(-n_train // 3)
    assert any(not torch.equal(v, before[n]) for n, v in weights(task).items())


def test_a_fit_of_no_epochs_changes_nothing() -> None:
    task = make_task()
    before = weights(task)
    settings = replace(SETTINGS, max_epochs=0)
    net = train(task, *make_sets(), settings=settings, seed=0)
    assert losses(net) == []
    assert all(torch.equal(v, before[n]) for n, v in weights(task).items())


# Stopping


class Scripted(MaskedTask):
    """Learns as ever, but its validation losses are given."""

    script: tuple[float, ...]
    epoch = 0

    def loss(self, predictions: Any, target: Any) -> Tensor:
        loss = super().loss(predictions, target)
        return loss if self.training else loss * 0 + self.script[self.epoch]


def fit_scripted(
    script: tuple[float, ...],
    callbacks: Iterable[SkorchCallback] = (),
    **settings: Any,
) -> Net:
    """Fit for at most as many epochs as there are validation losses."""
    task = Scripted(make_backbone(), generator=seeded())
    task.script = script

    def count(net: Net, **_: Any) -> None:
        task.epoch = len(net.history) - 1

    return train(
        task,
        *make_sets(),
        settings=replace(SETTINGS, **{"max_epochs": len(script), **settings}),
        seed=1,
        callbacks=[Spy("on_epoch_begin", count), *callbacks],
    )


def snapshots() -> tuple[list[dict[str, Tensor]], SkorchCallback]:
    """Return a list and a callback that adds the weights after each epoch to it."""
    kept: list[dict[str, Tensor]] = []
    return kept, Spy("on_epoch_end", lambda net, **_: kept.append(weights(net.module_)))


def validation_loss(net: Net) -> float:
    """Return the validation loss of the weights that `net` has now."""
    _, valid_set = make_sets()
    task = net.module_.eval()
    windows = valid_set.covering_windows()
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(windows), 3):
            chunk = windows[i : i + 3]
            batch, target = valid_set.batch(chunk)
            total += task.loss(task(**batch), target).item() * len(chunk)
    return total / len(windows)


@pytest.mark.parametrize(
    ("script", "patience", "n_epochs", "best"),
    [
        ((3, 1, 2, 2, 9, 9), 2, 4, 2),
        ((3, 1, 2, 0.5, 9, 9, 9), 2, 6, 4),
        ((3, 3, 3, 3, 3), 1, 2, 1),
        ((3, 2, 1), 1, 3, 3),
        ((3, 1, 2, 2, 9), None, 5, 2),
        ((3, 1, 2), 50, 3, 2),
    ],
)
def test_training_stops_when_patience_ends_and_the_best_weights_are_kept(
    script: tuple[float, ...], patience: int | None, n_epochs: int, best: int
) -> None:
    kept, callback = snapshots()
    net = fit_scripted(script, [callback], patience=patience)
    assert [loss for _, loss in losses(net)] == list(script[:n_epochs])
    assert len(kept) == n_epochs
    for name, value in weights(net.module_).items():
        assert torch.equal(value, kept[best - 1][name]), name
    assert any(not torch.equal(kept[0][name], v) for name, v in kept[1].items())


def test_the_restored_weights_have_the_best_loss_of_the_history() -> None:
    settings = replace(SETTINGS, max_epochs=5, lr=0.05)
    net = train(make_task(), *make_sets(), settings=settings, seed=1)
    best = min(valid for _, valid in losses(net))
    assert validation_loss(net) == pytest.approx(best, rel=1e-5)


def test_a_callback_can_stop_the_fit() -> None:
    def stop(net: Net, **_: Any) -> None:
        if len(net.history) == 2:
            raise StopTraining

    ended: list[bool] = []
    net = train(
        make_task(),
        *make_sets(),
        settings=replace(SETTINGS, max_epochs=9),
        seed=0,
        callbacks=[
            Spy("on_epoch_end", stop),
            Spy("on_train_end", lambda net, **_: ended.append(True)),
        ],
    )
    assert len(losses(net)) == 2
    assert ended == [True]
    best = min(valid for _, valid in losses(net))
    assert validation_loss(net) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize("event", ["on_batch_end", "on_epoch_end", "on_train_begin"])
def test_other_exceptions_leave_the_fit(
    error: type[BaseException], event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task()

    def fail(net: Net, **_: Any) -> None:
        raise error("stop")

    with pytest.raises(error, match="stop"):
        train(
            task,
            *make_sets(),
            settings=replace(SETTINGS, verbose=1),
            seed=0,
            callbacks=[Spy(event, fail)],
        )
    assert_is_clean(task)


@pytest.mark.parametrize("where", ["train", "valid"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(
    where: str, value: float, tmp_path: Path
) -> None:
    class Breaking(MaskedTask):
        factor = 1.0

        def loss(self, predictions: Any, target: Any) -> Tensor:
            in_time = self.training == (where == "train")
            return super().loss(predictions, target) * (self.factor if in_time else 1)

    def break_third_epoch(net: Net, **_: Any) -> None:
        net.module_.factor = value if len(net.history) == 3 else 1.0

    task = Breaking(make_backbone(), generator=seeded())
    settings = replace(SETTINGS, max_epochs=9, checkpoint=tmp_path / "fit.safetensors")
    message = (
        rf"The loss of pretraining became (nan|inf) \({where}_loss\) in epoch 3. Lower "
        r"`lr` \(now 0.01\), set `standardize='zscore'`, use dtype='float32' instead "
        r"of mixed precision, or look for extreme values in the data\."
    )
    with pytest.raises(FloatingPointError, match=message):
        train(
            task,
            *make_sets(),
            settings=settings,
            seed=0,
            description="pretraining",
            callbacks=[Spy("on_epoch_begin", break_third_epoch)],
        )
    assert_is_clean(task)
    _, metadata = checkpoints.load_state(settings.checkpoint)
    assert len(metadata["history"]) == 2  # the last good epoch


# Nothing is left behind


def assert_is_clean(task: nn.Module) -> None:
    assert task.generator is None
    assert task.stage is None
    for part in task.modules():
        if isinstance(part, Dropout):
            assert part.generator is None


def test_generators_and_data_belong_to_the_fit() -> None:
    task = make_task(staged=True)
    net = train(task, *make_sets(), settings=SETTINGS, seed=0)
    assert_is_clean(task)
    assert net.order_ is None
    assert net.noise_ is None
    assert net.train_split is None
    assert net.callbacks_ == []


def test_global_generators_are_not_touched() -> None:
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        random.getstate(),
    )
    train(make_task(), *make_sets(), settings=SETTINGS, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize("supervised", [False, True])
def test_the_same_seed_gives_the_same_bits(supervised: bool) -> None:
    def fit(seed: int) -> Net:
        task = make_classifier() if supervised else make_task()
        sets = make_sets(supervised=supervised)
        return train(task, *sets, settings=SETTINGS, seed=seed)

    torch.manual_seed(0)
    expected = fit(3)
    torch.manual_seed(1)
    assert_same_bits(expected, fit(3))
    with ThreadPoolExecutor(2) as pool:
        for net in pool.map(fit, [3, 3]):
            assert_same_bits(expected, net)
    assert losses(fit(4)) != losses(expected)


def test_a_reading_process_changes_no_bit() -> None:
    """Every epoch starts the workers' generator or not; the order must not move."""
    nets = [
        train(make_task(), *make_sets(), settings=replace(SETTINGS, n_jobs=n), seed=0)
        for n in (0, 1)
    ]
    assert_same_bits(*nets)


def test_metadata_routing_changes_nothing() -> None:
    expected = train(make_task(), *make_sets(), settings=SETTINGS, seed=0)
    with sklearn.config_context(enable_metadata_routing=True):
        net = train(make_task(), *make_sets(), settings=SETTINGS, seed=0)
    assert_same_bits(expected, net)


# What a user sees


def test_a_progress_bar_only_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, 1):
        train(
            make_task(("sc",)),
            *make_sets(("sc",)),
            settings=replace(SETTINGS, verbose=verbose),
            seed=0,
            description="probing",
            callbacks=[Spy("on_epoch_begin", lambda net, **_: time.sleep(0.15))],
        )
        out, err = capsys.readouterr()
        assert out == ""
        assert ("probing" in err) == bool(verbose)
    assert "0/3" in err
    assert "train_loss=" in err
    assert "valid_loss=" in err


def test_the_history_has_losses_and_seconds() -> None:
    net = train(make_task(), *make_sets(), settings=SETTINGS, seed=0)
    for i, epoch in enumerate(net.history):
        assert epoch["epoch"] == i + 1
        assert epoch["dur"] > 0
        assert epoch["train_loss"] > 0
        assert epoch["valid_loss"] > 0


def test_a_history_can_be_given_to_a_net() -> None:
    net = make_net(make_task(), SETTINGS)
    set_history(net, [{"epoch": 1, "train_loss": 0.5}])
    assert net.history[-1]["train_loss"] == 0.5


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_the_loss_falls_on_scans_that_can_be_learned(
    micro_batch_size: int | None,
) -> None:
    """Regions that share one signal can be predicted from each other."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(30, WINDOW, 1)).cumsum(1)
    scans = list((signal - signal.mean(1, keepdims=True)) * np.ones(R))
    reader = ScanReader(check_cohort(scans), None, None, ("fmri",))
    train_set = WindowDataset(reader, WINDOW, rows=range(24))
    valid_set = WindowDataset(reader, WINDOW, rows=range(24, 30))
    task = make_task(("fmri",), dropout=0.0)
    settings = TrainingSettings(
        max_epochs=20, batch_size=6, micro_batch_size=micro_batch_size, lr=2e-2
    )
    net = train(task, train_set, valid_set, settings=settings, seed=0)
    valid = [loss for _, loss in losses(net)]
    assert min(valid) < 0.6 * valid[0]


def test_mixed_precision_stays_finite_and_keeps_the_weights_single() -> None:
    seen: list[torch.dtype] = []

    def record(net: Net, loss: Tensor, **_: Any) -> None:
        assert loss.dtype == torch.float32

    def note(task: nn.Module, args: Any, out: Any) -> None:
        seen.append(out["reconstruction"].prediction.dtype)

    settings = replace(SETTINGS, mixed_precision=True)
    for options in ({}, {"spatial_tokens": "connectivity"}):
        task = make_task(structural_positions="spectral", **options)
        task.register_forward_hook(note)
        net = train(
            task,
            *make_sets(),
            settings=settings,
            seed=0,
            callbacks=[Spy("on_batch_end", record)],
        )
        assert set(seen) == {torch.bfloat16}
        assert all(math.isfinite(loss) for epoch in losses(net) for loss in epoch)
        dtypes = {value.dtype for value in weights(net.module_).values()}
        assert dtypes == {torch.float32}


def test_mixed_precision_is_close_to_single_precision() -> None:
    nets = [
        train(
            make_classifier(),
            *make_sets(supervised=True),
            settings=replace(SETTINGS, mixed_precision=mixed),
            seed=0,
        )
        for mixed in (False, True)
    ]
    single, mixed = (np.array(losses(net)) for net in nets)
    np.testing.assert_allclose(mixed, single, rtol=0.05)
    assert not np.array_equal(mixed, single)


def test_double_precision_trains() -> None:
    train_set, valid_set = make_sets()
    train_set.reader.dtype = np.float64
    net = train(make_task().double(), train_set, valid_set, settings=SETTINGS, seed=0)
    assert {v.dtype for v in weights(net.module_).values()} == {torch.float64}


def test_the_device_is_chosen() -> None:
    assert resolve_device("cpu") == "cpu"
    automatic = resolve_device("auto")
    assert automatic == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(RuntimeError, match="toaster"):
        resolve_device("toaster")


# Continuing


def test_a_later_call_continues_the_optimizer_and_the_history() -> None:
    settings = replace(SETTINGS, max_epochs=1, constant_lr=True)
    task = make_task()
    train_set, _ = make_sets()
    first = train(task, train_set, settings=settings, seed=0)
    steps = [s["step"].item() for s in first.optimizer_.state.values()]
    second = train(
        task, train_set, settings=replace(settings, lr=0.5), seed=1, resume_from=first
    )
    assert len(second.history) == 2
    assert losses(second)[0] == losses(first)[0]
    continued = [s["step"].item() for s in second.optimizer_.state.values()]
    assert continued == [step + 2 for step in steps]
    assert {group["lr"] for group in second.optimizer_.param_groups} == {0.5}
    assert second.module_ is task


RESUMED = [
    pytest.param({}, {}, id="joint"),
    pytest.param({"staged": True}, {}, id="staged"),
    pytest.param({"modalities": ("fmri",)}, {}, id="fmri"),
    pytest.param({"modalities": ("sc",)}, {"constant_lr": True}, id="constant rate"),
    pytest.param({"kind": "supervised"}, {}, id="supervised"),
    pytest.param({"kind": "frozen"}, {}, id="frozen"),
    pytest.param({}, {"n_jobs": 1}, id="reading process"),
]


def fit_resumable(
    what: dict[str, Any],
    settings: TrainingSettings,
    callbacks: Iterable[SkorchCallback] = (),
    seed: int = 0,
) -> Net:
    """Fit a new task: as a new process would, with nothing but the file."""
    supervised = what.get("kind") in ("supervised", "frozen")
    modalities = what.get("modalities", BOTH)
    if supervised:
        task: nn.Module = make_classifier(frozen=what["kind"] == "frozen")
    else:
        task = make_task(modalities, staged=what.get("staged", False))
    return train(
        task,
        *make_sets(modalities, supervised=supervised),
        settings=settings,
        seed=seed,
        callbacks=list(callbacks),
    )


def kill(event: str, n_epochs: int, n_batches: int = 0) -> SkorchCallback:
    """Stop at an event of an epoch, after some training batches of it."""

    def check(net: Net, **_: Any) -> None:
        is_late = len(net.history) == n_epochs
        if is_late and len(net.history[-1]["batches"]) >= n_batches:
            raise Killed

    return Spy(event, check)


@pytest.mark.parametrize(("what", "options"), RESUMED)
def test_a_killed_fit_continues_to_the_same_bits(
    what: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, max_epochs=5, patience=4, **options)
    expected = fit_resumable(what, settings)
    resumable = replace(settings, checkpoint=tmp_path / "fit.safetensors")
    for killer in (
        kill("on_epoch_end", 2),
        kill("on_batch_end", 3, n_batches=1),  # in the middle of an epoch
        kill("on_batch_begin", 5, n_batches=3),  # in its validation
    ):
        with pytest.raises(Killed):
            fit_resumable(what, resumable, [killer])
    assert_same_bits(expected, fit_resumable(what, resumable))


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_epoch_end"])
def test_early_stopping_survives_a_kill_in_every_epoch(
    event: str, tmp_path: Path
) -> None:
    script = (3, 1, 2, 0.5, 9, 9, 9)  # the best is the fourth, the sixth the last
    expected = fit_scripted(script, patience=2)
    options: dict[str, Any] = {"patience": 2, "checkpoint": tmp_path / "fit"}
    for epoch in range(1, 7):
        with pytest.raises(Killed):
            fit_scripted(script, [kill(event, epoch)], **options)
    again = fit_scripted(script, **options)
    assert len(losses(again)) == 6
    assert_same_bits(expected, again)


def test_a_best_loss_of_zero_survives_a_kill(tmp_path: Path) -> None:
    """Zero is a number, not the lack of one."""
    script, path = (0, 1, 0, 0), tmp_path / "fit.safetensors"
    with pytest.raises(Killed):
        fit_scripted(script, [kill("on_epoch_end", 2)], checkpoint=path)
    assert_same_bits(fit_scripted(script), fit_scripted(script, checkpoint=path))


def test_a_finished_fit_is_only_loaded(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    script, options = (3, 1, 2, 2, 9), {"patience": 2, "checkpoint": path}
    expected = fit_scripted(script, **options)
    content = path.read_bytes()
    kept, callback = snapshots()
    net = fit_scripted(script, [callback], **options)
    assert kept == []
    assert_same_bits(expected, net)
    assert path.read_bytes() == content
    assert_is_clean(net.module_)


@pytest.mark.parametrize(
    "other",
    [
        lambda: make_task(dim=4),
        lambda: make_task(("sc",)),
        lambda: make_task(("fmri",)),
        lambda: make_task(context_dim=3),
        make_classifier,
    ],
    ids=["width", "sc", "fmri", "context", "classifier"],
)
def test_the_checkpoint_of_another_model_is_an_error(
    other: Callable[[], nn.Module], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, checkpoint=tmp_path / "fit.safetensors")
    train(make_task(), *make_sets(), settings=settings, seed=0)
    content = settings.checkpoint.read_bytes()
    task = other()
    with pytest.raises(
        CheckpointError,
        match=r"(?s)fit.safetensors does not fit this training: .* Delete it or choose "
        "another `checkpoint_dir`.",
    ):
        train(task, *make_sets(supervised=True), settings=settings, seed=0)
    assert settings.checkpoint.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08" + b"\0" * 20])
def test_a_damaged_checkpoint_is_an_error(content: bytes, tmp_path: Path) -> None:
    settings = replace(SETTINGS, checkpoint=tmp_path / "fit.safetensors")
    settings.checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        train(make_task(), *make_sets(), settings=settings, seed=0)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_while_writing_keeps_the_last_checkpoint(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, checkpoint=tmp_path / "fit.safetensors")
    expected = fit_resumable({}, replace(settings, checkpoint=None))
    contents: list[bytes] = []

    def break_disk(net: Net, **_: Any) -> None:
        if len(net.history) == 2:
            contents.append(settings.checkpoint.read_bytes())
            monkeypatch.setattr(*where, crash)

    def crash(*_: Any) -> None:
        raise OSError("no space left")

    where = (os, "fsync") if call == "fsync" else (Path, "replace")
    with pytest.raises(OSError, match="no space left"):
        fit_resumable({}, settings, [Spy("on_batch_end", break_disk)])
    monkeypatch.undo()
    assert settings.checkpoint.read_bytes() == contents[0]
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]
    assert_same_bits(expected, fit_resumable({}, settings))


def test_a_checkpoint_holds_no_code_and_plain_numbers(tmp_path: Path) -> None:
    path = tmp_path / "made" / "fit.safetensors"
    net = fit_resumable({}, replace(SETTINGS, checkpoint=path))
    tensors, metadata = checkpoints.load_state(path)
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata["finished"] is True
    assert metadata["best_loss"] == min(valid for _, valid in losses(net))
    saved = {
        name.removeprefix("weights/"): value
        for name, value in tensors.items()
        if name.startswith("weights/")
    }
    assert saved.keys() == weights(net.module_).keys()
    assert all(torch.equal(saved[n], v) for n, v in weights(net.module_).items())


def test_each_stage_has_a_rate_that_warms_up_and_decays() -> None:
    task = make_task(staged=True)
    rates: list[float] = []

    def record(net: Net, **_: Any) -> None:
        rates.append(net.optimizer_.param_groups[0]["lr"])

    settings = replace(SETTINGS, max_epochs=3 * len(task.stages))
    callback = Spy("on_grad_computed", record)
    train(task, *make_sets(), settings=settings, seed=0, callbacks=[callback])
    per_stage = np.reshape(rates, (len(task.stages), -1))
    np.testing.assert_allclose(per_stage, per_stage[:1].repeat(len(per_stage), 0))
    assert per_stage[0].argmax() < per_stage.shape[1] // 2
    assert per_stage[0, -1] < 0.3 * per_stage[0].max()


def test_training_in_stages_does_not_lose_its_patience() -> None:
    task = make_task(staged=True)
    settings = replace(SETTINGS, max_epochs=2 * len(task.stages), patience=1, lr=1.0)
    net = train(task, *make_sets(), settings=settings, seed=0)
    valid = [epoch["valid_loss"] for epoch in net.history]
    assert len(valid) == settings.max_epochs
    assert any(later > min(valid[:i]) for i, later in enumerate(valid[1:], 1))
