"""Encoder and decoder of BrainLM.

Unusual about them, all as published: norms after the branches, coordinates in
millimetres, and attention that adds a convolution along the list of tokens.

Shape letters: B scans, R regions, P patches, S time points of a patch, N = R * P
tokens, V visible tokens, D channels, H heads, E = D / H. Absent is True where a
token does not exist.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import (
    Dropout,
    FeedForward,
    SeededModule,
    attend,
    sinusoidal_positions,
)
from bsym_sklearn.model.patches import (
    WEIGHT_SCALE,
    BiasedAttention,
    draw_normal,
    take,
)

NORM_EPS = 1e-12
HEAD_SLOPE = 0.1  # of the leaky ReLU, below zero


class ConvolvedAttention(BiasedAttention):
    """Attention plus a convolution of the values along the list of tokens.

    The released code asks for Nystrom attention with as many landmarks as
    segments, which is exact attention and leaves only this convolution.

    Parameters
    ----------
    dim, n_heads : int
        See :class:`~bsym_sklearn.model.layers.Attention`.
    kernel : int or None
        Taps, odd; one filter per head. None for no convolution.

    Examples
    --------
    >>> import torch
    >>> ConvolvedAttention(8, 2, kernel=3)(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, n_heads: int, kernel: int | None) -> None:
        super().__init__(dim, n_heads)
        self.convolution: nn.Conv2d | None = None
        if kernel is not None:
            self.convolution = nn.Conv2d(
                n_heads,
                n_heads,
                (kernel, 1),
                padding=(kernel // 2, 0),
                groups=n_heads,
                bias=False,
            )

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Mix the tokens `x` (B, N, D); `absent` (B, N) is True at padding."""
        query, key, value = self._project(x)  # each (B, H, N, E)
        mixed = attend(query, key, value, absent)  # (B, N, D)
        if self.convolution is not None:
            if absent is not None:  # zeros, as beyond the ends of the list
                value = value.masked_fill(absent[:, None, :, None], 0)
            mixed = mixed + self.convolution(value).transpose(1, 2).flatten(2)
        return self.out(mixed)


class PostNormBlock(nn.Module):
    """Transformer block that normalises after each residual branch.

    Parameters
    ----------
    dim, n_heads, mlp_dim : int
        Channels, attention heads, hidden channels of the feed-forward net.
    kernel : int or None
        See :class:`ConvolvedAttention`.

    Examples
    --------
    >>> import torch
    >>> PostNormBlock(8, 2, 16, kernel=None)(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, dim: int, n_heads: int, mlp_dim: int, kernel: int | None
    ) -> None:
        super().__init__()
        self.attention = ConvolvedAttention(dim, n_heads, kernel)
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feed_forward = FeedForward(dim, mlp_dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Update the tokens `x` (B, N, D); `absent` (B, N) is True at padding."""
        x = self.attention_norm(x + self.attention(x, absent))
        return self.feed_forward_norm(x + self.feed_forward(x))


class Places(SeededModule):
    """Where and when a token is: a map of coordinates plus sinusoids of time.

    Parameters
    ----------
    n_patches, dim : int
        Patches P, at most, and channels D.
    dropout : float
        Rate on the sum of token and place, in [0, 1).

    Examples
    --------
    >>> import torch
    >>> Places(4, 8, 0.0)(torch.zeros(2, 3, 4, 8), torch.zeros(3, 3)).shape
    torch.Size([2, 12, 8])
    """

    time: Tensor

    def __init__(self, n_patches: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(3, dim)
        self.dropout = Dropout(dropout)
        self.register_buffer("time", torch.zeros(n_patches, dim), persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Compute the sinusoids."""
        self.time.copy_(sinusoidal_positions(*self.time.shape))

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """Place `x` (B, R, P, D) with `coordinates` (R, 3); return (B, N, D)."""
        place = self.project(coordinates).unsqueeze(1) + self.time[: x.shape[2]]
        return self.dropout(x + place).flatten(1, 2)


class Stack(nn.Module):
    """Blocks and a last norm, behind the place of every token.

    Parameters
    ----------
    n_patches, dim, depth, n_heads, mlp_dim : int
        Sizes.
    kernel : int or None
        See :class:`ConvolvedAttention`.
    position_dropout : float
        See :class:`Places`.
    """

    def __init__(
        self,
        n_patches: int,
        dim: int,
        *,
        depth: int,
        n_heads: int,
        mlp_dim: int,
        kernel: int | None,
        position_dropout: float,
    ) -> None:
        super().__init__()
        self.places = Places(n_patches, dim, position_dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(dim, n_heads, mlp_dim, kernel) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, cls: Tensor, x: Tensor, absent: Tensor | None) -> Tensor:
        """Join `cls` (B, 1, D) and `x` (B, V, D), and update them."""
        x = torch.cat([cls, x], dim=1)  # (B, 1 + V, D)
        if absent is not None:
            absent = F.pad(absent, (1, 0))  # the class token exists
        for block in self.blocks:
            x = block(x, absent)
        return self.norm(x)


class Encoder(SeededModule):
    """From visible patches to a class token and one token each.

    Parameters
    ----------
    patch_size, dim : int
        Time points S of a patch and channels D.
    stack : Stack
        Of `dim` channels.
    """

    def __init__(self, patch_size: int, dim: int, stack: Stack) -> None:
        super().__init__()
        self.embed = nn.Linear(patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(dim))
        self.stack = stack

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw everything as published: normal, with zero biases."""
        draw_normal(self, generator)
        self.cls_token.normal_(0, WEIGHT_SCALE, generator=generator)

    def forward(
        self,
        values: Tensor,
        coordinates: Tensor,
        keep: Tensor | None,
        absent: Tensor | None,
    ) -> Tensor:
        """Return the class token and the tokens at `keep`, (B, 1 + V, D).

        Parameters
        ----------
        values : Tensor of shape (B, R, P, S)
            Patches.
        coordinates : Tensor of shape (R, 3)
            Scaled.
        keep : int64 Tensor of shape (B, V) or None
            Tokens to encode, in this order. None for all in their own.
        absent : bool Tensor of shape (B, V) or None
            Which of these do not exist.
        """
        x = self.stack.places(self.embed(values), coordinates)  # (B, N, D)
        if keep is not None:
            x = take(x, keep)  # (B, V, D)
        return self.stack(self.cls_token.to(x).expand(len(x), 1, -1), x, absent)


class Decoder(SeededModule):
    """From the encoded visible tokens to every patch.

    Parameters
    ----------
    patch_size, dim, stack
        See :class:`Encoder`.
    """

    def __init__(self, patch_size: int, dim: int, stack: Stack) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.stack = stack
        self.head = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.LeakyReLU(HEAD_SLOPE),
            nn.Linear(dim // 2, patch_size),
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw everything as published: Glorot uniform, with zero biases."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                n_out, n_in = part.weight.shape
                # queries, keys and values are three layers in the released code
                n_out = n_in if n_out == 3 * n_in else n_out
                bound = math.sqrt(6 / (n_in + n_out))
                part.weight.uniform_(-bound, bound, generator=generator)
                part.bias.zero_()
            elif isinstance(part, nn.Conv2d):
                bound = part.weight[0].numel() ** -0.5
                part.weight.uniform_(-bound, bound, generator=generator)
        self.mask_token.normal_(0, WEIGHT_SCALE, generator=generator)

    def forward(
        self,
        encoded: Tensor,
        coordinates: Tensor,
        order: Tensor,
        visible: Tensor,
        absent: Tensor | None,
    ) -> Tensor:
        """Predict the patches (B, N, S).

        Parameters
        ----------
        encoded : Tensor of shape (B, 1 + V, D)
            The class token and the first V tokens in `order`.
        coordinates : Tensor of shape (R, 3)
            Scaled.
        order : int64 Tensor of shape (B, N)
            All tokens.
        visible, absent : bool Tensor of shape (B, N), `absent` may be None
            True where a token, in its own place, was encoded, or does not exist.
        """
        x = self.embed(encoded)
        cls, x = x[:, :1], x[:, 1:]
        x = F.pad(x, (0, 0, 0, order.shape[1] - x.shape[1]))  # (B, N, D)
        x = take(x, order.argsort(dim=1))  # in their own place
        x = torch.where(visible.unsqueeze(-1), x, self.mask_token.to(x))
        x = self.stack.places(x.unflatten(1, (len(coordinates), -1)), coordinates)
        return self.head(self.stack(cls, x, absent))[:, 1:]
