from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.model.functional import (
    MAX_CORRELATION,
    BrainStates,
    ContextStream,
    FMRIInput,
    GradientPositions,
    SpatialStream,
    TemporalStream,
    connectivity_profiles,
)

R, T, DIM = 4, 9, 6
SIZES = {"dim": DIM, "depth": 2, "n_heads": 2, "mlp_dim": 7}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def fisher_z(series: np.ndarray) -> np.ndarray:
    """Return numpy's answer for a (T, R) array, zero diagonal."""
    correlation = np.corrcoef(series.T)
    np.fill_diagonal(correlation, 0)
    return np.arctanh(np.clip(correlation, -MAX_CORRELATION, MAX_CORRELATION))


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter a value of its own, the tokens that start at zero too."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.4, generator=generator)
    return module.double().eval()


# FMRIInput


def test_what_is_hidden_is_told_apart_from_padding() -> None:
    mask = torch.zeros(1, 3, 2, dtype=torch.bool)
    mask[0, :, 0] = True  # a whole region, padding or not
    mask[0, 1, 1] = True  # with it a whole time point
    padding = torch.tensor([[False, False, True]])
    inputs = FMRIInput(torch.full((1, 3, 2), 7.0), mask, padding)
    assert inputs.series.tolist() == [[[0, 7], [0, 0], [0, 0]]]
    assert inputs.visible.tolist() == [[[0, 1], [0, 0], [0, 0]]]
    assert inputs.hidden[0, 2].tolist() == [False, False]
    assert inputs.hidden_regions.tolist() == [[True, False]]
    assert inputs.hidden_times.tolist() == [[False, True, False]]


def test_region_that_is_hidden_wherever_time_exists_is_hidden() -> None:
    mask = torch.tensor([[[True], [False]]])
    padding = torch.tensor([[False, True]])
    assert FMRIInput(torch.ones(1, 2, 1), mask, padding).hidden_regions.all()


# Connectivity


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n_regions=st.integers(2, 5), n_timepoints=st.integers(3, 12), cut=st.booleans())
def test_connectivity_is_that_of_numpy_on_visible_points(
    n_regions: int, n_timepoints: int, cut: bool
) -> None:
    series = normal(2, n_timepoints, n_regions)
    mask = torch.zeros_like(series, dtype=torch.bool)
    padding = torch.zeros(2, n_timepoints, dtype=torch.bool)
    if cut and n_timepoints > 5:
        mask[:, 1] = True
        padding[:, -2:] = True
    seen = ~(mask.any(-1) | padding)
    profiles = connectivity_profiles(FMRIInput(series, mask, padding))
    for i in range(2):
        expected = fisher_z(series[i, seen[i]].numpy())
        np.testing.assert_allclose(profiles[i].numpy(), expected, atol=1e-9)


def test_connectivity_of_partly_hidden_regions_uses_pairs_that_are_both_seen() -> None:
    series = normal(1, 20, 3)
    mask = normal(1, 20, 3, seed=1) > 0.5
    x, seen = series[0].numpy(), ~mask[0].numpy()
    profiles = connectivity_profiles(FMRIInput(series, mask))[0].numpy()
    for i, j in [(0, 1), (1, 2)]:
        both = seen[:, i] & seen[:, j]
        centred = [x[:, k] - x[seen[:, k], k].mean() for k in (i, j)]
        covariance = (centred[0] * centred[1])[both].mean()
        r = covariance / (x[seen[:, i], i].std() * x[seen[:, j], j].std())
        assert profiles[i, j] == pytest.approx(np.arctanh(r))


def test_constant_or_hidden_region_has_no_connectivity() -> None:
    series = normal(1, 15, 4)
    series[..., 1] = 0.1  # not exact in binary: its variance is not exactly zero
    mask = torch.zeros_like(series, dtype=torch.bool)
    mask[..., 2] = True
    profiles = connectivity_profiles(FMRIInput(series.float(), mask))[0]
    assert (profiles[1:3] == 0).all()
    assert (profiles[:, 1:3] == 0).all()
    assert profiles[0, 3] != 0


def test_connectivity_has_finite_gradients_where_it_is_clipped_or_absent() -> None:
    series = normal(1, 10, 4)
    series[..., 1] = series[..., 0]
    series[..., 2] = 0
    series.requires_grad_()
    connectivity_profiles(FMRIInput(series)).square().sum().backward()
    assert series.grad.isfinite().all()


# Streams


@pytest.mark.parametrize("tokens", ["series", "connectivity", "both"])
def test_hidden_region_is_replaced_by_the_mask_token(tokens: str) -> None:
    stream = randomised(SpatialStream(R, T, **SIZES, tokens=tokens))
    mask = torch.zeros(1, T, R, dtype=torch.bool)
    mask[..., 2] = True
    hidden = FMRIInput(normal(1, T, R), mask)
    embedded = stream._embed(hidden)
    expected = stream.mask_token + stream.positions.vectors()[2]
    torch.testing.assert_close(embedded[0, 2], expected)


def test_padded_temporal_stream_is_the_unpadded_one() -> None:
    stream = randomised(TemporalStream(R, **SIZES))
    series = normal(1, T, R)
    padding = torch.arange(T)[None] >= 5
    torch.testing.assert_close(
        stream(FMRIInput(series, None, padding))[:, :5],
        stream(FMRIInput(series[:, :5])),
        rtol=0,
        atol=1e-12,
    )


def test_padded_context_stream_is_the_unpadded_one() -> None:
    stream = randomised(ContextStream(3))
    series = normal(2, T, R)
    padding = torch.arange(T).expand(2, T) >= 5
    torch.testing.assert_close(
        stream(FMRIInput(series, None, padding))[:, :, :5],
        stream(FMRIInput(series[:, :5])),
        rtol=0,
        atol=1e-12,
    )


