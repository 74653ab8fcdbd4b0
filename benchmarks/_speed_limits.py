"""What the machine can do at most, and what our forward pass asks of it."""

from __future__ import annotations

import torch
from _speed_measure import Timing, alternate
from _speed_works import COMPILED, FORWARD, Cell, make_subject
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bsym_sklearn.model.kernels import use_kernel

PERCEIVER_HEADS = 2  # published
CHUNK = 1 << 15  # floats per thread: two buffers of 128 kB lie in the cache

# Operations on one score, that is on one latent, head, region and time point, in the
# compiled cross-attention:
#   score   (alpha_r + beta_t + m . w_rt) / sigma_rt - shift, five samples in w
#   sums    of all, and weighted by 1 / sigma_rt: over time, over regions, five moments
SCORE_OPERATIONS = (9 + 2 + 1 + 1) + (1 + 1 + 1 + 1 + 10)
# and on its exponential there: two bounds, a shift, two conversions and what is left
# of the exponent, a polynomial of degree six, bits to their place, a product
EXP_OPERATIONS = 2 + 1 + 3 + 12 + 1 + 1

MATMUL, EXP, EXP_CACHED = "matrix product", "exp", "exp, in the cache"
UNITS = {MATMUL: "GFLOP/s", EXP: "1e9 exp/s", EXP_CACHED: "1e9 exp/s"}


def machine_limits(
    size: int, n_floats: int, repeats: int, threads: int
) -> dict[str, tuple[Timing, float]]:
    """Return seconds and rates (1e9 per second) of what a kernel consists of.

    Parameters
    ----------
    size : int
        Rows and columns of the two float32 matrices whose product is timed.
    n_floats : int
        Of which the exponential is taken, at once and in pieces.
    repeats, threads : int
        See `alternate`.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, size, size, generator=generator)
    x = torch.randn(n_floats, generator=generator)
    out = torch.empty_like(x)
    product = torch.empty_like(left)
    chunk = min(CHUNK * threads, n_floats)
    n_chunks = n_floats // chunk

    def exp_in_cache() -> None:
        for _ in range(n_chunks):
            torch.exp(x[:chunk], out=out[:chunk])

    calls = {
        MATMUL: lambda: torch.mm(left, right, out=product),
        EXP: lambda: torch.exp(x, out=out),
        EXP_CACHED: exp_in_cache,
    }
    amounts = {MATMUL: 2 * size**3, EXP: n_floats, EXP_CACHED: n_chunks * chunk}
    timings = alternate(calls, repeats, threads)
    return {
        name: (timing, amounts[name] / timing.median / 1e9)
        for name, timing in timings.items()
    }


def dense_operations(cell: Cell) -> int:
    """Return operations in matrix products and convolutions of our forward pass.

    Those inside the compiled cross-attention are not seen here; see
    `score_operations`.
    """
    subject = make_subject(cell._replace(work=FORWARD), COMPILED)
    subject.model.requires_grad_(False)  # the counter follows gradients
    counter = FlopCounterMode(display=False)
    # of torch's attentions on a CPU it counts only the one made of matrix products
    with use_kernel(COMPILED), counter, sdpa_kernel(SDPBackend.MATH):
        subject.predict()
    return counter.get_total_flops()


def n_scores(cell: Cell) -> int:
    """Return the scores of the cross-attention: each one exponential."""
    n_tokens = cell.n_regions * cell.n_timepoints
    return cell.n_scans * PERCEIVER_HEADS * cell.n_regions * n_tokens


def score_operations(cell: Cell) -> int:
    """Return the operations in the cross-attention, without exponentials."""
    return SCORE_OPERATIONS * n_scores(cell)


def exp_operations(cell: Cell) -> int:
    """Return the operations that the exponentials of the compiled kernel consist of."""
    return EXP_OPERATIONS * n_scores(cell)
