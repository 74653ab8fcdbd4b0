from __future__ import annotations

import math

import pytest
import torch

from bsym_sklearn.model.collapse import between_scan_spread, effective_rank


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_rank_is_the_exponential_entropy_of_singular_values() -> None:
    # centred columns at right angles, with lengths 3 and 1
    x = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [-3.0, -1.0]])
    p = torch.tensor([0.75, 0.25])
    expected = math.exp(-(p * p.log()).sum())
    assert effective_rank(x) == pytest.approx(expected)


def test_rank_of_a_line_is_one_and_of_noise_nearly_full() -> None:
    line = normal(50, 1) @ normal(1, 8) + 5
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert 7.5 < effective_rank(normal(500, 8)) <= 8


def test_rank_ignores_scale_and_a_common_vector() -> None:
    x = normal(30, 6).double()
    assert effective_rank(x * 10 + 3) == pytest.approx(effective_rank(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_scans_have_no_rank_even_with_rounding(dtype: torch.dtype) -> None:
    common = normal(1, 16).to(dtype)
    noise = 0.1 * torch.finfo(dtype).eps * normal(20, 16).to(dtype)
    assert effective_rank(common + noise) == 0
    assert between_scan_spread(common.expand(20, -1)) == pytest.approx(0, abs=1e-7)


def test_spread_is_between_nothing_and_one() -> None:
    assert between_scan_spread(normal(1000, 16)) == pytest.approx(1, abs=0.01)
    near = normal(1, 16) + 0.01 * normal(1000, 16)
    assert 0.003 < between_scan_spread(near) < 0.03


def test_spread_does_not_see_the_length_of_embeddings() -> None:
    x = normal(20, 8)
    assert between_scan_spread(100 * x) == pytest.approx(between_scan_spread(x))
    lengths = torch.arange(1, 5.0).unsqueeze(1)
    assert between_scan_spread(lengths * torch.ones(4, 3)) == pytest.approx(0)


def test_axes_after_the_first_are_joined() -> None:
    x = normal(10, 3, 4).requires_grad_()
    assert effective_rank(x) == effective_rank(x.flatten(1))
    assert between_scan_spread(x) == between_scan_spread(x.flatten(1))
