from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bsym_sklearn.model.kernels.interface import TAPS
from bsym_sklearn.model.layers import initialize_weights
from bsym_sklearn.model.perceiver import RESIDUALS, RegionPerceiver
from bsym_sklearn.model.token_attention import LocalSignal

B, R, T, DIM, S, P = 2, 3, 7, 6, 4, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def build(**options: object) -> RegionPerceiver:
    sizes = {
        "dim": DIM,
        "depth": 2,
        "n_heads": 2,
        "mlp_dim": 8,
        "context_dim": S,
        "projection_dim": P,
    }
    perceiver = RegionPerceiver(R, T, **{**sizes, **options}).double().eval()
    initialize_weights(perceiver, torch.Generator().manual_seed(1))
    return perceiver


def streams(
    n_timepoints: int = T,
) -> tuple[Tensor, Tensor, LocalSignal, Tensor]:
    return (
        normal(B, R, DIM),
        normal(B, T, DIM, seed=2)[:, :n_timepoints],
        LocalSignal(
            normal(B, R, T, seed=3)[:, :, :n_timepoints],
            normal(S, TAPS, seed=5),
            normal(S, seed=6),
        ),
        normal(R, DIM, seed=4),
    )


@pytest.mark.parametrize("residual", RESIDUALS)
def test_perceiver_is_attention_over_projected_concatenated_tokens(
    residual: str,
) -> None:
    """The same written naively, with torch's own attention."""
    perceiver = build(residual=residual, depth=0)
    spatial, temporal, signal, positions = streams()
    context = nn.functional.conv1d(
        signal.series.flatten(0, 1).unsqueeze(1),
        signal.taps.unsqueeze(1),
        signal.bias,
        padding=TAPS // 2,
    )  # (B R, S, T)
    context = context.transpose(1, 2).unflatten(0, (B, R))
    parts = (
        perceiver.from_region(spatial)[:, :, None].expand(-1, -1, T, -1),
        perceiver.from_time(temporal)[:, None].expand(-1, R, -1, -1),
        perceiver.from_signal(context),
    )
    tokens = perceiver.token_norm(perceiver.join(torch.cat(parts, -1))).flatten(1, 2)
    attention = nn.MultiheadAttention(DIM, 2, batch_first=True).double()
    key_value = perceiver.key_value
    attention.in_proj_weight.data = torch.cat(
        [perceiver.query.weight, key_value.weight]
    )
    attention.in_proj_bias.data = torch.cat([perceiver.query.bias, key_value.bias])
    attention.out_proj = perceiver.out
    start = (perceiver.latents + positions).expand(B, -1, -1)
    if residual == "region":
        start = start + spatial
    mixed, weights = attention(start, tokens, tokens, average_attn_weights=False)
    if residual != "reference":
        mixed = mixed + start

    torch.testing.assert_close(perceiver(*streams()), perceiver.latent_norm(mixed))
    torch.testing.assert_close(
        perceiver.attention_map(*streams()), weights.unflatten(-1, (R, T)).sum(-1)
    )


def test_padding_equals_shorter_streams() -> None:
    perceiver = build()
    padding = (torch.arange(T) >= 4).expand(B, T)
    # beyond its end a series is zero, which the convolution sees
    spatial, temporal, signal, positions = streams()
    signal = signal._replace(series=signal.series.masked_fill(padding.unsqueeze(1), 0))
    padded = (spatial, temporal, signal, positions, padding)
    torch.testing.assert_close(
        perceiver(*padded), perceiver(*streams(4)), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        perceiver.attention_map(*padded),
        perceiver.attention_map(*streams(4)),
    )


def test_rows_of_the_map_sum_to_one() -> None:
    weights = build().attention_map(*streams())
    assert weights.shape == (B, 2, R, R)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, 2, R).double())


def test_reference_residual_almost_erases_regions_and_the_others_do_not() -> None:
    def similarity(residual: str) -> float:
        latents = build(residual=residual, depth=0)(*streams())
        return nn.functional.cosine_similarity(
            latents[0, 0], latents[0, 1], dim=0
        ).item()

    assert similarity("reference") > 0.9
    assert similarity("query") < 0.8
    assert similarity("region") < 0.8


def test_latents_are_decoded_into_series() -> None:
    assert build().decode(normal(B, R, DIM), normal(B, T, DIM)).shape == (B, T, R)


def test_unknown_residual_is_an_error() -> None:
    with pytest.raises(ValueError, match="`perceiver_residual` must be one of"):
        build(residual="other")
