from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model.layers import initialize_weights, split_heads
from bsym_sklearn.model.structural import (
    EDGE_WEIGHTS,
    N_SPECTRAL,
    EdgePredictor,
    SignedGraphAttention,
    SignedGraphBlock,
    StructuralStream,
    hop_weights,
    spectral_coordinates,
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


def official_map(score: Tensor) -> Tensor:
    """Return the released formula, as written there."""
    magnitude = torch.exp(torch.abs(score))
    total = torch.sum(magnitude, dim=-1, keepdim=True) + 1e-10
    return torch.sign(score) * magnitude / total


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


@settings(max_examples=30, deadline=None, derandomize=True)
@given(scale=st.floats(0, 20))
def test_stable_form_equals_the_official_formula(scale: float) -> None:
    score = scale * normal(B, 3, R, R)
    ours = attention()._signed_softmax(score, score == 0)
    torch.testing.assert_close(ours, official_map(score), rtol=0, atol=1e-9)


def test_stable_form_is_finite_where_the_official_formula_overflows() -> None:
    score = 1e4 * normal(B, 3, R, R).float()
    assert not official_map(score).isfinite().all()
    for signed in ("reference", "continuous"):
        ours = attention(signed=signed)._signed_softmax(score, score == 0)
        assert ours.isfinite().all()


def test_only_continuous_attention_is_continuous_at_zero() -> None:
    score = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    score[..., 1] = 0.5
    step = torch.zeros_like(score)
    step[..., 0] = 1e-9

    def jump(signed: str) -> float:
        module = attention(signed=signed)
        above, below = (
            module._signed_softmax(score + sign * step, score == 0) for sign in (1, -1)
        )
        return (above - below).abs().max().item()

    assert jump("continuous") < 1e-8
    assert jump("reference") > 0.1


def test_continuous_attention_is_that_formula() -> None:
    score = normal(1, 1, R, R)
    expected = (
        score.sign() * (score.abs().exp() - 1) / score.abs().exp().sum(-1, keepdim=True)
    )
    ours = attention(signed="continuous")._signed_softmax(score, score == 0)
    torch.testing.assert_close(ours, expected)


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


# Edges


def test_hops_are_normalised_powers() -> None:
    sc = connectome()
    hops = hop_weights(sc, "multi_hop", max_hops=3)
    first = sc[0].numpy()
    second = first @ first
    second /= np.linalg.norm(second)
    third = second @ first
    third /= np.linalg.norm(third)
    for k, expected in enumerate([first, second, third]):
        np.testing.assert_allclose(hops[0, k].numpy(), expected, atol=1e-7)


def test_diffusion_is_a_truncated_series() -> None:
    sc = connectome()
    scale = np.diag(1 / np.sqrt(np.abs(sc[0].numpy()).sum(1)))
    step = 0.1 * scale @ sc[0].numpy() @ scale
    expected = sum(np.linalg.matrix_power(step, k) for k in range(10))
    ours = hop_weights(sc, "diffusion")[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # summed in float32


@pytest.mark.parametrize("kind", EDGE_WEIGHTS)
def test_empty_connectome_gives_finite_hops(kind: str) -> None:
    assert hop_weights(torch.zeros(1, R, R), kind).isfinite().all()


def test_predicted_edges_are_symmetric_only_on_request() -> None:
    x = normal(B, R, DIM)
    for symmetry, expected in (("symmetric", True), ("reference", False)):
        predictor = EdgePredictor(DIM, symmetry).double()
        initialize_weights(predictor, torch.Generator().manual_seed(1))
        weights = predictor(x)
        assert torch.allclose(weights, weights.transpose(1, 2)) is expected


def test_edges_between_chosen_regions_are_those_of_the_whole_matrix() -> None:
    x = normal(B, R, DIM)
    for symmetry in ("symmetric", "reference"):
        predictor = EdgePredictor(DIM, symmetry).double()
        weights = predictor(x)
        i, j = torch.triu_indices(R, R, 1)
        torch.testing.assert_close(
            predictor.between(x[:, i], x[:, j]), weights[:, i, j]
        )


# Positions


def ring(n_regions: int) -> Tensor:
    """Return a connectome in which each region resembles its neighbours on a ring."""
    place = torch.arange(n_regions, dtype=torch.float64)
    distance = (place[:, None] - place).abs()
    distance = torch.minimum(distance, n_regions - distance)
    # Not quite regular, so that no two eigenvalues are equal.
    return (torch.exp(-distance) + 0.01 * connectome(1, n_regions)[0])[None]


def test_spectral_positions_are_smooth_and_the_released_ones_rough() -> None:
    sc = ring(40)

    def roughness(order: str) -> float:
        first = spectral_coordinates(sc, order)[0, :, 0]
        return (first - first.roll(1)).square().sum().item()

    assert roughness("spectral") < 0.1
    assert roughness("reference") > 1


def test_spectral_positions_are_orthonormal_with_a_fixed_sign_and_no_constant() -> None:
    for order in ("spectral", "reference"):
        table = spectral_coordinates(ring(40), order)[0]
        assert table.shape == (40, N_SPECTRAL)
        torch.testing.assert_close(
            table.T @ table, torch.eye(N_SPECTRAL).double(), rtol=0, atol=1e-9
        )
        peak = table.gather(0, table.abs().argmax(0, keepdim=True))
        assert (peak > 0).all()
    assert spectral_coordinates(ring(40))[0].std(0).min() > 0.05


def test_spectral_positions_of_few_regions_are_filled_with_zeros() -> None:
    table = spectral_coordinates(connectome())
    assert table.shape == (B, R, N_SPECTRAL)
    assert table[:, :, : R - 1].any()
    assert not table[:, :, R - 1 :].any()


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
