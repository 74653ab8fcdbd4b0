from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsym_sklearn.model.layers import (
    Attention,
    Block,
    Dropout,
    SeededModule,
    attend,
    attention_maps,
    check_heads,
    initialize_weights,
    set_generator,
    sinusoidal_positions,
    softmax_map,
    split_heads,
)

sizes = st.integers(1, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n_scans=sizes, n_heads=sizes, n_queries=sizes, n_keys=sizes, width=sizes, padded=...
)
def test_map_times_values_is_what_attend_gives(
    n_scans: int, n_heads: int, n_queries: int, n_keys: int, width: int, padded: bool
) -> None:
    generator = seeded()

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query = normal(n_scans, n_heads, n_queries, width)
    key, value = normal(2, n_scans, n_heads, n_keys, width)
    absent = None
    if padded:
        absent = normal(n_scans, n_keys) > 0.5
        absent[:, 0] = False
    weights = softmax_map(query, key, absent)
    torch.testing.assert_close(
        attend(query, key, value, absent), (weights @ value).transpose(1, 2).flatten(2)
    )
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    if absent is not None:
        assert (weights.masked_select(absent[:, None, None]) == 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(n_scans=sizes, n_tokens=sizes, padded=...)
def test_attention_map_is_the_one_that_forward_applies(
    n_scans: int, n_tokens: int, padded: bool
) -> None:
    attention = Attention(6, 3).double()
    x = torch.randn(n_scans, n_tokens, 6, generator=seeded(), dtype=torch.float64)
    absent = None
    if padded:
        absent = torch.zeros(n_scans, n_tokens, dtype=torch.bool)
        absent[:, 1:] = True
    value = split_heads(attention.query_key_value(x).chunk(3, -1)[2], 3)
    mixed = (attention.attention_map(x, absent) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x, absent), attention.out(mixed))


def test_maps_of_all_blocks_are_those_of_a_forward_pass() -> None:
    blocks = nn.ModuleList(Block(6, 2, 5) for _ in range(2))
    x = torch.randn(2, 4, 6, generator=seeded())
    maps = attention_maps(blocks, x, None)
    torch.testing.assert_close(maps[:, 0], blocks[0].attention_map(x))
    torch.testing.assert_close(maps[:, 1], blocks[1].attention_map(blocks[0](x)))


def test_sinusoids_are_those_of_vaswani() -> None:
    for dim in (1, 6, 7):
        table = sinusoidal_positions(9, dim)
        for position, channel in [(0, 0), (5, dim - 1), (8, dim // 2)]:
            angle = position / 10_000 ** ((channel - channel % 2) / dim)
            wave = math.cos if channel % 2 else math.sin
            assert table[position, channel].item() == pytest.approx(
                wave(angle), abs=1e-6
            )


@pytest.mark.parametrize("n_heads", [0, -2, 4])
def test_width_that_the_heads_do_not_divide_is_an_error(n_heads: int) -> None:
    with pytest.raises(ValueError, match=f"Got dim=6, n_heads={n_heads}"):
        check_heads(6, n_heads)


# Randomness


def test_dropout_draws_from_its_generator_alone() -> None:
    block = Block(6, 2, 5, dropout=0.5)
    x = torch.randn(2, 3, 6, generator=seeded())
    before = torch.get_rng_state()
    outputs = []
    for seed in (1, 1, 2):
        set_generator(block, seeded(seed))
        outputs.append(block(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_keeps_the_mean_and_rests_in_evaluation() -> None:
    dropout = Dropout(0.25)
    set_generator(dropout, seeded())
    dropped = dropout(torch.ones(100_000))
    assert dropped.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    x = torch.ones(3)
    assert dropout.eval()(x) is x


def test_dropout_without_a_generator_uses_that_of_torch() -> None:
    dropout = Dropout(0.5)
    set_generator(dropout, seeded())
    set_generator(dropout, None)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = dropout(torch.ones(50))
        torch.manual_seed(3)
        assert torch.equal(first, dropout(torch.ones(50)))


def test_initialization_depends_on_the_generator_alone() -> None:
    before = torch.get_rng_state()
    block = Block(6, 2, 5)
    torch.set_rng_state(before)
    states = []
    for seed in (1, 1, 2):
        for parameter in block.parameters():
            parameter.data.fill_(torch.nan)
        initialize_weights(block, seeded(seed))
        states.append({name: x.clone() for name, x in block.state_dict().items()})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        assert value.isfinite().all()
    assert not torch.equal(
        states[0]["feed_forward.expand.weight"], states[2]["feed_forward.expand.weight"]
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_initialization_has_the_bounds_of_torch() -> None:
    layer, convolution = nn.Linear(100, 400), nn.Conv1d(4, 300, 5)
    initialize_weights(nn.ModuleList([layer, convolution]), seeded())
    for part, fan_in in ((layer, 100), (convolution, 20)):
        for parameter in part.parameters():
            bound = parameter.detach().abs().max().item()
            assert 0.97 * fan_in**-0.5 < bound <= fan_in**-0.5


def test_module_with_bare_parameters_must_say_how_to_draw_them() -> None:
    class Forgetful(SeededModule):
        pass

    with pytest.raises(NotImplementedError, match=r"Forgetful\.reset_parameters"):
        initialize_weights(Forgetful(), seeded())


def test_initialization_in_threads_gives_the_same_bits() -> None:
    def draw(seed: int) -> np.ndarray:
        block = Block(6, 2, 5)
        initialize_weights(block, seeded(seed))
        return torch.cat([x.flatten() for x in block.state_dict().values()]).numpy()

    seeds = [0, 1, 2, 3] * 4
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(draw, seeds))
    for seed, drawn in zip(seeds, parallel, strict=True):
        np.testing.assert_array_equal(drawn, draw(seed))
