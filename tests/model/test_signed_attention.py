"""The maps that are never built give what the plain formula gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model import signed_attention as module
from bsym_sklearn.model.signed_attention import (
    ABSENT_EDGES,
    SIGNED_ATTENTION,
    signed_attention,
    signed_map,
    signed_softmax,
)

B, R = 2, 5
every_option = pytest.mark.parametrize(
    "options",
    [
        {"signed": signed, "absent_edges": absent_edges}
        for signed in SIGNED_ATTENTION
        for absent_edges in ABSENT_EDGES
    ],
    ids=lambda options: "-".join(options.values()),
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw(
    n_scans: int, n_hops: int, n_heads: int, n_regions: int, n_channels: int
) -> list[Tensor]:
    """Return queries, keys, values and edges, of which a third is absent."""
    shape = (n_scans, n_heads, n_regions, n_channels)
    edges = normal(n_scans, n_hops, n_regions, n_regions, seed=3)
    edges = edges * (normal(*edges.shape, seed=4) > -0.4)
    return [*(normal(*shape, seed=seed) for seed in range(3)), edges]


def plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: Tensor,
    *,
    signed: str,
    absent_edges: str,
) -> Tensor:
    """Return the formula as it is written, maps and all."""
    score = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    hops = []
    for hop in edges.unsqueeze(2).unbind(1):
        magnitude = (score * hop).abs()
        raised = magnitude.exp()
        weight = raised - 1 if signed == "continuous" else raised
        if absent_edges == "masked":
            raised = raised * (hop != 0)
        total = raised.sum(-1, keepdim=True)
        share = weight / torch.where(total == 0, 1, total)
        hops.append((score * hop).sign() * share @ value)
    return sum(hops) / len(hops)


def gradients(
    function: Any, inputs: list[Tensor], **options: str
) -> tuple[Tensor, ...]:
    """Return the output and the gradients of a weighted sum of it."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    weight = normal(*out.shape, seed=9).to(out)
    return (out.detach(), *torch.autograd.grad((out * weight).sum(), inputs))


def softmax(score: Tensor, signed: str = "reference") -> Tensor:
    return signed_softmax(score, score == 0, signed=signed, absent_edges="reference")


def official_map(score: Tensor) -> Tensor:
    """Return the released formula, as written there."""
    magnitude = torch.exp(torch.abs(score))
    total = torch.sum(magnitude, dim=-1, keepdim=True) + 1e-10
    return torch.sign(score) * magnitude / total


# The formula


@settings(max_examples=30, deadline=None, derandomize=True)
@given(scale=st.floats(0, 20))
def test_stable_form_equals_the_official_formula(scale: float) -> None:
    score = scale * normal(B, 3, R, R)
    ours = softmax(score)
    torch.testing.assert_close(ours, official_map(score), rtol=0, atol=1e-9)


def test_stable_form_is_finite_where_the_official_formula_overflows() -> None:
    score = 1e4 * normal(B, 3, R, R).float()
    assert not official_map(score).isfinite().all()
    for signed in ("reference", "continuous"):
        ours = softmax(score, signed)
        assert ours.isfinite().all()


def test_only_continuous_attention_is_continuous_at_zero() -> None:
    score = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    score[..., 1] = 0.5
    step = torch.zeros_like(score)
    step[..., 0] = 1e-9

    def jump(signed: str) -> float:
        above, below = (softmax(score + sign * step, signed) for sign in (1, -1))
        return (above - below).abs().max().item()

    assert jump("continuous") < 1e-8
    assert jump("reference") > 0.1


def test_continuous_attention_is_that_formula() -> None:
    score = normal(1, 1, R, R)
    expected = (
        score.sign() * (score.abs().exp() - 1) / score.abs().exp().sum(-1, keepdim=True)
    )
    ours = softmax(score, "continuous")
    torch.testing.assert_close(ours, expected)


# The same without maps

sizes = {
    "n_scans": st.integers(1, 4),
    "n_hops": st.integers(1, 3),
    "n_heads": st.integers(1, 3),
    "n_regions": st.integers(1, 9),
    "n_channels": st.integers(1, 4),
}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    **sizes,
    signed=st.sampled_from(SIGNED_ATTENTION),
    absent_edges=st.sampled_from(ABSENT_EDGES),
    n_bytes=st.sampled_from([1, 200, 2000, 1 << 20]),
)
def test_output_and_gradients_are_those_of_the_formula(
    signed: str, absent_edges: str, n_bytes: int, **size: int
) -> None:
    inputs, options = draw(**size), {"signed": signed, "absent_edges": absent_edges}
    expected = gradients(plain, inputs, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_BYTES", n_bytes)  # rows, scans, or all at once
        ours = gradients(signed_attention, inputs, **options)
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(**sizes, absent_edges=st.sampled_from(ABSENT_EDGES))
def test_single_precision_is_close(absent_edges: str, **size: int) -> None:
    # "reference" jumps where a score rounds to the other sign
    options = {"signed": "continuous", "absent_edges": absent_edges}
    inputs = draw(**size)
    expected = gradients(plain, inputs, **options)
    ours = gradients(signed_attention, [x.float() for x in inputs], **options)
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-4, atol=1e-5)


