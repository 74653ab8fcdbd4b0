"""Blocks shared by every backbone, and their reproducible randomness.

Shape letters: B scans, N tokens, D channels, H heads, E = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What a residual branch adds at the start. A new model is then nearly linear in its
# tokens, so that on a small cohort it begins where a linear model would.
RESIDUAL_SCALE = 0.05

# Whether torch.export is drawing a graph, which then has to be of plain operators.
# New in torch 2.7; before it, nothing is.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)


class Dropout(nn.Module):
    """Dropout that draws from its own generator instead of the global one.

    The generator is set for the length of a fit by :func:`set_generator`, so
    that the same seed gives the same bits in threads and processes.

    Parameters
    ----------
    p : float, default=0.0
        Share of the entries that are set to zero in training, in [0, 1).

    Examples
    --------
    >>> import torch
    >>> Dropout(0.5).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zero entries of `x` and scale up the rest, in training only."""
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep / (1 - self.p)


def set_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Make every :class:`Dropout` inside `module` draw from `generator`.

    Parameters
    ----------
    module : nn.Module
        Any module.
    generator : torch.Generator or None
        On the device of the module. None goes back to torch's global one.

    Examples
    --------
    >>> import torch
    >>> block = Block(8, 2, 16, dropout=0.5)
    >>> set_generator(block, torch.Generator().manual_seed(0))
    >>> first = block(torch.ones(1, 3, 8))
    >>> set_generator(block, torch.Generator().manual_seed(0))
    >>> torch.equal(first, block(torch.ones(1, 3, 8)))
    True
    """
    for part in module.modules():
        if isinstance(part, Dropout):
            part.generator = generator


