from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model.connectome import EDGE_WEIGHTS, hop_weights
from bsym_sklearn.model.layers import initialize_weights, set_generator, split_heads
from bsym_sklearn.model.structural import (
    STRUCTURAL_POSITIONS,
    SignedGraphAttention,
    SignedGraphBlock,
    StructuralStream,
)

B, R, DIM = 2, 5, 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def connectome(n_scans: int = B, n_regions: int = R, seed: int = 0) -> Tensor:
    """Return signed symmetric weights, some absent, zero diagonal."""
    upper = normal(n_scans, n_regions, n_regions, seed=seed).triu(1)
    upper = upper * (normal(n_scans, n_regions, n_regions, seed=seed + 1) > -0.4)
    return upper + upper.transpose(1, 2)


def attention(**options: str) -> SignedGraphAttention:
    module = SignedGraphAttention(DIM, 3, **options).double().eval()
    initialize_weights(module, torch.Generator().manual_seed(1))
    return module


# Attention


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n_scans=st.integers(1, 3),
    n_regions=st.integers(1, 6),
    signed=st.sampled_from(["reference", "continuous"]),
    absent_edges=st.sampled_from(["reference", "masked"]),
    kind=st.sampled_from(EDGE_WEIGHTS),
)
def test_attention_map_is_the_one_that_forward_applies(
    n_scans: int, n_regions: int, signed: str, absent_edges: str, kind: str
) -> None:
    module = attention(signed=signed, absent_edges=absent_edges)
    x = normal(n_scans, n_regions, DIM)
    edges = hop_weights(connectome(n_scans, n_regions), kind)
    weights = module.attention_map(x, edges)
    mixed = weights @ split_heads(module.value(x), 3)
    torch.testing.assert_close(
        module(x, edges), module.out(mixed.transpose(1, 2).flatten(2))
    )
    assert (weights.abs().sum(-1) <= 1 + 1e-12).all()


def test_absent_edges_take_no_share_when_masked() -> None:
    sc = connectome()
    sc[:, 0, 1:] = sc[:, 1:, 0] = 0
    sc[:, 0, 1] = sc[:, 1, 0] = 0.3
    x, edges = normal(B, R, DIM), sc.unsqueeze(1)
    masked = attention(absent_edges="masked").attention_map(x, edges).abs()
    torch.testing.assert_close(masked.sum(-1), torch.ones(B, 3, R).double())
    diluted = attention().attention_map(x, edges).abs()
    assert (diluted[:, :, 0].sum(-1) < 0.5).all()


@pytest.mark.parametrize("kind", ["first_hop", "multi_hop"])
def test_isolated_region_gives_finite_zeros_when_edges_are_masked(kind: str) -> None:
    sc = connectome()
    sc[:, 2] = sc[:, :, 2] = 0
    module = attention(absent_edges="masked")
    x = normal(B, R, DIM).requires_grad_()
    edges = hop_weights(sc, kind)
    assert (module.attention_map(x, edges)[:, :, 2] == 0).all()
    out = module(x, edges)
    torch.testing.assert_close(out[:, 2], module.out.bias.expand(B, DIM))
    out.sum().backward()
    assert x.grad.isfinite().all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(order=st.permutations(range(R)), kind=st.sampled_from(EDGE_WEIGHTS))
def test_regions_in_another_order_give_the_same_in_that_order(
    order: list[int], kind: str
) -> None:
    module = SignedGraphBlock(DIM, 3, 8).double().eval()
    x, sc = normal(B, R, DIM), connectome()
    first = module(x, hop_weights(sc, kind))
    shuffled = module(x[:, order], hop_weights(sc[:, order][:, :, order], kind))
    torch.testing.assert_close(shuffled, first[:, order], rtol=0, atol=1e-9)


# The stream

