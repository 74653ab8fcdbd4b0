"""Which tokens Brain-JEPA sees and which it predicts.

Shape letters: B scans, R regions, P patches, N = R * P tokens, K chosen tokens.
A block is a bool tensor (B, R, P), True at its tokens. Nothing here waits for a
device: sizes are tensors, and lists of tokens have a length that is an upper bound
where the numbers are not on the CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MASKINGS = ("published", "repaired")
Share = tuple[float, float]  # lowest and highest share of what is there

OBSERVED: Share = (0.84, 1.0)  # of the regions, and of the patches
CROSS_REGIONS: Share = (0.45, 0.6)
CROSS_PATCHES: Share = (0.2, 0.6)
EDGE_REGIONS: Share = (0.15, 0.3)
EDGE_PATCHES: Share = (0.0, 0.4)
EDGE = 0.3  # share of the patches, at either end, that count as edge


class TokenList(NamedTuple):
    """Chosen tokens of every scan, in order.

    Parameters
    ----------
    tokens : int64 Tensor of shape (B, K)
        Tokens.
    absent : bool Tensor of shape (B, K)
        True where the list of a scan has ended.
    """

    tokens: Tensor
    absent: Tensor


class Blocks(NamedTuple):
    """What is seen and what is predicted.

    Parameters
    ----------
    context : bool Tensor of shape (B, R, P)
        Tokens to encode.
    targets : tuple of bool Tensor of shape (B, R, P)
        Tokens to predict: other regions at the same time, and all regions at
        the late and the early edge.
    """

    context: Tensor
    targets: tuple[Tensor, Tensor, Tensor]


def sample_blocks(
    n_scans: int,
    n_regions: int,
    n_patches: int,
    generator: torch.Generator,
    *,
    masking: str = "repaired",
    absent: Tensor | None = None,
) -> Blocks:
    """Draw what is seen and what is predicted, as in spatiotemporal masking.

    Some regions are observed over a run of patches. Three targets are cut out:
    in *cross-region* blocks regions are hidden throughout, and predicted inside
    the run; at the late and at the early edge patches are hidden in all regions,
    and predicted for some that are observed elsewhere (*cross-time*) and some that
    are not (*double-cross*).

    With ``masking="published"``, as the released code does, the run never reaches
    the last patch, and a token may be a target twice. At another number of patches
    than the published ten, the edge is 30 % of them.

    Parameters
    ----------
    n_scans, n_regions, n_patches : int
        Scans B, regions R, at least 3, and patches P.
    generator : torch.Generator
        Source of randomness; the blocks are made on its device.
    masking : {"published", "repaired"}, default="repaired"
        With or without the two faults above; see also :func:`list_tokens`.
    absent : bool Tensor of shape (B, P) or None, default=None
        Patches, at the end, that do not exist: in no block.

    Returns
    -------
    Blocks
        The context is never empty and overlaps no target.

    References
    ----------
    .. [1] Dong et al. (2024). Brain-JEPA. NeurIPS; released code,
       src/masks/spatialtemporal_multiblock.py, at b1dfa93.

    Examples
    --------
    >>> import torch
    >>> blocks = sample_blocks(2, 20, 10, torch.Generator().manual_seed(0))
    >>> blocks.context.shape, bool((blocks.context & blocks.targets[0]).any())
    (torch.Size([2, 20, 10]), False)
    """
    published = masking == "published"
    device = generator.device
    time = torch.arange(n_patches, device=device)  # (P,)
    length = torch.full((n_scans, 1), n_patches, device=device)  # (B, 1)
    if absent is not None:
        length = (~absent.to(device)).sum(1, keepdim=True)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(
            *shape, dtype=torch.float32, generator=generator, device=device
        )

    def count(n: int | Tensor, share: Share, *shape: int) -> Tensor:
        low, high = share
        return ((low + (high - low) * uniform(*shape)) * n).floor()

    def choose(among: Tensor, n: Tensor) -> Tensor:
        """Return a mask like `among` (B, M) of `n` (B, 1) random places in it."""
        noise = uniform(*among.shape).masked_fill(~among, 2)  # the others come last
        return among & (noise.argsort(dim=1).argsort(dim=1) < n)

    def run(first: Tensor, room: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return a run of `n` patches in `room` from `first`, and where it starts."""
        n_starts = (room - n + (0 if published else 1)).clamp(min=1)
        start = first + (uniform(n_scans, 1) * n_starts).floor()
        return (start <= time) & (time < start + n), start

    everywhere = torch.ones(n_scans, n_regions, dtype=torch.bool, device=device)
    # Sizes are those of the batch, places those of each scan.
    n_hidden = count(n_regions, CROSS_REGIONS, 1)
    n_crossed = count(length, CROSS_PATCHES, 1).clamp(min=1)
    n_seen = count(n_regions, OBSERVED, 1)
    n_times = count(length, OBSERVED, 1).clamp(min=1)

    seen = choose(everywhere, n_seen)  # (B, R)
    times, start = run(torch.zeros_like(length), length, n_times)  # (B, P)
    hidden = choose(everywhere, n_hidden)
    crossed, _ = run(start, n_times, n_crossed)
    context = _block(seen & ~hidden, times)
    targets = [_block(hidden, crossed)]
    # Where the released code takes the hidden ones instead, nothing changes: the
    # same share is asked of these and of the others.
    known = seen & ~hidden
    edge = (EDGE * length).floor().clamp(min=1)
    for at_edge in ((length - edge <= time) & (time < length), time < edge):
        share = EDGE_REGIONS[0] + (EDGE_REGIONS[1] - EDGE_REGIONS[0]) * uniform(
            n_scans, 1
        )
        regions = torch.zeros_like(everywhere)
        for group in (known, ~known):
            regions |= choose(group, (share * group.sum(1, keepdim=True)).floor())
        patches = choose(at_edge, count(length, EDGE_PATCHES, n_scans, 1))
        context = context & ~patches.unsqueeze(1)
        targets.append(_block(regions, patches))
    cross, late, early = targets
    if not published:  # no token is a target twice
        late = late & ~cross
        early = early & ~cross & ~late
    return Blocks(context, (cross, late, early))


