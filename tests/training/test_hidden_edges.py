"""Edges are hidden, predicted and prepared without looking at what is hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model import BrainSymphony, TaskHead
from bsym_sklearn.training.masking import choose_edges, hide_edges, mask_edges
from bsym_sklearn.training.objectives import EDGE_RATIO, MaskedTask, SupervisedTask

B, R = 3, 12
OPTIONS: dict[str, Any] = {
    "edge_weights": "multi_hop",
    "structural_positions": "spectral",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def connectomes() -> Tensor:
    upper = torch.rand(B, R, R, generator=seeded(2), dtype=torch.float64).triu(1)
    return upper + upper.transpose(1, 2)


def build(**options: Any) -> BrainSymphony:
    model = BrainSymphony(
        R, modalities=("sc",), dim=8, depth=2, mlp_dim=10, dropout=0.0, **options
    )
    return model.double()


def prepared(model: BrainSymphony, sc: Tensor) -> dict[str, Tensor]:
    """Return what a reader computes scan by scan, as one batch."""
    assert model.sc is not None
    made = [model.sc.prepare(scan.numpy()) for scan in sc]
    return {
        name: torch.from_numpy(np.stack([one[name] for one in made]))
        for name in made[0]
    }


def draw_mask_by_hand(n_regions: int, ratio: float, seed: int) -> Tensor:
    """Return the mask (R, R) of the smallest of random numbers, one per edge."""
    row, column = np.triu_indices(n_regions, 1)
    noise = torch.rand(1, len(row), generator=seeded(seed)).numpy()[0]
    count = min(max(round(ratio * len(row)), 1), len(row) - 1)
    mask = np.zeros((n_regions, n_regions), dtype=bool)
    if ratio > 0 and len(row) > 1:
        chosen = np.argsort(noise)[:count]
        mask[row[chosen], column[chosen]] = True
    return torch.from_numpy(mask | mask.T)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n_regions=st.integers(1, 12),
    ratio=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 5),
)
def test_the_mask_hides_the_chosen_edges(
    n_regions: int, ratio: float, seed: int
) -> None:
    row, column = choose_edges(1, n_regions, ratio, seeded(seed))
    assert row.dtype == column.dtype == torch.int64
    assert (row < column).all()
    place = row * n_regions + column
    assert (place.diff(dim=1) > 0).all()  # sorted, each once
    mask = hide_edges(row, column, n_regions)
    assert torch.equal(mask, mask_edges(1, n_regions, ratio, seeded(seed)))
    assert torch.equal(mask[0], draw_mask_by_hand(n_regions, ratio, seed))
    assert torch.equal(torch.stack([row, column])[:, 0], mask[0].triu().nonzero().T)


def test_each_hidden_edge_is_judged_once_by_the_whole_prediction() -> None:
    model, sc = build(), connectomes()
    task = MaskedTask(model, generator=seeded()).train()
    task.generator = seeded(4)
    has_sc = torch.tensor([True, False, True])
    loss = task.loss(task(sc=sc, has_sc=has_sc), {})
    mask = mask_edges(B, R, EDGE_RATIO, seeded(4))
    assert model.sc is not None
    every = model.sc.edges(model.sc(sc, mask))
    errors = (every - sc)[mask.triu() & has_sc[:, None, None]].square()
    torch.testing.assert_close(loss, errors.mean(), rtol=1e-12, atol=0)


def test_what_was_prepared_does_not_reach_masked_predictions() -> None:
    model, sc = build(**OPTIONS), connectomes()
    task = MaskedTask(model, generator=seeded()).eval()
    ready = prepared(model, sc)
    assert ready.keys() == {"sc_hops", "sc_positions"}
    expected = task(sc=sc)["edges"].prediction
    assert torch.equal(task(sc=sc, **ready)["edges"].prediction, expected)
    hidden = mask_edges(B, R, EDGE_RATIO, task._generator(sc))
    changed = sc.masked_fill(hidden, 3.0)
    made = task(sc=changed, **prepared(model, changed))["edges"].prediction
    assert torch.equal(made, expected)


def test_what_was_prepared_is_used_where_nothing_is_hidden() -> None:
    model, sc = build(**OPTIONS), connectomes()
    head = TaskHead(R, 8, 2).double()
    for parameter in head.parameters():  # which starts at zero
        parameter.data.normal_(generator=seeded(6))
    task = SupervisedTask(model, head, kind="classification").eval()
    ready = prepared(model, sc)
    expected = task(sc=sc)
    torch.testing.assert_close(task(sc=sc, **ready), expected, rtol=0, atol=1e-12)
    other = {name: x.flip(1) for name, x in ready.items()}
    assert not torch.allclose(task(sc=sc, **other), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"edge_weights": "multi_hop"}])
def test_a_masked_step_waits_for_no_device(options: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    task = MaskedTask(build(**options), generator=seeded()).train().cuda()
    task.generator = torch.Generator("cuda").manual_seed(0)
    batch = {
        "sc": connectomes().cuda(),
        "has_sc": torch.tensor([1, 0, 1]).bool().cuda(),
    }
    task.loss(task(**batch), {}).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = task.loss(task(**batch), {})
        loss.backward()  # an operation that waits raises
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
