"""Chosen edges are entries of the whole matrix, for the same memory or less."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model import edges as module
from bsym_sklearn.model.edges import EDGE_SYMMETRY, EdgePredictor
from bsym_sklearn.model.layers import initialize_weights

B, R, DIM = 2, 5, 6
every_symmetry = pytest.mark.parametrize("symmetry", EDGE_SYMMETRY)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def build(symmetry: str = "reference") -> EdgePredictor:
    predictor = EdgePredictor(DIM, symmetry).double()
    initialize_weights(predictor, torch.Generator().manual_seed(1))
    return predictor


def draw_pairs(n_scans: int, n_edges: int, n_regions: int) -> tuple[Tensor, Tensor]:
    """Return regions of edges, some more than once."""
    generator = torch.Generator().manual_seed(2)
    pairs = torch.randint(n_regions, (2, n_scans, n_edges), generator=generator)
    return pairs[0], pairs[1]


def plain(predictor: EdgePredictor, x: Tensor) -> Tensor:
    """Return all weights (B, R, R) from concatenated embeddings, as released."""
    n = x.shape[1]
    left = x.unsqueeze(2).expand(-1, n, n, -1)

    def net(left: Tensor, right: Tensor) -> Tensor:
        hidden = predictor.pair(torch.cat([left, right], dim=-1)).relu()
        return predictor.rest[3](predictor.rest[1](hidden).relu()).squeeze(-1)

    weight = net(left, left.transpose(1, 2))
    if predictor.symmetry == "symmetric":
        weight = (weight + net(left.transpose(1, 2), left)) / 2
    return weight


def gradients(
    predictor: EdgePredictor, x: Tensor, weight: Tensor
) -> tuple[Tensor, ...]:
    """Return `weight` and the gradients of a weighted sum of it."""
    inputs = [x, *predictor.parameters()]
    loss = (weight * normal(*weight.shape, seed=7)).sum()
    return (weight.detach(), *torch.autograd.grad(loss, inputs))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n_scans=st.integers(1, 4),
    n_regions=st.integers(1, 7),
    n_edges=st.integers(1, 30),
    symmetry=st.sampled_from(EDGE_SYMMETRY),
    n_vectors=st.sampled_from([1, 3, 20, 10_000]),
)
def test_edges_and_gradients_are_those_of_the_concatenation(
    n_scans: int, n_regions: int, n_edges: int, symmetry: str, n_vectors: int
) -> None:
    predictor = build(symmetry)
    x = normal(n_scans, n_regions, DIM).requires_grad_()
    row, column = draw_pairs(n_scans, n_edges, n_regions)
    scan = torch.arange(n_scans).unsqueeze(1)
    every = plain(predictor, x)
    expected = gradients(predictor, x, every)
    expected_chosen = gradients(predictor, x, plain(predictor, x)[scan, row, column])
    with pytest.MonkeyPatch.context() as patch:  # one piece, parts of scans, scans
        patch.setattr(module, "CPU_BYTES", n_vectors * 512 * 8)
        ours = gradients(predictor, x, predictor(x))
        chosen = gradients(predictor, x, predictor.pairs(x, row, column))
    for left, right in zip(ours + chosen, expected + expected_chosen, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def test_predicted_edges_are_symmetric_only_on_request() -> None:
    x = normal(B, R, DIM)
    for symmetry, expected in (("symmetric", True), ("reference", False)):
        weights = build(symmetry)(x)
        assert torch.allclose(weights, weights.transpose(1, 2)) is expected


@every_symmetry
def test_no_edges_are_no_weights(symmetry: str) -> None:
    x = normal(B, R, DIM).requires_grad_()
    none = torch.zeros(B, 0, dtype=torch.int64)
    weights = build(symmetry).pairs(x, none, none)
    assert weights.shape == (B, 0)
    assert weights.dtype == x.dtype


@every_symmetry
def test_choosing_edges_is_one_graph_for_the_compiler(
    symmetry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_BYTES", 3 * 512 * 8)
    predictor = build(symmetry)
    x = normal(B, R, DIM).requires_grad_()
    row, column = draw_pairs(B, 8, R)
    compiled = torch.compile(predictor.pairs, backend="aot_eager", fullgraph=True)
    ours = gradients(predictor, x, compiled(x, row, column))
    expected = gradients(predictor, x, predictor.pairs(x, row, column))
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right)
