"""What a training step costs beside its arithmetic, and steps in parts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback as SkorchCallback
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model import BrainSymphony, TaskHead
from bsym_sklearn.training.inference import WindowLoop
from bsym_sklearn.training.net import TrainingSettings, make_net, train
from bsym_sklearn.training.objectives import MaskedTask, SupervisedTask
from bsym_sklearn.training.scans import ScanReader, WindowDataset

R, WINDOW, BATCH = 4, 10, 6
SETTINGS = TrainingSettings(max_epochs=2, batch_size=BATCH, lr=1e-2)
aten = torch.ops.aten

Net = Any  # skorch's


def make_set(n_scans: int, dtype: Any = np.float32, **options: Any) -> WindowDataset:
    """Return windows of scans, some short, some without a modality."""
    rng = np.random.default_rng(0)
    fmri: list[Any] = list(rng.normal(size=(n_scans, 16, R)))
    upper = np.triu(rng.uniform(0, 1, size=(n_scans, R, R)), 1)
    sc: list[Any] = list(upper + upper.transpose(0, 2, 1))
    fmri[1], fmri[2], sc[3] = fmri[1][:6], None, None
    cohort = check_cohort(pd.DataFrame({"fmri": fmri, "sc": sc}))
    reader = ScanReader(cohort, None, None, ("fmri", "sc"), dtype=dtype)
    return WindowDataset(reader, WINDOW, targets=torch.arange(n_scans) % 2, **options)


def make_backbone(dropout: float = 0.0) -> BrainSymphony:
    generator = torch.Generator().manual_seed(0)
    return BrainSymphony(
        R,
        WINDOW,
        dim=8,
        depth=1,
        perceiver_depth=1,
        n_heads=2,
        structural_heads=2,
        mlp_dim=8,
        dropout=dropout,
        generator=generator,
    )


def make_classifier(dropout: float = 0.0) -> SupervisedTask:
    head = TaskHead(R, 8, 2, dropout=dropout)
    weight = head.readouts["fused"].weight
    torch.nn.init.normal_(weight, generator=torch.Generator())
    return SupervisedTask(make_backbone(dropout), head, kind="classification")


def make_masked(dropout: float = 0.0) -> MaskedTask:
    return MaskedTask(make_backbone(dropout), generator=torch.Generator())


def losses(net: Net) -> list[tuple[float, ...]]:
    return [(e["train_loss"], e.get("valid_loss", 0.0)) for e in net.history]


def assert_same_weights(one: nn.Module, two: nn.Module, atol: float = 0.0) -> None:
    others = two.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=atol, msg=name)


# Waiting for the device


class Waits(TorchDispatchMode):
    """Count operations whose result the host has to wait for on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.spared: set[int] = set()  # addresses of tensors that never leave the host

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        by_bool = func in (aten.index.Tensor, aten.index_put_.default) and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        waiting = func in (
            aten._local_scalar_dense.default,
            aten.nonzero.default,
            aten.masked_select.default,
            aten.equal.default,
        )
        if (by_bool or waiting) and args[0].data_ptr() not in self.spared:
            self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Transfers(TorchFunctionMode):
    """Count calls that bring values to the host and are invisible to dispatch there."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.cpu):  # numpy() refuses tensors on a GPU
            self.count[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_waits(task: nn.Module, n_batches: int) -> Counter[str]:
    """Return what the host waits for in a fit of two epochs of so many batches."""
    waits, transfers = Waits(), Transfers()

    def spare(net: Net, **_: Any) -> None:
        for state in net.optimizer_.state.values():  # AdamW counts steps on the host
            waits.spared.add(state["step"].data_ptr())

    callback = SkorchCallback()
    callback.on_batch_end = spare
    sets = make_set(n_batches * BATCH), make_set(n_batches * BATCH)
    with ExitStack() as stack:
        stack.enter_context(transfers)
        stack.enter_context(waits)
        train(task, *sets, settings=SETTINGS, seed=0, callbacks=[callback])
    return waits.count + transfers.count


@pytest.mark.parametrize("make", [make_classifier, make_masked])
def test_no_step_waits_for_the_device(make: Callable[..., nn.Module]) -> None:
    few, many = (count_waits(make(0.2), n_batches) for n_batches in (2, 5))
    assert few == many
    assert few["tolist"] >= 4  # the losses of two epochs, in training and validation


def test_what_counts_as_waiting() -> None:
    x, mask = torch.arange(3.0), torch.tensor([True, False, True])
    with Transfers() as transfers, Waits() as waits:
        x.sum().item()
        bool(mask.any())
        mask.nonzero()
        x[mask]
        x.tolist()
        x * 2
    assert sum(waits.count.values()) == 4
    assert sum(transfers.count.values()) == 1


def test_losses_come_over_once_and_stand_in_the_history_of_every_batch() -> None:
    train_set, valid_set = make_set(15), make_set(7)
    seen: list[tuple[bool, float]] = []

    def note(net: Net, training: bool, loss: Tensor, **_: Any) -> None:
        seen.append((training, loss.item()))

    callback = SkorchCallback()
    callback.on_batch_end = note
    net = train(
        make_classifier(),
        train_set,
        valid_set,
        settings=replace(SETTINGS, max_epochs=1),
        seed=0,
        callbacks=[callback],
    )
    epoch = net.history[-1]
    assert [b.get("train_loss") for b in epoch["batches"]][:3] == [
        loss for training, loss in seen if training
    ]
    assert [b.get("valid_loss") for b in epoch["batches"]][3:] == [
        loss for training, loss in seen if not training
    ]
    sizes = [b.get("train_batch_size") for b in epoch["batches"][:3]]
    assert sizes == [6, 6, 3]
    assert epoch["train_batch_count"] == 3
    expected = np.average([loss for t, loss in seen if t], weights=sizes)
    assert epoch["train_loss"] == expected


def test_predictions_wait_for_no_batch() -> None:
    task = make_classifier().eval()
    counts = []
    for n_scans in (6, 30):
        with Transfers() as transfers, Waits() as waits:
            loop = WindowLoop(3, "cpu")
            loop.average(task, make_set(n_scans), lambda batch: task(**batch))
        assert transfers.count["cpu"] == 1
        counts.append(waits.count)
    assert counts[0] == counts[1]


# Steps in parts


@pytest.mark.parametrize("size", [1, 2, 4, 5, 7])
def test_steps_in_parts_are_those_of_whole_batches(size: int) -> None:
    """12 scans per batch, so that parts may differ in size and lack a modality."""
    nets = []
    weights = torch.linspace(0.2, 1.8, 15, dtype=torch.float64)
    for micro_batch_size in (None, size):
        settings = replace(
            SETTINGS,
            max_epochs=3,
            batch_size=12,
            micro_batch_size=micro_batch_size,
            lr=1e-3,
        )
        sets = (make_set(15, np.float64, weights=weights) for _ in range(2))
        nets.append(train(make_classifier().double(), *sets, settings=settings, seed=0))
    np.testing.assert_allclose(losses(nets[1]), losses(nets[0]), rtol=0, atol=1e-12)
    assert_same_weights(nets[1].module_, nets[0].module_, atol=1e-10)
    assert losses(nets[0])[0] != losses(nets[0])[1]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_gradients_of_parts_add_up_to_that_of_the_batch(kind: str) -> None:
    weights = torch.linspace(0.2, 1.8, 12, dtype=torch.float64)
    dataset = make_set(12, np.float64, weights=weights)
    if kind == "regression":
        dataset.targets = torch.linspace(-1, 1, 12, dtype=torch.float64)
    batch = dataset.batch([(row, row % 3) for row in range(12)])
    gradients = []
    for size in (None, 5):
        task = make_classifier().double()
        if kind == "regression":
            head = TaskHead(R, 8, 1).double()
            torch.nn.init.ones_(head.readouts["fused"].weight)
            task = SupervisedTask(task.backbone, head, kind=kind)
        net = make_net(task, replace(SETTINGS, micro_batch_size=size))
        net.noise_ = torch.Generator()
        net.train_step_single(batch)
        gradients.append({n: p.grad for n, p in task.named_parameters()})
    for name, value in gradients[0].items():
        other = gradients[1][name]
        assert (value is None) == (other is None), name
        if value is not None:
            torch.testing.assert_close(other, value, rtol=0, atol=1e-12, msg=name)


def test_parts_are_one_step_of_schedule_clipping_and_optimizer() -> None:
    calls: list[tuple[str, float]] = []
    nets = []
    for size in (None, 2):
        calls.append(("fit", 0.0))

        def note(net: Net, **_: Any) -> None:
            calls.append(("clip", net.optimizer_.param_groups[0]["lr"]))

        callback = SkorchCallback()
        callback.on_grad_computed = note
        settings = replace(SETTINGS, micro_batch_size=size)
        nets.append(
            train(
                make_classifier(),
                make_set(12),
                settings=settings,
                seed=0,
                callbacks=[callback],
            )
        )
    assert calls[: len(calls) // 2] == calls[len(calls) // 2 :]
    steps = [
        {int(state["step"]) for state in net.optimizer_.state.values()} for net in nets
    ]
    assert steps == [{4}, {4}]


def test_a_part_as_large_as_the_batch_changes_no_bit() -> None:
    nets = [
        train(
            make_masked(0.2),
            make_set(12),
            settings=replace(SETTINGS, micro_batch_size=size),
            seed=0,
        )
        for size in (None, BATCH, 100, "auto")
    ]
    for net in nets[1:]:
        assert losses(net) == losses(nets[0])
        assert_same_weights(net.module_, nets[0].module_)


# Parts that fit into memory


def test_without_memory_scans_are_computed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bsym_sklearn.training.memory.free_bytes", lambda _: 0)
    settings = replace(SETTINGS, micro_batch_size="auto")
    net = train(make_masked(0.2), make_set(12), settings=settings, seed=0)
    assert net.micro_batch_.size == 1
    one_by_one = replace(SETTINGS, micro_batch_size=1)
    expected = train(make_masked(0.2), make_set(12), settings=one_by_one, seed=0)
    # measuring has drawn masks and dropout, and put the generator back
    assert losses(net) == losses(expected)


def test_a_step_without_memory_is_done_again_in_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small(MaskedTask):
        """Runs out of memory with more than two scans, as CUDA would."""

        def forward(self, fmri: Tensor, **inputs: Any) -> Any:
            predictions = super().forward(fmri, **inputs)
            if len(fmri) > 2 and self.training:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return predictions

    kind = Small(make_backbone(0.2), generator=torch.Generator())
    settings = replace(SETTINGS, micro_batch_size="auto")
    with pytest.warns(BrainSymphonyWarning) as caught:
        net = train(kind, make_set(12), settings=settings, seed=0)
    assert [str(w.message) for w in caught] == [
        "The device ran out of memory with 6 scans at once. Going on with 3; set "
        "`micro_batch_size` to begin with that.",
        "The device ran out of memory with 3 scans at once. Going on with 2; set "
        "`micro_batch_size` to begin with that.",
    ]
    settings = replace(SETTINGS, micro_batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = train(make_masked(0.2), make_set(12), settings=settings, seed=0)
    assert losses(net) == losses(expected)
    assert_same_weights(net.module_, expected.module_)
    for size in (None, 3):
        settings = replace(SETTINGS, micro_batch_size=size)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            train(kind, make_set(12), settings=settings, seed=0)
