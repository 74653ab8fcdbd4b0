"""Encoder and predictor of Brain-JEPA.

Shape letters: B scans, R regions, P patches, S time points of a patch, N = R * P
tokens, K tokens of a list, D channels, G gradients. Absent is True where a token
does not exist.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsym_sklearn.model.block_masking import TokenList
from bsym_sklearn.model.layers import Block, SeededModule, sinusoidal_positions
from bsym_sklearn.model.patches import (
    WEIGHT_SCALE,
    BiasedAttention,
    draw_normal,
    take,
)

NORM_EPS = 1e-6
MLP_RATIO = 4  # hidden channels of a feed-forward net per channel


class ViTBlock(Block):
    """Pre-norm block with the details of ViT: biases, and a small epsilon.

    Parameters
    ----------
    dim, n_heads : int
        Channels and attention heads.

    Examples
    --------
    >>> import torch
    >>> ViTBlock(8, 2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__(dim, n_heads, MLP_RATIO * dim)
        self.attention = BiasedAttention(dim, n_heads)
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Leave the branches to the whole, which draws its own weights."""


class Places(SeededModule):
    """When and where a token is: half of the channels each.

    Sines, then cosines, of the patch; and a linear map of the gradients, of which
    the whole table is scaled to [-1, 1].

    Parameters
    ----------
    n_patches, dim, n_gradients : int
        Patches P, at most, channels D, a multiple of 4, and gradients G.

    Examples
    --------
    >>> import torch
    >>> Places(4, 8, 2)(torch.zeros(3, 2)).shape
    torch.Size([3, 4, 8])
    """

    time: Tensor

    def __init__(self, n_patches: int, dim: int, n_gradients: int) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(
                f"`dim` and `predictor_dim` must be multiples of 4. Got {dim}."
            )
        self.project = nn.Linear(n_gradients, dim // 2)
        self.register_buffer("time", torch.zeros(n_patches, dim // 2), persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Compute the sinusoids."""
        table = sinusoidal_positions(*self.time.shape)
        self.time.copy_(torch.cat([table[:, 0::2], table[:, 1::2]], dim=1))

    def forward(self, coordinates: Tensor, n_patches: int | None = None) -> Tensor:
        """Return the places (R, P, D) of the regions at `coordinates` (R, G)."""
        where = self.project(coordinates)  # (R, D / 2)
        low, high = where.aminmax()
        # Coordinates that were not set would be divided by zero.
        width = (high - low).clamp(min=torch.finfo(where.dtype).tiny)
        where = (where - low) / width * 2 - 1
        when = self.time[:n_patches]  # (P, D / 2)
        shape = (len(where), len(when), -1)
        return torch.cat(
            [
                when.to(where).unsqueeze(0).expand(shape),
                where.unsqueeze(1).expand(shape),
            ],
            dim=2,
        )


class Encoder(SeededModule):
    """Vision transformer over region-by-patch tokens.

    Parameters
    ----------
    n_patches, patch_size, dim, depth, n_heads, n_gradients : int
        Patches P, at most, their time points S, and the other sizes.
    """

    def __init__(
        self,
        n_patches: int,
        patch_size: int,
        *,
        dim: int,
        depth: int,
        n_heads: int,
        n_gradients: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(patch_size, dim)
        self.places = Places(n_patches, dim, n_gradients)
        self.blocks = nn.ModuleList(ViTBlock(dim, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw everything as published: normal, with zero biases."""
        draw_normal(self, generator)

    def forward(
        self,
        values: Tensor,
        coordinates: Tensor,
        keep: Tensor | None = None,
        absent: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens (B, K, D) at `keep`, all N of them if None.

        Parameters
        ----------
        values : Tensor of shape (B, R, P, S)
            Patches.
        coordinates : Tensor of shape (R, G)
            Gradients.
        keep : int64 Tensor of shape (B, K) or None
            Tokens to encode.
        absent : bool Tensor of shape (B, K) or None
            Which of these do not exist.
        """
        x = self.embed(values) + self.places(coordinates, values.shape[2])
        x = x.flatten(1, 2)  # (B, N, D)
        if keep is not None:
            x = take(x, keep)
        for block in self.blocks:
            x = block(x, absent)
        return self.norm(x)


class Predictor(SeededModule):
    """Narrow transformer from encoded context to the embeddings of targets.

    Parameters
    ----------
    n_patches, encoder_dim, dim, depth, n_heads, n_gradients : int
        Patches P, at most, channels of the encoder, and the other sizes.
    """

    def __init__(
        self,
        n_patches: int,
        encoder_dim: int,
        *,
        dim: int,
        depth: int,
        n_heads: int,
        n_gradients: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.places = Places(n_patches, dim, n_gradients)
        self.blocks = nn.ModuleList(ViTBlock(dim, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.out = nn.Linear(dim, encoder_dim)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw everything as published: normal, with zero biases."""
        draw_normal(self, generator)
        self.mask_token.normal_(0, WEIGHT_SCALE, generator=generator)

    def forward(
        self,
        encoded: Tensor,
        coordinates: Tensor,
        n_patches: int,
        context: TokenList,
        targets: TokenList,
    ) -> Tensor:
        """Predict the `targets` (B, K, D) from the `encoded` context."""
        places = self.places(coordinates, n_patches).flatten(0, 1)  # (N, D)
        seen = self.embed(encoded) + places[context.tokens]
        x = torch.cat([seen, self.mask_token + places[targets.tokens]], dim=1)
        absent = torch.cat([context.absent, targets.absent], dim=1)
        for block in self.blocks:
            x = block(x, absent)
        return self.out(self.norm(x[:, seen.shape[1] :]))
