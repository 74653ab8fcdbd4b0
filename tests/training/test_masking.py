from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsym_sklearn.training.masking import (
    mask_edges,
    mask_points,
    mask_regions,
    mask_time_points,
)

Maker = Callable[[torch.Generator], Tensor]

ratios = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 40)
thorough = settings(max_examples=200, deadline=None, derandomize=True)
every_maker = pytest.mark.parametrize(
    "make",
    [
        partial(mask_regions, 3, 8, 0.4),
        partial(mask_time_points, 3, 30, 0.4),
        partial(mask_time_points, 3, 30, 0.4, span=4),
        partial(mask_points, 3, 30, 5, 0.4),
        partial(mask_points, 3, 30, 5, 0.4, span=4),
        partial(mask_edges, 3, 8, 0.4),
    ],
    ids=["regions", "time points", "time spans", "points", "point spans", "edges"],
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run_lengths(row: Tensor) -> list[int]:
    """Return the lengths of the runs of True on a circle."""
    values = row.tolist()
    if False in values:  # start behind a gap, so that no run is cut
        cut = values.index(False)
        values = values[cut:] + values[:cut]
    text = "".join("x" if value else " " for value in values)
    return [len(run) for run in text.split()]


# Shares


@thorough
@given(n_scans=sizes, n=sizes, ratio=ratios)
def test_the_share_is_exact_but_never_none_or_all(
    n_scans: int, n: int, ratio: float
) -> None:
    expected = round(ratio * n)
    if n > 1 and ratio > 0:
        expected = min(max(expected, 1), n - 1)
    elif n == 1:
        expected = 0
    for mask in (
        mask_regions(n_scans, n, ratio, seeded()),
        mask_time_points(n_scans, n, ratio, seeded()),
        mask_points(n_scans, n, 2, ratio, seeded())[..., 0],
    ):
        assert mask.dtype == torch.bool
        assert mask.shape == (n_scans, n)
        assert (mask.sum(1) == expected).all()


@thorough
@given(n_regions=st.integers(1, 12), ratio=ratios)
def test_edges_are_symmetric_exact_and_without_the_diagonal(
    n_regions: int, ratio: float
) -> None:
    mask = mask_edges(3, n_regions, ratio, seeded())
    n_edges = n_regions * (n_regions - 1) // 2
    expected = 0
    if n_edges > 1 and ratio > 0:
        expected = min(max(round(ratio * n_edges), 1), n_edges - 1)
    assert mask.shape == (3, n_regions, n_regions)
    assert torch.equal(mask, mask.transpose(1, 2))
    assert not mask.diagonal(dim1=1, dim2=2).any()
    assert (mask.sum((1, 2)) == 2 * expected).all()


@pytest.mark.parametrize(("ratio", "expected"), [(0.15, 30), (0.5, 100), (0.999, 199)])
def test_the_share_of_a_window_of_the_published_length(
    ratio: float, expected: int
) -> None:
    assert (mask_time_points(4, 200, ratio, seeded()).sum(1) == expected).all()


@pytest.mark.parametrize("span", [1, 3, 100])
def test_nothing_is_hidden_at_ratio_zero(span: int) -> None:
    assert not mask_regions(2, 9, 0.0, seeded()).any()
    assert not mask_time_points(2, 9, 0.0, seeded(), span=span).any()
    assert not mask_points(2, 9, 4, 0.0, seeded(), span=span).any()
    assert not mask_edges(2, 9, 0.0, seeded()).any()


@pytest.mark.parametrize("span", [1, 3, 100])
def test_what_is_alone_stays_visible(span: int) -> None:
    assert not mask_regions(2, 1, 0.9, seeded()).any()
    assert not mask_time_points(2, 1, 0.9, seeded(), span=span).any()
    assert not mask_points(2, 1, 3, 0.9, seeded(), span=span).any()
    assert not mask_edges(2, 2, 0.9, seeded()).any()
    assert mask_edges(2, 1, 0.9, seeded()).shape == (2, 1, 1)


# Spans


def test_runs_have_the_length_of_the_span_and_the_share_is_exact() -> None:
    mask = mask_time_points(300, 60, 0.25, seeded(), span=5)
    assert (mask.sum(1) == 15).all()
    lengths = [length for row in mask for length in run_lengths(row)]
    assert set(lengths) == {5, 10, 15}  # runs may touch
    assert lengths.count(5) > lengths.count(10) > lengths.count(15)


def test_only_the_ends_of_the_window_cut_a_run() -> None:
    mask = mask_time_points(500, 50, 0.2, seeded(), span=4)  # a grid of 52
    for row in mask:
        inner = "".join("x" if x else " " for x in row.tolist())
        runs = inner.split()
        if inner.startswith("x"):
            runs = runs[1:]
        if inner.endswith("x"):
            runs = runs[:-1]
        assert all(len(run) % 4 == 0 for run in runs)


@pytest.mark.parametrize(
    ("n", "span"), [(20, 1), (20, 2), (20, 4), (21, 4), (23, 6), (10, 3)]
)
def test_every_time_point_is_hidden_equally_often(n: int, span: int) -> None:
    n_rows = 20_000
    hidden = mask_time_points(n_rows, n, 0.35, seeded(), span=span).double().mean(0)
    share = hidden.mean().item()
    deviation = (share * (1 - share) / n_rows) ** 0.5
    assert ((hidden - share).abs() < 4.5 * deviation).all()
    n_runs = -(-n // span)  # of which a whole number is hidden
    assert abs(share - round(0.35 * n_runs) / n_runs) < 0.01


def test_every_edge_and_every_region_is_hidden_equally_often() -> None:
    n_rows = 20_000
    edges = mask_edges(n_rows, 6, 0.2, seeded()).double().mean(0)
    off_diagonal = edges[~torch.eye(6, dtype=torch.bool)]
    deviation = (0.2 * 0.8 / n_rows) ** 0.5
    assert ((off_diagonal - 0.2).abs() < 4.5 * deviation).all()
    regions = mask_regions(n_rows, 10, 0.2, seeded()).double().mean(0)
    assert ((regions - 0.2).abs() < 4.5 * deviation).all()


@thorough
@given(n=sizes, ratio=ratios, span=st.integers(1, 200))
def test_no_span_hides_nothing_or_everything(n: int, ratio: float, span: int) -> None:
    mask = mask_time_points(20, n, ratio, seeded(), span=span)
    assert mask.shape == (20, n)
    if n > 1 and ratio > 0:
        assert mask.any(1).all()
        assert not mask.all(1).any()
    else:
        assert not mask.any()


@pytest.mark.parametrize("span", [10, 19, 20, 1000])
def test_a_span_beyond_the_share_hides_one_run_of_about_the_share(span: int) -> None:
    mask = mask_time_points(500, 20, 0.15, seeded(), span=span)
    assert mask.sum(1).max() == 3
    assert abs(mask.double().mean().item() - 0.15) < 0.02
    assert max(length for row in mask for length in run_lengths(row)) == 3


# Regions on their own


def test_points_are_drawn_for_each_region_on_its_own() -> None:
    mask = mask_points(2000, 10, 3, 0.3, seeded())
    assert (mask.sum(1) == 3).all()
    assert not torch.equal(mask[..., 0], mask[..., 1])
    both = (mask[..., 0] & mask[..., 1]).double().mean(0)  # (T,)
    deviation = (0.09 * 0.91 / 2000) ** 0.5
    assert ((both - 0.09).abs() < 4.5 * deviation).all()
    scans = (mask[:-1] & mask[1:]).double().mean((0, 2))
    assert ((scans - 0.09).abs() < 4.5 * deviation).all()


# Purity


@every_maker
def test_the_same_state_gives_the_same_mask(make: Maker) -> None:
    generator = seeded(3)
    first, second = make(generator), make(generator)
    assert torch.equal(first, make(seeded(3)))
    assert not torch.equal(first, second)  # the generator has moved on
    assert not torch.equal(first, make(seeded(4)))


@every_maker
def test_global_generators_are_not_touched(make: Maker) -> None:
    torch.manual_seed(0)
    in_torch, in_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = make(seeded())
    assert torch.equal(torch.get_rng_state(), in_torch)
    assert np.array_equal(np.random.get_state()[1], in_numpy)  # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(make(seeded()), first)


@every_maker
def test_the_default_dtype_changes_no_mask(make: Maker) -> None:
    expected = make(seeded())
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(make(seeded()), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.gpu
@every_maker
def test_the_mask_is_made_on_the_device_of_the_generator(make: Maker) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    mask = make(torch.Generator("cuda").manual_seed(0))
    assert mask.device.type == "cuda"
    assert mask.any()
