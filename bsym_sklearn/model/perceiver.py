"""Distil all region-by-time tokens of a scan into one latent per region.

Shape letters: B scans, T time points, R regions, D channels, S signal channels,
P channels of each part of a token, K taps of the signal's convolution, H heads.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import (
    Block,
    SeededModule,
    check_choice,
    check_heads,
    shrink,
    split_heads,
)
from bsym_sklearn.model.token_attention import LocalSignal, TokenParts, attend_tokens

LATENT_SCALE = 0.02  # sd of the latents at the start
RESIDUALS = ("reference", "query", "region")
DECODERS = ("reference", "temporal", "residual")


class RegionPerceiver(SeededModule):
    r"""Cross-attention from one latent per region to all R x T tokens.

    The token of region r at time t is
    :math:`\mathrm{LN}(W [W_r\, s_r;\; W_t\, h_t;\; W_c\, c_{rt}])` of the three
    streams. The projection of a concatenation is a sum of projections, and the
    context stream is linear in the samples around t, so a token is a sum of a part
    per region, a part per time point and a few samples: no token is ever built, see
    :mod:`bsym_sklearn.model.token_attention`.

    Parameters
    ----------
    n_regions, window : int
        Regions R and time points T.
    dim, depth, n_heads, mlp_dim : int
        Sizes; `depth` counts the blocks between latents.
    context_dim : int
        Signal channels S.
    projection_dim : int
        Channels P that each stream contributes to a token.
    dropout : float, default=0.0
        Rate, in [0, 1).
    residual : {"reference", "query", "region"}, default="reference"
        What a latent keeps beside what it attends to. ``"reference"``:
        nothing, as released, which almost erases the difference between
        regions at the start; ``"query"``: the query, as in usual blocks;
        ``"region"``: the query and the region's own spatial embedding.
    decoder : {"reference", "temporal", "residual"}, default="reference"
        Where a decoded series comes from. ``"reference"``: from the latent
        alone, which then has to hold the whole time course; ``"temporal"``:
        from the product of the latent and the temporal stream, so that a latent
        says what a region is and the temporal stream what happened when;
        ``"residual"``: the same, small at the start, as it is added to what
        :class:`~bsym_sklearn.model.dynamics.LinearDynamics` expects.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/perceiver.py.
    .. [2] Jaegle et al. (2022). Perceiver IO. ICLR. Section 3.1.

    Examples
    --------
    >>> import torch
    >>> from bsym_sklearn.model.token_attention import LocalSignal
    >>> perceiver = RegionPerceiver(
    ...     3, 20, dim=8, depth=1, n_heads=2, mlp_dim=16, context_dim=4,
    ...     projection_dim=8,
    ... )
    >>> latents = perceiver(
    ...     torch.zeros(2, 3, 8), torch.zeros(2, 20, 8),
    ...     LocalSignal(torch.zeros(2, 3, 20), torch.zeros(4, 5), torch.zeros(4)),
    ...     torch.zeros(3, 8),
    ... )
    >>> latents.shape, perceiver.decode(latents, torch.zeros(2, 20, 8)).shape
    (torch.Size([2, 3, 8]), torch.Size([2, 20, 3]))
    """

    def __init__(
        self,
        n_regions: int,
        window: int,
        *,
        dim: int,
        depth: int,
        n_heads: int,
        mlp_dim: int,
        context_dim: int,
        projection_dim: int,
        dropout: float = 0.0,
        residual: str = "reference",
        decoder: str = "reference",
    ) -> None:
        super().__init__()
        check_heads(dim, n_heads)
        check_choice(residual, RESIDUALS, "perceiver_residual")
        check_choice(decoder, DECODERS, "decoder")
        self.n_heads = n_heads
        self.residual = residual
        self.decoder = decoder
        self.latents = nn.Parameter(torch.zeros(n_regions, dim))
        self.from_region = nn.Linear(dim, projection_dim)
        self.from_time = nn.Linear(dim, projection_dim)
        self.from_signal = nn.Linear(context_dim, projection_dim)
        self.join = nn.Linear(3 * projection_dim, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.latent_norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_dim, dropout) for _ in range(depth)
        )
        code_dim = window if decoder == "reference" else dim
        self.head = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, code_dim)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the latents; what is added to something else starts small."""
        self.latents.normal_(0, LATENT_SCALE, generator=generator)
        if self.residual != "reference":
            shrink(self.out)
        if self.decoder == "residual":
            *_, last = self.head
            shrink(cast(nn.Linear, last))

    def forward(
        self,
        spatial: Tensor,
        temporal: Tensor,
        signal: LocalSignal,
        positions: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return one latent per region, (B, R, D).

        Parameters
        ----------
        spatial : Tensor of shape (B, R, D)
        temporal : Tensor of shape (B, T, D)
        signal : LocalSignal
            The context stream, before it is applied.
        positions : Tensor of shape (R, D) or (B, R, D)
            Added to the latents.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.

        Returns
        -------
        Tensor of shape (B, R, D)
        """
        start = self._queries(spatial, positions)
        mixed, _ = self._attend(start, spatial, temporal, signal, padding)
        x = self.out(mixed)
        if self.residual != "reference":
            x = x + start
        x = self.latent_norm(x)
        for block in self.blocks:
            x = block(x)
        return x

    def decode(self, latents: Tensor, temporal: Tensor) -> Tensor:
        """Reconstruct the series (B, T, R).

        Parameters
        ----------
        latents : Tensor of shape (B, R, D)
        temporal : Tensor of shape (B, T, D)
            Not used with ``decoder="reference"``.

        Returns
        -------
        Tensor of shape (B, T, R)
        """
        codes = self.head(latents).transpose(1, 2)  # (B, T, R) or (B, D, R)
        if self.decoder == "reference":
            return codes
        return temporal @ codes / temporal.shape[-1] ** 0.5

    def attention_map(
        self,
        spatial: Tensor,
        temporal: Tensor,
        signal: LocalSignal,
        positions: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the map (B, H, R, R), its keys summed over time; rows sum to one."""
        start = self._queries(spatial, positions)
        return self._attend(start, spatial, temporal, signal, padding)[1]

    def _queries(self, spatial: Tensor, positions: Tensor) -> Tensor:
        """Return the latents before the cross-attention, (B, R, D)."""
        start = (self.latents + positions).expand_as(spatial)
        return start + spatial if self.residual == "region" else start

    def _attend(
        self,
        start: Tensor,
        spatial: Tensor,
        temporal: Tensor,
        signal: LocalSignal,
        padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return mixed values (B, R, D) and the map (B, H, R, R)."""
        w_region, w_time, w_signal = self.join.weight.chunk(3, dim=1)  # each (D, P)
        constant = F.linear(signal.bias, self.from_signal.weight, self.from_signal.bias)
        tokens = TokenParts(
            region=F.linear(
                self.from_region(spatial),
                w_region,
                F.linear(constant, w_signal, self.join.bias),
            ),
            time=F.linear(self.from_time(temporal), w_time),
            taps=w_signal @ self.from_signal.weight @ signal.taps,  # (D, K)
            series=signal.series,
        )
        query = split_heads(self.query(start), self.n_heads)
        return attend_tokens(query, tokens, self.token_norm, self.key_value, padding)
