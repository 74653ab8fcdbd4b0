"""Attention to tokens that are never built equals attention to built ones."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model import BrainSymphony, kernels
from bsym_sklearn.model.kernels import pick_kernel, plain, use_kernel
from bsym_sklearn.model.kernels.interface import TAPS
from bsym_sklearn.model.token_attention import (
    TokenParts,
    _TokenSums,
    attend_tokens,
    sample_windows,
)

KERNELS = ("torch", "compiled")
CPU = torch.device("cpu")

every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@pytest.fixture(autouse=True)
def needs_numba(request: pytest.FixtureRequest) -> None:
    if "compiled" in request.node.name:
        pytest.importorskip("numba")


class Case(NamedTuple):
    """Leaves of one attention, and what is absent."""

    query: Tensor
    region: Tensor
    time: Tensor
    taps: Tensor
    series: Tensor
    gain: Tensor
    offset: Tensor
    weight: Tensor
    bias: Tensor


def draw(
    n_scans: int = 2,
    n_heads: int = 2,
    n_queries: int = 3,
    head_dim: int = 4,
    n_regions: int = 5,
    n_times: int = 7,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    dim = n_heads * head_dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Case(
        scale * normal(n_scans, n_heads, n_queries, head_dim),
        normal(n_scans, n_regions, dim),
        normal(n_scans, n_times, dim),
        normal(dim, TAPS),
        normal(n_scans, n_regions, n_times),
        normal(dim),
        normal(dim),
        normal(2 * dim, dim),
        normal(2 * dim),
    )


def layers(case: Case) -> tuple[TokenParts, nn.LayerNorm, nn.Linear]:
    """Return tokens, and modules whose parameters are the leaves."""
    dim = len(case.gain)
    norm, key_value = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim)
    for module, weight, bias in (
        (norm, case.gain, case.offset),
        (key_value, case.weight, case.bias),
    ):
        del module.weight, module.bias
        module.weight, module.bias = weight, bias
    return TokenParts(case.region, case.time, case.taps, case.series), norm, key_value


def fast(case: Case, absent: Tensor | None) -> tuple[Tensor, Tensor]:
    return attend_tokens(case.query, *layers(case), absent)


def naive(case: Case, absent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Build every token and the whole map; a scan without anything gives zeros."""
    tokens, norm, key_value = layers(case)
    n_heads, n_regions = case.query.shape[1], case.region.shape[1]
    built = norm(tokens.build()).flatten(1, 2)
    key, value = (
        x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
        for x in key_value(built).chunk(2, -1)
    )
    score = case.query @ key.transpose(-1, -2) / case.query.shape[-1] ** 0.5
    if absent is not None:
        hidden = absent.repeat(1, n_regions)[:, None, None]
        score = score.masked_fill(hidden, -1e300)
        weights = score.softmax(-1) * ~absent.all(1)[:, None, None, None]
    else:
        weights = score.softmax(-1)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    return mixed, weights.unflatten(-1, (n_regions, -1)).sum(-1)


