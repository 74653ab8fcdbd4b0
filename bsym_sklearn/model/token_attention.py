r"""Exact cross-attention to tokens that are sums, without building the tokens.

The token of region :math:`r` at time :math:`t` is
:math:`\mathrm{LN}(a_r + b_t + M w_{rt})`, with the raw samples :math:`w_{rt}` around
:math:`t`. Its mean is linear in the parts, its variance follows from their inner
products, and so scores and weighted sums factor over regions, time points and taps;
what remains per query and token is a handful of numbers, which a kernel adds up (see
:mod:`bsym_sklearn.model.kernels.interface`). No tensor of size R x T x D and no map
of N x R T exists, forward or backward.

Shape letters: B scans, T time points, R regions, D channels, S signal channels,
N queries, H heads, E = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bsym_sklearn.model.kernels import pick_kernel
from bsym_sklearn.model.kernels.interface import ABSENT, TAPS, Received
from bsym_sklearn.model.layers import (
    attend,
    is_exporting,
    softmax_map,
    split_heads,
)


def sample_windows(series: Tensor) -> Tensor:
    """Return the samples around each time point as a view, zero beyond the ends.

    Parameters
    ----------
    series : Tensor of shape (B, R, T)
        Samples.

    Returns
    -------
    Tensor of shape (B, R, T, TAPS)

    Examples
    --------
    >>> import torch
    >>> sample_windows(torch.arange(1.0, 4.0).reshape(1, 1, 3))[0, 0, 0]
    tensor([0., 0., 1., 2., 3.])
    """
    return F.pad(series, (TAPS // 2, TAPS // 2)).unfold(2, TAPS, 1)


class LocalSignal(NamedTuple):
    """The context stream as what it is, linear in the samples around a time point.

    Parameters
    ----------
    series : Tensor of shape (B, R, T)
        Samples.
    taps : Tensor of shape (S, TAPS)
        From the samples around a time point to its features.
    bias : Tensor of shape (S,)
        Added to them.
    """

    series: Tensor
    taps: Tensor
    bias: Tensor


class TokenParts(NamedTuple):
    """Tokens before their layer norm: region + time + taps . window.

    Parameters
    ----------
    region : Tensor of shape (B, R, D)
        Of each region, constants included.
    time : Tensor of shape (B, T, D)
        Of each time point.
    taps : Tensor of shape (D, TAPS)
        Applied to the samples around each time point.
    series : Tensor of shape (B, R, T)
        Samples; zero beyond the ends.
    """

    region: Tensor
    time: Tensor
    taps: Tensor
    series: Tensor

    def build(self) -> Tensor:
        """Return all tokens (B, R, T, D), for inspection and tests.

        Examples
        --------
        >>> import torch
        >>> TokenParts(
        ...     torch.ones(1, 1, 2), torch.ones(1, 3, 2), torch.ones(2, 5),
        ...     torch.ones(1, 1, 3),
        ... ).build()[0, 0, :, 0]
        tensor([5., 5., 5.])
        """
        signal = sample_windows(self.series) @ self.taps.T
        return self.region.unsqueeze(2) + self.time.unsqueeze(1) + signal


def attend_tokens(
    query: Tensor,
    tokens: TokenParts,
    norm: nn.LayerNorm,
    key_value: nn.Linear,
    absent: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend to the normalised tokens of a scan.

    Parameters
    ----------
    query : Tensor of shape (B, H, N, E)
        Projected queries.
    tokens : TokenParts
        Keys and values before norm and projection.
    norm : nn.LayerNorm
        Applied to each token.
    key_value : nn.Linear
        From D to keys and values, 2 D.
    absent : bool Tensor of shape (B, T) or None
        True where a time point does not exist. A scan of which nothing exists
        gives zeros.

    Returns
    -------
    mixed : Tensor of shape (B, N, D)
        Values averaged with the attention, heads joined.
    mass : Tensor of shape (B, H, N, R)
        Attention that each region gets, summed over time. Not differentiable.

    Examples
    --------
    >>> import torch
    >>> tokens = TokenParts(
    ...     torch.randn(1, 3, 8), torch.randn(1, 6, 8), torch.randn(8, 5),
    ...     torch.randn(1, 3, 6),
    ... )
    >>> mixed, mass = attend_tokens(
    ...     torch.randn(1, 2, 4, 4), tokens, nn.LayerNorm(8), nn.Linear(8, 16)
    ... )
    >>> mixed.shape, mass.shape
    (torch.Size([1, 4, 8]), torch.Size([1, 2, 4, 3]))
    """
    if is_exporting():
        return _attend_built(query, tokens.build(), norm, key_value, absent)
    # Differences of large products: at least single precision, whatever is around.
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        mixed, mass = _attend(
            query.to(dtype),
            TokenParts(*(part.to(dtype) for part in tokens)),
            norm.weight.to(dtype),
            norm.bias.to(dtype),
            norm.eps,
            key_value.weight.to(dtype),
            key_value.bias.to(dtype),
            absent,
        )
    return mixed.to(query.dtype), mass.detach()


