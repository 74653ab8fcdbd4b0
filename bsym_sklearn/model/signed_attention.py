r"""Attention whose maps may be negative, computed without keeping them.

Shape letters: B scans, K hops, R regions, H heads, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bsym_sklearn.model.layers import is_exporting

SIGNED_ATTENTION = ("reference", "continuous")
ABSENT_EDGES = ("reference", "masked")
# Size of a piece of the maps (B, H, R, R): what a core's own cache holds, or enough
# to keep an accelerator busy.
CPU_BYTES = 1 << 20
DEVICE_BYTES = 1 << 28

Piece = tuple[slice, slice]  # scans, regions that ask


def signed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: Tensor,
    *,
    signed: str = "reference",
    absent_edges: str = "reference",
) -> Tensor:
    r"""Mix the values of regions along signed edges, without building a map.

    The same as ``signed_map(query, key, edges, ...) @ value``, forward and
    backward: the maps are made again, in pieces of a fixed size, so that memory
    is linear in R and does not grow with the number of hops. Computed in at least
    single precision. Not differentiable twice.

    Parameters
    ----------
    query, key, value : Tensor of shape (B, H, R, E)
    edges : Tensor of shape (B, K, R, R)
        Signed weights, a matrix per hop.
    signed : {"reference", "continuous"}, default="reference"
        See :func:`signed_softmax`.
    absent_edges : {"reference", "masked"}, default="reference"
        See :func:`signed_softmax`.

    Returns
    -------
    Tensor of shape (B, H, R, E)
        The mean over hops, of the type of `value`.

    Examples
    --------
    >>> import torch
    >>> ones = torch.ones(1, 2, 3, 4)
    >>> signed_attention(ones, ones, ones, -torch.ones(1, 1, 3, 3))[0, 0, 0]
    tensor([-1., -1., -1., -1.])
    """
    dtype = _accumulation_type(query, edges)
    if is_exporting():
        applied = signed_map(
            query, key, edges, signed=signed, absent_edges=absent_edges
        )
        return (applied @ value.to(dtype)).to(value.dtype)
    scale = query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):
        mixed = _SignedAttention.apply(
            query.to(dtype) * scale,
            key.to(dtype),
            value.to(dtype),
            edges.to(dtype),
            signed == "continuous",
            absent_edges == "masked",
        )
    return mixed.to(value.dtype)


def signed_map(
    query: Tensor,
    key: Tensor,
    edges: Tensor,
    *,
    signed: str = "reference",
    absent_edges: str = "reference",
) -> Tensor:
    """Return the map that :func:`signed_attention` applies, for inspection.

    Parameters
    ----------
    query, key : Tensor of shape (B, H, R, E)
    edges : Tensor of shape (B, K, R, R)
    signed, absent_edges : str
        See :func:`signed_softmax`.

    Returns
    -------
    Tensor of shape (B, H, R, R)
        The mean over hops, in at least single precision.

    Examples
    --------
    >>> import torch
    >>> ones = torch.ones(1, 1, 2, 4)
    >>> signed_map(ones, ones, -torch.ones(1, 1, 2, 2))
    tensor([[[[-0.5000, -0.5000],
              [-0.5000, -0.5000]]]])
    """
    dtype = _accumulation_type(query, edges)
    scale = query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):
        query, key, edges = query.to(dtype), key.to(dtype), edges.to(dtype)
        similarity = query * scale @ key.transpose(-2, -1)  # (B, H, R, R)
        maps = [
            signed_softmax(
                similarity * hop, hop == 0, signed=signed, absent_edges=absent_edges
            )
            for hop in edges.unsqueeze(2).unbind(1)  # each (B, 1, R, R)
        ]
        return torch.stack(maps).mean(0)


def signed_softmax(
    score: Tensor, absent: Tensor, *, signed: str, absent_edges: str
) -> Tensor:
    r"""Return a softmax of magnitudes that keeps the signs of the scores.

    .. math::
        a_{ij} = \mathrm{sign}(s_{ij}) \, e^{|s_{ij}|} / \textstyle\sum_k e^{|s_{ik}|}

    Parameters
    ----------
    score : Tensor of shape (..., R, R)
    absent : bool Tensor that broadcasts to (..., R, R)
        Where there is no edge.
    signed : {"reference", "continuous"}
        The numerator as released, which jumps at zero, or
        :math:`\mathrm{sign}(s_{ij}) (e^{|s_{ij}|} - 1)`, which does not.
    absent_edges : {"reference", "masked"}
        Whether a pair without an edge keeps its share of the sum below the
        fraction (released), or is left out of it.

    Returns
    -------
    Tensor of shape (..., R, R)
        Finite for every finite score.

    Examples
    --------
    >>> import torch
    >>> score = torch.tensor([[0.0, -1e9, 1e9]])
    >>> signed_softmax(
    ...     score, score == 0, signed="reference", absent_edges="masked"
    ... )
    tensor([[ 0.0000, -0.5000,  0.5000]])
    """
    magnitude = score.abs()
    if absent_edges == "masked":
        # Not -inf: a region without edges must give zeros, not NaN.
        magnitude = magnitude.masked_fill(absent, torch.finfo(score.dtype).min)
    share = magnitude.softmax(-1)
    if signed == "continuous":
        # softmax * (1 - e^-|s|) = (e^|s| - 1) / sum, finite for every score
        return share * -torch.expm1(-score.abs()) * score.sign()
    return share * score.sign()


class _SignedAttention(torch.autograd.Function):
    """`signed_attention` of scaled queries; all tensors of one type."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        edges: Tensor,
        continuous: bool,
        masked: bool,
    ) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        mixed = query.new_empty(edges.shape[1], *query.shape)  # (K, B, H, R, E)
        for scans, rows in _pieces(query):
            similarity = _product(query[scans, :, rows], key[scans].mT)
            for hop, weight in enumerate(_hops(edges, scans, rows)):
                score = _times(similarity, weight, hop + 1 == len(mixed))
                share, _, rise = _shares(score, weight, continuous, masked)
                if rise is not None:
                    share.mul_(rise)
                mixed[hop, scans, :, rows] = _product(share, value[scans])
        ctx.continuous, ctx.masked = continuous, masked
        ctx.save_for_backward(query, key, value, edges, mixed)
        return mixed.mean(0) if len(mixed) > 1 else mixed[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, edges, mixed = ctx.saved_tensors
        to_query, to_key, to_value = (torch.zeros_like(x) for x in (query, key, value))
        to_edges = torch.empty_like(edges) if ctx.needs_input_grad[3] else None
        gradient = gradient.contiguous() / len(mixed)
        # sum_j a_ij dL/da_ij of every row, which is what its softmax takes away
        level = (gradient * mixed).sum(-1, keepdim=True)  # (K, B, H, R, 1)
        with torch.autocast(query.device.type, enabled=False):
            for scans, rows in _pieces(query):
                asks, offers = query[scans, :, rows], key[scans]
                wanted = gradient[scans, :, rows]
                similarity = _product(asks, offers.mT)
                to_map = _product(wanted, value[scans].mT)
                for hop, weight in enumerate(_hops(edges, scans, rows)):
                    last = hop + 1 == len(mixed)
                    score = _times(similarity, weight, last and to_edges is None)
                    share, sign, rise = _shares(
                        score, weight, ctx.continuous, ctx.masked
                    )
                    applied = share if rise is None else rise.mul_(share)
                    to_value[scans] += _product(applied.mT, wanted)
                    # for both numerators: that of "continuous" rises as fast
                    to_score = _times(to_map, sign, last)
                    to_score.sub_(level[hop, scans, :, rows]).mul_(share)
                    if to_edges is not None:
                        to_edges[scans, hop, rows] = (to_score * similarity).sum(1)
                    to_score.mul_(weight)
                    to_query[scans, :, rows] += _product(to_score, offers)
                    to_key[scans] += _product(to_score.mT, asks)
        return to_query, to_key, to_value, to_edges, None, None


def _shares(
    score: Tensor, weight: Tensor, continuous: bool, masked: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return signed softmax, sign and, if continuous, 1 - e^-|s|; uses up `score`."""
    sign = score.sign()
    magnitude = score.abs_()
    rise = torch.expm1(-magnitude).neg_() if continuous else None
    if masked:
        magnitude.masked_fill_(weight == 0, torch.finfo(score.dtype).min)
    return magnitude.softmax(-1).mul_(sign), sign, rise


def _hops(edges: Tensor, scans: slice, rows: slice) -> tuple[Tensor, ...]:
    """Return the weights (b, 1, r, R) of each hop in one piece."""
    return edges[scans, :, rows].unsqueeze(2).unbind(1)


def _times(left: Tensor, right: Tensor, last: bool) -> Tensor:
    """Return the product, in place of `left` when that is needed no more."""
    return left.mul_(right) if last else left * right


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix products of two stacks (b, H, ., .)."""
    flat = torch.bmm(left.flatten(0, 1), right.flatten(0, 1))
    return flat.unflatten(0, left.shape[:2])


def _pieces(query: Tensor) -> Iterator[Piece]:
    """Yield scans and rows of the maps in pieces of a bounded size."""
    n_scans, n_heads, n_regions, _ = query.shape
    limit = CPU_BYTES if query.device.type == "cpu" else DEVICE_BYTES
    n_rows = max(limit // (n_heads * n_regions * query.element_size()), 1)
    step = max(n_rows // n_regions, 1)  # whole scans, or one in parts
    rows = -(-n_regions // -(-n_regions // n_rows))  # parts of nearly equal size
    for scan in range(0, n_scans, step):
        for row in range(0, n_regions, rows):
            yield slice(scan, scan + step), slice(row, row + rows)


def _accumulation_type(*tensors: Tensor) -> torch.dtype:
    """Return the widest type of `tensors`, at least single precision."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