def test_context_stream_sees_five_time_points_of_one_region() -> None:
    stream = randomised(ContextStream(3))
    series = normal(1, T, R).requires_grad_()
    stream(FMRIInput(series))[0, 1, 4].sum().backward()
    reached = series.grad[0].abs() > 0
    assert reached[:, 1].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    assert not reached[:, [0, 2, 3]].any()


def test_context_decoder_gives_one_value_per_point() -> None:
    stream = ContextStream(3)
    assert stream.decode(torch.zeros(2, R, T, 3)).shape == (2, T, R)


def test_gradient_positions_of_a_group_are_those_of_each_scan() -> None:
    positions = randomised(GradientPositions(R, 3, DIM))
    x, coordinates = normal(2, R, DIM), normal(R, 3)
    positions.coordinates = coordinates
    group = positions(x)
    positions.coordinates = coordinates.expand(2, R, 3)
    torch.testing.assert_close(positions(x), group)


# States of the whole brain

TOKENS = [
    {"tokens": tokens, "kernel": kernel, "n_states": 7}
    for tokens in ("linear", "states")
    for kernel in (1, 3, 5)
]
every_token = pytest.mark.parametrize(
    "options", TOKENS, ids=lambda x: f"{x['tokens']} {x['kernel']}"
)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_state_is_a_normalised_map_of_neighbouring_time_points(kernel: int) -> None:
    states, series = randomised(BrainStates(R, 7, kernel)), normal(2, T, R)
    near = kernel // 2
    padded = np.pad(series.numpy(), ((0, 0), (near, near), (0, 0)))
    weight, bias = (x.detach().numpy() for x in states.embed.parameters())
    x = bias + sum(padded[:, k : T + k] @ weight[:, :, k].T for k in range(kernel))
    scale, shift = (x.detach().numpy() for x in states.norm.parameters())
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    expected = np.maximum(scale * x + shift, 0)
    np.testing.assert_allclose(states(series).detach(), expected, rtol=0, atol=1e-12)


@every_token
def test_padding_is_a_shorter_series(options: dict[str, object]) -> None:
    stream = randomised(TemporalStream(R, **SIZES, **options))
    series = normal(2, T, R)
    padding = (torch.arange(T) >= 5).expand(2, T)
    garbage = series.masked_fill(padding.unsqueeze(2), torch.nan)
    long, short = FMRIInput(garbage, None, padding), FMRIInput(series[:, :5])
    made, expected = stream(long)[:, :5], stream(short)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    if stream.states is not None:
        made, expected = stream.brain_states(long)[:, :5], stream.brain_states(short)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)


@every_token
def test_a_token_is_made_of_its_neighbours(options: dict[str, object]) -> None:
    stream = randomised(TemporalStream(R, **SIZES, **options))
    series = normal(1, T, R).requires_grad_()
    stream._embed(FMRIInput(series))[0, 4].square().sum().backward()
    reached = series.grad[0].abs().sum(1).nonzero().flatten().tolist()
    near = options["kernel"] // 2
    assert reached == list(range(4 - near, 5 + near))


@every_token
def test_hidden_values_reach_no_token(options: dict[str, object]) -> None:
    stream = randomised(TemporalStream(R, **SIZES, **options))
    series = normal(2, T, R)
    mask = normal(2, T, R, seed=1) > 0.5
    mask[:, 3] = True
    made = []
    for value in (0.0, torch.nan):
        inputs = FMRIInput(series.masked_fill(mask, value), mask)
        states = stream.brain_states(inputs)
        made.append((stream(inputs), states))
        if states is not None:
            torch.testing.assert_close(stream(inputs, states), stream(inputs))
    assert torch.equal(made[0][0], made[1][0])
    assert (made[0][1] is None) == (options["tokens"] == "linear")
    if made[0][1] is not None:
        assert torch.equal(made[0][1], made[1][1])


def test_published_tokens_are_a_linear_map() -> None:
    stream = randomised(TemporalStream(R, **SIZES))
    assert isinstance(stream.embed, torch.nn.Linear)
    assert stream.states is None
    assert stream.brain_states(FMRIInput(normal(1, T, R))) is None
    again = TemporalStream(R, **SIZES, tokens="linear", kernel=1)
    again.load_state_dict(stream.state_dict())
    inputs = FMRIInput(normal(1, T, R))
    assert torch.equal(again.double()(inputs), stream(inputs))


@pytest.mark.parametrize("kernel", [0, 2, -1])
def test_a_token_needs_as_many_time_points_on_both_sides(kernel: int) -> None:
    with pytest.raises(ValueError, match=f"must be odd and at least 1. Got {kernel}"):
        TemporalStream(R, **SIZES, tokens="states", kernel=kernel)


def test_unknown_temporal_tokens_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"`temporal_tokens` must be one of"):
        TemporalStream(R, **SIZES, tokens="connectivity")


@pytest.mark.parametrize("option", ["tokens", "positions"])
def test_unknown_option_is_an_error(option: str) -> None:
    with pytest.raises(ValueError, match=f"`(spatial_)?{option}` must be one of"):
        SpatialStream(R, T, **SIZES, **{option: "other"})


def test_connectivity_is_as_exact_under_autocast() -> None:
    """bfloat16 counts 600 time points as 600, but 601 as 600."""
    generator = torch.Generator().manual_seed(0)
    series = torch.randn(1, 601, 4, generator=generator)
    expected = connectivity_profiles(FMRIInput(series))
    with torch.autocast("cpu", torch.bfloat16):
        got = connectivity_profiles(FMRIInput(series))
    assert torch.equal(got, expected)
    half = connectivity_profiles(FMRIInput(series.bfloat16()))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.02)