def initialize_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter of `module` anew from `generator`, in place.

    Linear and convolution weights and biases are uniform with bound
    1 / sqrt(fan_in) (torch's default), norms are the identity. A
    :class:`SeededModule` draws what it owns itself, after its parts.

    Parameters
    ----------
    module : nn.Module
        Its parameters may be uninitialised memory.
    generator : torch.Generator
        On the device of the parameters.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> initialize_weights(layer, torch.Generator().manual_seed(0))
    >>> layer.weight.abs().max().item() < 2**-0.5
    True
    """
    with torch.no_grad():
        for part in reversed(list(module.modules())):
            if isinstance(part, (nn.Linear, nn.Conv1d)):
                bound = part.weight[0].numel() ** -0.5
                for parameter in part.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            elif isinstance(part, nn.LayerNorm):
                part.reset_parameters()
            elif isinstance(part, SeededModule):
                part.reset_parameters(generator)


class SeededModule(nn.Module):
    """A module that says how its parameters start, beyond those of its parts."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw bare parameters from `generator`, or adapt those of the parts."""
        raise NotImplementedError(f"{type(self).__name__}.reset_parameters")


def shrink(*layers: nn.Linear) -> None:
    """Scale fresh `layers` down by RESIDUAL_SCALE, in place.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> shrink(layer)
    >>> layer.weight.abs().max().item() < 0.05
    True
    """
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.mul_(RESIDUAL_SCALE)


class FeedForward(nn.Module):
    """Two-layer perceptron applied to each token.

    Parameters
    ----------
    dim, hidden_dim : int
        Input/output and hidden channels.
    activation : type of nn.Module, default=nn.GELU
        Nonlinearity between the two layers.

    Examples
    --------
    >>> import torch
    >>> FeedForward(8, 16)(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self, dim: int, hidden_dim: int, activation: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.activation = activation()
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x` (..., D) without changing its shape."""
        return self.contract(self.activation(self.expand(x)))


def check_heads(dim: int, n_heads: int) -> None:
    """Raise ValueError unless `dim` is a multiple of `n_heads`, at least 1.

    Examples
    --------
    >>> check_heads(6, 4)
    Traceback (most recent call last):
    ValueError: `dim` must be a multiple of the number of heads. Got dim=6, n_heads=4.
    """
    if n_heads < 1 or dim % n_heads:
        raise ValueError(
            f"`dim` must be a multiple of the number of heads. Got {dim=}, {n_heads=}."
        )


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ValueError unless the option `name` is one of `choices`.

    Examples
    --------
    >>> check_choice("b", ("a", "c"), "letter")
    Traceback (most recent call last):
    ValueError: `letter` must be one of ('a', 'c'). Got 'b'.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Got {value!r}.")


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Reshape `x` (B, N, D) into (B, H, N, E).

    Examples
    --------
    >>> import torch
    >>> split_heads(torch.zeros(2, 5, 8), 4).shape
    torch.Size([2, 4, 5, 2])
    """
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def softmax_map(query: Tensor, key: Tensor, absent: Tensor | None = None) -> Tensor:
    """Return softmax(q k' / sqrt(E)) as an explicit map, for inspection.

    Parameters
    ----------
    query, key : Tensor of shape (B, H, N, E) and (B, H, M, E)
    absent : bool Tensor of shape (B, M) or None
        True where a key does not exist (padding).

    Returns
    -------
    Tensor of shape (B, H, N, M)
        Rows sum to one.

    Examples
    --------
    >>> import torch
    >>> softmax_map(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 4, 2))
    tensor([[[[0.2500, 0.2500, 0.2500, 0.2500]]]])
    """
    score = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if absent is not None:
        score = score.masked_fill(absent[:, None, None], -torch.inf)
    return score.softmax(-1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, absent: Tensor | None = None
) -> Tensor:
    """Apply the map of :func:`softmax_map` to `value`, without building it.

    Parameters
    ----------
    query, key, value : Tensor of shape (B, H, N, E), (B, H, M, E), (B, H, M, E)
    absent : bool Tensor of shape (B, M) or None
        True where a key does not exist (padding).

    Returns
    -------
    Tensor of shape (B, N, D)
        Heads joined again.

    Examples
    --------
    >>> import torch
    >>> ones = torch.ones(1, 2, 3, 4)
    >>> attend(ones, ones, ones).shape
    torch.Size([1, 3, 8])
    """
    mask = None if absent is None else ~absent[:, None, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head self-attention between tokens.

    Parameters
    ----------
    dim : int
        Channels D, a multiple of `n_heads`.
    n_heads : int
        Heads H.

    Examples
    --------
    >>> import torch
    >>> Attention(8, 2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        check_heads(dim, n_heads)
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Mix the tokens `x` (B, N, D); `absent` (B, N) is True at padding."""
        query, key, value = self._project(x)
        return self.out(attend(query, key, value, absent))

    def attention_map(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Return the map (B, H, N, N) that `forward` applies to `x`."""
        query, key, _ = self._project(x)
        return softmax_map(query, key, absent)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, H, N, E)."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        return (
            split_heads(query, self.n_heads),
            split_heads(key, self.n_heads),
            split_heads(value, self.n_heads),
        )


class Block(SeededModule):
    """Pre-norm transformer block: attention, then a feed-forward net.

    Both residual branches start small.

    Parameters
    ----------
    dim, n_heads : int
        See :class:`Attention`.
    mlp_dim : int
        Hidden channels of the feed-forward net.
    dropout : float, default=0.0
        Rate on both residual branches, in [0, 1).

    Examples
    --------
    >>> import torch
    >>> Block(8, 2, 16)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, dim: int, n_heads: int, mlp_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, n_heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, mlp_dim)
        self.dropout = Dropout(dropout)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Shrink what the branches add."""
        shrink(self.attention.out, self.feed_forward.contract)

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Update the tokens `x` (B, N, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), absent))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def attention_map(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Return the map (B, H, N, N) that `forward` applies to `x`."""
        return self.attention.attention_map(self.attention_norm(x), absent)


def attention_maps(blocks: Iterable[Any], x: Tensor, context: Tensor | None) -> Tensor:
    """Run `x` through `blocks` and keep the attention map of each.

    Parameters
    ----------
    blocks : iterable of nn.Module
        Each has ``forward(x, context)`` and ``attention_map(x, context)``.
    x : Tensor of shape (B, N, D)
        Tokens before the first block.
    context : Tensor or None
        Second argument of the blocks: padding or edges.

    Returns
    -------
    Tensor of shape (B, L, H, N, N)
        One map per block L and head H.

    Examples
    --------
    >>> import torch
    >>> blocks = nn.ModuleList([Block(8, 2, 16), Block(8, 2, 16)])
    >>> attention_maps(blocks, torch.zeros(1, 3, 8), None).shape
    torch.Size([1, 2, 2, 3, 3])
    """
    maps = []
    for block in blocks:
        maps.append(block.attention_map(x, context))
        x = block(x, context)
    return torch.stack(maps, dim=1)


def sinusoidal_positions(n_positions: int, dim: int) -> Tensor:
    """Return the fixed sine and cosine table of Vaswani et al. (2017).

    Parameters
    ----------
    n_positions : int
        Rows.
    dim : int
        Channels D.

    Returns
    -------
    Tensor of shape (n_positions, dim)
        float32, as in the released code: other precisions are cast from it.

    References
    ----------
    .. [1] Vaswani et al. (2017). Attention is all you need. Section 3.5.

    Examples
    --------
    >>> sinusoidal_positions(2, 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    position = torch.arange(n_positions, dtype=torch.float32).unsqueeze(1)
    even = torch.arange(0, dim, 2, dtype=torch.float32)
    angle = position * torch.exp(even * (-math.log(10_000.0) / dim))
    table = torch.zeros(n_positions, dim, dtype=torch.float32)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : dim // 2]
    return table