@every_option
def test_the_map_on_request_is_the_one_that_is_applied(options: dict[str, str]) -> None:
    query, key, value, edges = draw(2, 2, 3, 7, 4)
    mixed = signed_map(query, key, edges, **options) @ value
    ours = signed_attention(query, key, value, edges, **options)
    torch.testing.assert_close(ours, mixed, rtol=0, atol=1e-12)


@every_option
@pytest.mark.parametrize("wanted", [(0, 1, 2), (0, 1, 2, 3), (3,)])
def test_gradients_are_those_of_finite_differences(
    options: dict[str, str], wanted: tuple[int, ...]
) -> None:
    shape = (2, 2, 3, 2)
    # far from the scores at which "reference" jumps
    query, key = (1 + 0.3 * normal(*shape, seed=i).tanh() for i in range(2))
    edges = 1 + normal(2, 2, 3, 3, seed=3).abs()
    inputs = [query, key, normal(*shape, seed=2), edges]
    for i in wanted:
        inputs[i].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: signed_attention(*x, **options), inputs, fast_mode=False
    )


@every_option
def test_a_region_without_edges_and_a_scan_without_edges(
    options: dict[str, str],
) -> None:
    query, key, value, edges = draw(3, 1, 2, 6, 4)
    edges[0, :, 2], edges[0, :, :, 2] = 0, 0
    edges[1] = 0
    out, *slopes = gradients(signed_attention, [query, key, value, edges], **options)
    assert (out[0, :, 2] == 0).all()
    assert (out[1] == 0).all()
    assert out[2].all()
    assert all(slope.isfinite().all() for slope in slopes)
    expected = gradients(plain, [query, key, value, edges], **options)
    for left, right in zip((out, *slopes), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-9)


@every_option
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unscaled_counts_give_no_nan(
    options: dict[str, str], dtype: torch.dtype
) -> None:
    *inputs, edges = (x.to(dtype) for x in draw(2, 2, 2, 8, 4))
    everything = gradients(signed_attention, [*inputs, 1e4 * edges], **options)
    assert all(x.isfinite().all() for x in everything)
    assert (everything[0].abs() <= inputs[2].abs().amax((2, 3), True) * 1.001).all()


@every_option
def test_half_precision_is_computed_in_single(options: dict[str, str]) -> None:
    inputs = [x.bfloat16() for x in draw(2, 2, 2, 8, 4)]
    expected = gradients(signed_attention, [x.float() for x in inputs], **options)
    ours = gradients(signed_attention, inputs, **options)
    assert all(x.dtype == torch.bfloat16 for x in ours)
    torch.testing.assert_close(ours[0], expected[0].bfloat16())
    for left, right in zip(ours[1:], expected[1:], strict=True):
        torch.testing.assert_close(left.float(), right, rtol=0.02, atol=0.02)


@every_option
def test_it_is_one_graph_for_the_compiler(options: dict[str, str]) -> None:
    inputs = draw(2, 2, 2, 6, 4)
    compiled = torch.compile(signed_attention, backend="aot_eager", fullgraph=True)
    expected = gradients(signed_attention, inputs, **options)
    for left, right in zip(
        gradients(compiled, inputs, **options), expected, strict=True
    ):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_pieces_cover_every_row_once_and_stay_below_the_limit() -> None:
    for shape in [(1, 4, 450, 32), (16, 4, 80, 8), (3, 2, 1, 4), (2, 4, 1000, 32)]:
        query = torch.empty(shape)
        n_scans, n_heads, n_regions, _ = shape
        seen = torch.zeros(n_scans, n_regions, dtype=torch.int)
        for piece in module._pieces(query):
            seen[piece] += 1
            assert 4 * n_heads * n_regions * seen[piece].numel() <= module.CPU_BYTES
        assert (seen == 1).all()


def test_a_second_derivative_is_refused() -> None:
    query, key, value, edges = draw(1, 1, 1, 3, 2)
    query.requires_grad_()
    out = signed_attention(query, key, value, edges).square().sum()
    (slope,) = torch.autograd.grad(out, query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
