"""Encoders of the shape of BrainLM and Brain-JEPA: stand-ins, not their code.

Time and memory of a transformer follow from its tokens and widths, which are
published; the weights here are random.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Shape(NamedTuple):
    """What is published of an encoder, and the scan that it reads."""

    n_regions: int
    n_timepoints: int
    image: tuple[int, int]  # the scan, padded
    patch: tuple[int, int]
    channels: int  # of the image, all the same
    class_token: bool
    position_dim: int  # learned channels of the position of a token
    dim: int = 768
    depth: int = 12
    n_heads: int = 12

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens."""
        n_patches = [
            side // step for side, step in zip(self.image, self.patch, strict=True)
        ]
        return n_patches[0] * n_patches[1] + self.class_token


# Caro et al. (2024), ICLR, 111M: a ViT-MAE of 424 regions x 200 time points in an
# image of three channels; 86.2 M of its 112.6 M parameters are the encoder's.
BRAINLM = Shape(424, 200, (432, 432), (16, 16), 3, True, 768)
# Dong et al. (2024), NeurIPS, ViT-B: 16 time points of a region are a token. Half of
# a position is a learned map of gradients, half is fixed. 86.8 M parameters.
BRAIN_JEPA = Shape(450, 160, (450, 160), (1, 16), 1, False, 384)


class Block(nn.Module):
    """Pre-norm transformer block on torch's fused attention."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Linear(4 * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Update tokens (B, N, D)."""
        parts = self.query_key_value(self.norm(x)).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed_forward(x)


class StandIn(nn.Module):
    """Vision transformer over a scan as an image.

    Parameters
    ----------
    shape : Shape
        Sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Conv2d(shape.channels, shape.dim, shape.patch, shape.patch)
        # the rest of the channels has fixed positions, which cost no time
        self.positions = nn.Parameter(torch.randn(shape.n_tokens, shape.position_dim))
        if shape.class_token:
            self.class_token = nn.Parameter(torch.randn(1, 1, shape.dim))
        self.blocks = nn.Sequential(
            *(Block(shape.dim, shape.n_heads) for _ in range(shape.depth))
        )
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, fmri: Tensor) -> Tensor:
        """Return tokens (B, N, D) of scans (B, R, T)."""
        height, width = self.shape.image
        n_scans, n_regions, n_timepoints = fmri.shape
        image = F.pad(fmri, (0, width - n_timepoints, 0, height - n_regions))
        image = image.unsqueeze(1).expand(-1, self.shape.channels, -1, -1)
        x = self.embed(image).flatten(2).transpose(1, 2)
        if self.shape.class_token:
            x = torch.cat([self.class_token.expand(n_scans, -1, -1), x], dim=1)
        fixed = self.shape.dim - self.shape.position_dim
        x = x + F.pad(self.positions, (0, fixed))
        return self.norm(self.blocks(x))