def list_tokens(*blocks: Tensor, longest: int, masking: str = "repaired") -> TokenList:
    """List the tokens of each scan, those of one block after those of another.

    With ``masking="published"``, every list ends where the shortest of the batch
    does. Since tokens are in order of their regions, this cuts off the last regions
    and the last block. Otherwise a list has all tokens of its scan.

    Parameters
    ----------
    *blocks : bool Tensor of shape (B, R, P)
        What to list.
    longest : int
        No scan has more tokens.
    masking : {"published", "repaired"}, default="repaired"
        See above.

    Returns
    -------
    TokenList

    Examples
    --------
    >>> import torch
    >>> block = torch.tensor([[[True, False], [False, True]], [[False, True]] * 2])
    >>> list_tokens(block, longest=3).tokens
    tensor([[0, 3],
            [1, 3]])
    """
    n_tokens = blocks[0][0].numel()
    chosen = torch.cat([block.flatten(1) for block in blocks], dim=1)
    count = chosen.sum(1, keepdim=True)  # (B, 1)
    if masking == "published":
        count = count.min().expand_as(count)
    if chosen.device.type == "cpu":
        longest = int(count.max())  # free of charge here
    order = (~chosen).byte().argsort(dim=1, stable=True)[:, :longest]  # chosen first
    place = torch.arange(order.shape[1], device=order.device)
    return TokenList(order % n_tokens, place >= count)


def longest_lists(n_regions: int, n_patches: int) -> tuple[int, int]:
    """Return upper bounds of the numbers of context and target tokens.

    Examples
    --------
    >>> longest_lists(450, 10)
    (2480, 2430)
    """
    context = n_regions - math.floor(CROSS_REGIONS[0] * n_regions)
    hidden = math.ceil(CROSS_REGIONS[1] * n_regions)
    crossed = max(math.ceil(CROSS_PATCHES[1] * n_patches), 1)
    edge = max(math.floor(EDGE * n_patches), 1)
    at_edges = 2 * edge * math.ceil(EDGE_REGIONS[1] * n_regions)
    return context * n_patches, hidden * crossed + at_edges


def _block(regions: Tensor, patches: Tensor) -> Tensor:
    """Return the block (B, R, P) of `regions` (B, R) at `patches` (B, P)."""
    return regions.unsqueeze(2) & patches.unsqueeze(1)