def with_gradients(
    attend: Callable[[Case, Tensor | None], tuple[Tensor, Tensor]],
    case: Case,
    absent: Tensor | None,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """Return both outputs, then the gradient of every leaf."""
    case = Case(*(leaf.to(dtype).requires_grad_() for leaf in case))
    mixed, mass = attend(case, absent)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(mixed.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((mixed * direction.to(dtype)).sum(), tuple(case))
    return [mixed, mass, *gradients]


def assert_equal(
    case: Case,
    kernel: str,
    absent: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-9,
) -> None:
    expected = with_gradients(naive, case, absent)
    with use_kernel(kernel):
        got = with_gradients(fast, case, absent, dtype)
    names = ("mixed", "mass", *Case._fields)
    for name, left, right in zip(names, got, expected, strict=True):
        assert left.dtype == dtype
        bound = tolerance * max(1.0, right.abs().max().item())
        assert (left.double() - right).abs().max() <= bound, name


# Equality


@every_kernel
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_equals_attention_to_built_tokens(kernel: str, data: st.DataObject) -> None:
    def size(most: int) -> int:
        return data.draw(st.integers(1, most))

    n_scans, n_times = size(3), size(35)
    case = draw(n_scans, size(3), size(6), size(5), size(7), n_times, seed=size(1000))
    absent = None
    if data.draw(st.booleans()):  # also in the middle, also all of a scan
        flags = st.lists(st.booleans(), min_size=n_times, max_size=n_times)
        absent = torch.tensor([data.draw(flags) for _ in range(n_scans)])
    assert_equal(case, kernel, absent)


@every_kernel
@pytest.mark.parametrize(("n_regions", "n_times"), [(1, 1), (1, 33), (9, 1), (13, 21)])
def test_equals_in_single_precision(kernel: str, n_regions: int, n_times: int) -> None:
    case = draw(n_regions=n_regions, n_times=n_times, seed=3)
    assert_equal(case, kernel, dtype=torch.float32, tolerance=1e-4)


@every_kernel
def test_scores_of_hundreds_equal_too(kernel: str) -> None:
    """Released weights reach 90: sums need the true largest score."""
    case = draw(n_queries=9, n_regions=17, n_times=40, scale=60.0)
    assert_equal(case, kernel)
    assert_equal(case, kernel, dtype=torch.float32, tolerance=2e-3)


@every_kernel
def test_a_late_jump_of_the_scores_does_not_overflow(kernel: str) -> None:
    """The last region's scores are hundreds above all that came before."""
    case = draw(n_regions=6, n_times=20)
    region = case.region.clone()
    region[:, -1] *= 1e3
    series = case.series.clone()
    series[:, -1] *= 1e3
    case = case._replace(region=region, series=series, query=300 * case.query)
    assert_equal(case, kernel, dtype=torch.float32, tolerance=1e-3)


@every_kernel
def test_a_scan_without_any_time_point_gives_zeros(kernel: str) -> None:
    absent = torch.tensor([[True] * 7, [False] * 5 + [True] * 2])
    assert_equal(draw(), kernel, absent)
    with use_kernel(kernel):
        mixed, mass = fast(draw(), absent)
    assert not mixed[0].any()
    assert not mass[0].any()


@every_kernel
def test_values_at_absent_points_do_not_matter(kernel: str) -> None:
    absent = (torch.arange(7) >= 5).expand(2, 7)
    case = draw()
    time = case.time.clone()
    time[:, 5:] = 1e6
    with use_kernel(kernel):
        assert torch.equal(
            fast(case, absent)[0], fast(case._replace(time=time), absent)[0]
        )


@every_kernel
def test_a_nan_that_goes_in_comes_out(kernel: str) -> None:
    case = draw()
    case.region[1, 2, 0] = torch.nan
    case = Case(*(leaf.float() for leaf in case))
    with use_kernel(kernel):
        mixed, _ = fast(case, None)
    assert mixed[0].isfinite().all()
    assert mixed[1].isnan().all()


@every_kernel
def test_several_threads_and_pieces_change_nothing(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = draw(3, 2, 7, 4, 9, 20)
    one_scan = Case(*(x[:1] if x.ndim > 2 else x for x in case))
    with use_kernel(kernel):
        expected = with_gradients(fast, case, None)
        alone = with_gradients(fast, one_scan, None)
        monkeypatch.setitem(plain.CHUNK_BYTES, "cpu", 9 * 20 * 8 * 5)
        if kernel == "compiled":
            from bsym_sklearn.model.kernels import compiled

            monkeypatch.setattr(compiled, "MIN_SCORES_PER_THREAD", 1)
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            got = with_gradients(fast, case, None)
            got_alone = with_gradients(fast, one_scan, None)
        finally:
            torch.set_num_threads(before)
    for left, right in zip(expected + alone, got + got_alone, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@every_kernel
def test_gradients_of_the_sums_are_those_of_finite_differences(kernel: str) -> None:
    case = draw(1, 1, 3, 2, 4, 5)
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 3, 4), (1, 3, 5), (1, 3, TAPS), (1, 4, 5))
    alpha, beta, slope, scale = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    inputs = (alpha, beta, slope, scale.exp(), case.series)
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    with use_kernel(kernel):
        assert torch.autograd.gradcheck(
            lambda *x: _TokenSums.apply(*x)[:3], leaves, atol=1e-7
        )


@every_kernel
def test_half_precision_is_computed_in_single(kernel: str) -> None:
    case = Case(*(leaf.bfloat16() for leaf in draw()))
    with use_kernel(kernel):
        mixed, mass = fast(case, None)
        expected, _ = fast(Case(*(leaf.float() for leaf in case)), None)
    assert mixed.dtype == torch.bfloat16
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mixed, expected.bfloat16())


# Memory


@every_kernel
def test_nothing_of_the_size_of_tokens_or_scores_is_kept(kernel: str) -> None:
    """With 60 regions x 100 time points x 64 channels, or 60 queries x 6,000 keys."""
    case = draw(1, 2, 60, 32, 60, 100)
    sizes: list[int] = []

    def count(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    leaves = Case(*(leaf.requires_grad_() for leaf in case))
    with (
        use_kernel(kernel),
        torch.autograd.graph.saved_tensors_hooks(count, lambda x: x),
    ):
        fast(leaves, None)
    assert max(sizes) <= 60 * 100 * TAPS


# Which kernel


def test_windows_are_the_neighbours_of_each_point() -> None:
    windows = sample_windows(torch.arange(1.0, 5.0).reshape(1, 1, 4))[0, 0]
    assert windows[1].tolist() == [0, 1, 2, 3, 4]
    assert windows[3].tolist() == [2, 3, 4, 0, 0]


def test_an_unknown_kernel_is_an_error() -> None:
    with pytest.raises(ValueError, match="`name` must be one of"), use_kernel("other"):
        pass


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("compiled", "loops"):
        monkeypatch.delitem(sys.modules, f"{kernels.__name__}.{name}", raising=False)
        monkeypatch.delattr(kernels, name, raising=False)
    kernels._can_compile.cache_clear()
    yield
    kernels._can_compile.cache_clear()


def test_without_numba_torch_is_used_and_said_once(no_numba: None) -> None:
    with pytest.warns(BrainSymphonyWarning, match=r"pip install .*\[fast\]"):
        assert pick_kernel(CPU) is plain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_kernel(CPU) is plain
    with use_kernel("compiled"), pytest.raises(ImportError):
        pick_kernel(CPU)


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, bsym_sklearn; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_torch_compile_gives_the_same_without_a_break() -> None:
    model = BrainSymphony(
        6, 20, modalities=("fmri",), dim=8, depth=1, dropout=0.0, n_heads=2
    )
    compiled = copy.deepcopy(model)
    compiled.compile(fullgraph=True)
    fmri = torch.randn(2, 20, 6)
    results = []
    for each in (model, compiled):
        out = each(fmri=fmri)
        (out.latents.square().mean() + out.fmri_reconstruction.mean()).backward()
        results.append([out.latents, *(p.grad for p in each.parameters())])
    for left, right in zip(*results, strict=True):
        if left is None:
            assert right is None
        else:
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_torch_kernel_equals_the_plain_computation_on_cuda(
    dtype: torch.dtype,
) -> None:
    case = draw(3, 2, 40, 8, 30, 50)
    absent = torch.arange(50).expand(3, 50) >= torch.tensor([[50], [41], [7]])
    expected = with_gradients(naive, case, absent)
    on_device = Case(*(leaf.cuda() for leaf in case))
    assert pick_kernel(torch.device("cuda")) is plain

    def attend(given: Case, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        assert hidden is not None
        mixed, mass = fast(given, hidden.cuda())
        return mixed.cpu(), mass.cpu()

    got = with_gradients(attend, on_device, absent, dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for left, right in zip(got, expected, strict=True):
        bound = tolerance * max(1.0, right.abs().max().item())
        assert (left.cpu().double() - right).abs().max() <= bound