SIZES: dict[str, Any] = {"dim": DIM, "depth": 2, "n_heads": 3, "mlp_dim": 8}
every_option = pytest.mark.parametrize(
    "options",
    [
        {"edge_weights": kind, "max_hops": 3, "positions": positions}
        for kind in EDGE_WEIGHTS
        for positions in STRUCTURAL_POSITIONS
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)


def stream(n_regions: int = R, **options: Any) -> StructuralStream:
    """Return a stream whose every parameter has a value of its own, in float64."""
    module = StructuralStream(n_regions, **SIZES, **options)
    initialize_weights(module, torch.Generator().manual_seed(1))
    for seed, parameter in enumerate(module.parameters()):
        parameter.data += 0.3 * normal(*parameter.shape, seed=seed).float()
    return module.double()


def prepared(module: StructuralStream, sc: Tensor) -> dict[str, Tensor]:
    """Return what was computed scan by scan, as one batch."""
    made = [module.prepare(scan.numpy()) for scan in sc]
    return {
        name: torch.from_numpy(np.stack([one[name] for one in made]))
        for name in made[0]
    }


@every_option
def test_what_is_prepared_once_per_scan_changes_nothing(
    options: dict[str, Any],
) -> None:
    module, sc = stream(12, **options), connectome(3, 12)
    ready = prepared(module, sc)
    names = {"sc_hops", "sc_positions"}
    if options["edge_weights"] == "first_hop":
        names.remove("sc_hops")
    if options["positions"] == "learned":
        names.remove("sc_positions")
    assert ready.keys() == names
    assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
    assert_close(module(sc, **ready), module(sc))
    assert_close(module.attention_maps(sc, **ready), module.attention_maps(sc))


@every_option
def test_what_is_prepared_tells_nothing_of_hidden_edges(
    options: dict[str, Any],
) -> None:
    module, sc = stream(12, **options), connectome(3, 12)
    mask = connectome(3, 12, seed=5) > 0.5
    assert mask.any()
    expected, maps = module(sc, mask), module.attention_maps(sc, mask)
    for scale in (1, 50):  # what was prepared knows every edge, or those of another
        ready = prepared(module, scale * sc)
        assert torch.equal(module(sc, mask, **ready), expected)
        assert torch.equal(module.attention_maps(sc, mask, **ready), maps)


@every_option
def test_a_connectome_that_is_hidden_altogether_is_not_seen(
    options: dict[str, Any],
) -> None:
    module, mask = stream(**options), torch.ones(B, R, R, dtype=torch.bool)
    sc = connectome().requires_grad_()
    out = module(sc, mask)
    assert out.isfinite().all()
    assert torch.equal(out, module(1e4 * sc, mask))
    gradients = torch.autograd.grad(out.sum(), list(module.blocks.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_what_prepares_needs_no_weights_in_reading_processes() -> None:
    prepare = stream(positions="spectral", edge_weights="multi_hop").prepare
    copied = pickle.loads(pickle.dumps(prepare))  # noqa: S301, as processes do
    sc = connectome()[0].numpy()
    assert len(pickle.dumps(prepare)) < 500
    for name, expected in prepare(sc).items():
        np.testing.assert_array_equal(copied(sc)[name], expected)


def test_dropout_acts_on_both_branches() -> None:
    block = SignedGraphBlock(DIM, 3, 8, dropout=0.5).double()
    set_generator(block, torch.Generator().manual_seed(0))
    x, edges = normal(B, R, DIM), connectome().unsqueeze(1)
    seen: list[Tensor] = []
    block.attention_norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(x, edges)
    added, branch = seen[0] - x, block.attention(x, edges)
    dropped = added == 0
    assert 0.2 < dropped.double().mean() < 0.8
    torch.testing.assert_close(added[~dropped], 2 * branch[~dropped])
    torch.testing.assert_close(block.eval()(x, edges), block(x, edges))


@pytest.mark.parametrize("kind", EDGE_WEIGHTS)
def test_mixed_precision_keeps_its_statistics_in_single(kind: str) -> None:
    options = {"edge_weights": kind, "positions": "spectral"}
    options |= {"signed_attention": "continuous", "absent_edges": "masked"}
    module, sc = stream(20, **options).float(), connectome(2, 20).float()
    expected = module(sc)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module(sc)
        weights = module.edges(mixed)
        mixed.float().square().mean().backward()  # inside: in the same precision
    assert (mixed - expected).abs().max() < 0.1 * expected.abs().max()
    assert weights.isfinite().all()
    gradients = [p.grad for p in module.blocks.parameters()]
    assert all(g.isfinite().all() and g.any() for g in gradients)


def test_the_stream_is_one_graph_for_the_compiler() -> None:
    module, sc = stream(), connectome()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    (compiled(sc).square().sum()).backward()
    gradients = [p.grad.clone() for p in module.blocks.parameters()]
    module.zero_grad()
    module(sc).square().sum().backward()
    for ours, expected in zip(gradients, module.blocks.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.grad)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("edge_weights", "edge_weights"),
        ("positions", "structural_positions"),
        ("signed_attention", "signed_attention"),
        ("absent_edges", "absent_edges"),
        ("edge_symmetry", "edge_symmetry"),
    ],
)
def test_unknown_option_is_an_error(option: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be one of"):
        StructuralStream(R, dim=DIM, depth=1, n_heads=3, mlp_dim=8, **{option: "other"})