def _attend_built(
    query: Tensor,
    tokens: Tensor,
    norm: nn.LayerNorm,
    key_value: nn.Linear,
    absent: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Do the same with tokens (B, R, T, D) that are there, in plain operators."""
    n_regions = tokens.shape[1]
    key, value = (
        split_heads(x, query.shape[1])
        for x in key_value(norm(tokens.flatten(1, 2))).chunk(2, dim=-1)
    )
    if absent is not None:
        absent = absent.repeat(1, n_regions)
    mass = softmax_map(query, key, absent).unflatten(-1, (n_regions, -1)).sum(-1)
    return attend(query, key, value, absent), mass


def _attend(
    query: Tensor,
    tokens: TokenParts,
    gain: Tensor,
    offset: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    absent: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`attend_tokens`; all of one precision."""
    _, n_heads, n_queries, head_dim = query.shape
    # Taking the mean over channels off each part takes it off the token.
    region = tokens.region - tokens.region.mean(-1, keepdim=True)
    time = tokens.time - tokens.time.mean(-1, keepdim=True)
    taps = tokens.taps - tokens.taps.mean(0)
    scale = (_variance(region, time, taps, tokens.series) + eps).rsqrt()  # (B, R, T)

    w_key, w_value = weight.chunk(2)  # each (D, D)
    b_value = bias.chunk(2)[1]  # that of the keys moves all scores of a query alike
    per_head = w_key.unflatten(0, (n_heads, head_dim))
    key = torch.einsum("bhne,hed->bhnd", query / math.sqrt(head_dim), per_head)
    key = (key * gain).flatten(1, 2)  # (B, H N, D): scores are its products
    alpha, beta = key @ region.transpose(1, 2), key @ time.transpose(1, 2)
    if absent is not None:
        nothing = absent.all(1, keepdim=True)  # (B, 1): such a scan is zeroed below
        beta = beta.masked_fill((absent & ~nothing).unsqueeze(1), ABSENT)
    inputs = (alpha, beta, key @ taps, scale, tokens.series)
    apply = _TokenSums.apply
    if torch.compiler.is_compiling():
        from bsym_sklearn.model.token_operator import apply  # slow to import
    rows, columns, windows, mass, _ = apply(*(x.contiguous() for x in inputs))

    mean = rows @ region + columns @ time + windows @ taps.T  # of normalised tokens
    mean = (mean * gain + offset).unflatten(1, (n_heads, n_queries))
    per_head = w_value.unflatten(0, (n_heads, head_dim))
    mixed = torch.einsum("bhnd,hed->bnhe", mean, per_head).flatten(2) + b_value
    mass = mass.unflatten(1, (n_heads, n_queries))
    if absent is not None:
        mixed = mixed.masked_fill(nothing.unsqueeze(2), 0)
        mass = mass.masked_fill(nothing[..., None, None], 0)
    return mixed, mass


def _variance(region: Tensor, time: Tensor, taps: Tensor, series: Tensor) -> Tensor:
    """Return the variance over channels of each token, from centred parts."""
    total = region.square().sum(-1).unsqueeze(2) + time.square().sum(-1).unsqueeze(1)
    total = total + 2 * region @ time.transpose(1, 2)
    of_region, of_time = 2 * region @ taps, 2 * time @ taps  # (B, R or T, TAPS)
    gram = taps.T @ taps
    samples = sample_windows(series).unbind(-1)  # views (B, R, T): one, TAPS times
    for k, sample in enumerate(samples):
        slope = of_region[..., k].unsqueeze(2) + of_time[..., k].unsqueeze(1)
        for other in range(k + 1):  # the Gram matrix is symmetric
            twice = 1 if other == k else 2
            slope = slope + twice * gram[k, other] * samples[other]
        total = total + slope * sample
    return total.clamp_min(0) / len(taps)


def token_sums(
    alpha: Tensor, beta: Tensor, slope: Tensor, scale: Tensor, series: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the :class:`~bsym_sklearn.model.kernels.interface.Moments` as a tuple.

    Examples
    --------
    >>> import torch
    >>> zeros, ones = torch.zeros(1, 1, 2), torch.ones(1, 2, 2)
    >>> token_sums(zeros, zeros, torch.zeros(1, 1, 5), ones, ones)[0]
    tensor([[[0.5000, 0.5000]]])
    """
    return pick_kernel(alpha.device).forward(alpha, beta, slope, scale, series)


def token_gradients(
    alpha: Tensor,
    beta: Tensor,
    slope: Tensor,
    scale: Tensor,
    series: Tensor,
    received: list[Tensor],
    with_series: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the inputs of :func:`token_sums`.

    Parameters
    ----------
    alpha, beta, slope, scale, series : Tensor
        Inputs.
    received : list of Tensor
        Fields of :class:`~bsym_sklearn.model.kernels.interface.Received`.
    with_series : bool
        Whether the gradient of the series is needed; it is empty if not.

    Examples
    --------
    >>> import torch
    >>> zeros, ones = torch.zeros(1, 1, 2), torch.ones(1, 2, 2)
    >>> inputs = (zeros, zeros, torch.zeros(1, 1, 5), ones, ones)
    >>> rows, columns, taps, _, log_total = token_sums(*inputs)
    >>> received = [rows, columns, taps, log_total, torch.zeros(1, 1)]
    >>> [x.shape[2] for x in token_gradients(*inputs, received, True)]
    [2, 2, 5, 2, 2]
    """
    kernel = pick_kernel(alpha.device)
    gradients = kernel.backward(
        alpha, beta, slope, scale, series, Received(*received), with_series=with_series
    )
    if gradients.windows is None:
        return (*gradients[:4], series.new_empty(0))
    return (*gradients[:4], _add_windows(gradients.windows))


def save_for_gradients(
    ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]
) -> None:
    """Keep what the backward pass needs: nothing of the size of the scores."""
    rows, columns, taps, _, log_total = output
    ctx.save_for_backward(*inputs, rows, columns, taps, log_total)


def pull_back(
    gradients: Callable[..., tuple[Tensor, ...]], ctx: Any, *given: Tensor
) -> tuple[Tensor | None, ...]:
    """Turn the gradients of rows, columns and taps into those of the inputs."""
    *inputs, rows, columns, taps, log_total = ctx.saved_tensors
    pairs = zip(given, (rows, columns, taps), strict=False)
    delta = torch.stack([(g * x).sum(-1) for g, x in pairs]).sum(0)
    with_series = ctx.needs_input_grad[4]
    *others, d_series = gradients(*inputs, [*given[:3], log_total, delta], with_series)
    return (*others, d_series if with_series else None)


class _TokenSums(torch.autograd.Function):
    """`token_sums` with its own backward pass; scores are not kept."""

    forward = staticmethod(token_sums)
    setup_context = staticmethod(save_for_gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        return pull_back(token_gradients, ctx, *given)


def _add_windows(windows: Tensor) -> Tensor:
    """Add up the parts (B, R, TAPS, T) of each sample, (B, R, T): undo the windows."""
    n_times = windows.shape[3]
    padded = windows.new_zeros(*windows.shape[:2], n_times + TAPS - 1)
    for k in range(TAPS):
        padded[..., k : k + n_times] += windows[:, :, k]
    return padded[..., TAPS // 2 : TAPS // 2 + n_times].contiguous()
