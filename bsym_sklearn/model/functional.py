"""The three views of an fMRI time series: between regions, over time, local.

Shape letters: B scans, T time points, R regions, D channels, G gradients, S signal
channels. A mask is True where a value is hidden; padding is True where a time
point does not exist.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.kernels.interface import TAPS
from bsym_sklearn.model.layers import (
    RESIDUAL_SCALE,
    Block,
    SeededModule,
    attention_maps,
    check_choice,
    sinusoidal_positions,
)
from bsym_sklearn.model.token_attention import LocalSignal, sample_windows

DECODER_DIMS = (32, 8)  # hidden channels of the context decoder
POSITION_SCALE = 0.02  # sd of learned positions at the start
GRADIENT_SCALE = 0.1  # weight of gradient positions at the start
MAX_CORRELATION = 0.999  # Fisher's z is infinite at 1
SPATIAL_TOKENS = ("series", "connectivity", "both")
TEMPORAL_TOKENS = ("linear", "states")
POSITIONS = ("learned", "gradient")


class FMRIInput:
    """An fMRI batch with what is hidden in it and what is padding.

    Parameters
    ----------
    fmri : Tensor of shape (B, T, R)
        Scaled series. Values at hidden points and padding are never used.
    mask : bool Tensor of shape (B, T, R) or None
        True where a value is hidden.
    padding : bool Tensor of shape (B, T) or None
        True where a time point does not exist.

    Attributes
    ----------
    series : Tensor of shape (B, T, R)
        Zero (the mean of a scaled series) at hidden points and padding.
    hidden : bool Tensor of shape (B, T, R) or None
        Hidden points, without padding.
    hidden_regions : bool Tensor of shape (B, R) or None
        Regions with no visible time point.
    hidden_times : bool Tensor of shape (B, T) or None
        Time points with no visible region.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([[[True, False], [True, False]]])
    >>> FMRIInput(torch.ones(1, 2, 2), mask, None).hidden_regions
    tensor([[ True, False]])
    """

    def __init__(
        self, fmri: Tensor, mask: Tensor | None = None, padding: Tensor | None = None
    ) -> None:
        self.padding = padding
        self.hidden = mask
        self.hidden_regions = self.hidden_times = None
        absent = None if padding is None else padding.unsqueeze(-1)  # (B, T, 1)
        if mask is not None:
            unseen = mask if absent is None else mask | absent
            self.hidden = mask if absent is None else mask & ~absent
            self.hidden_regions = unseen.all(1)
            self.hidden_times = self.hidden.all(2)
            fmri = fmri.masked_fill(unseen, 0)
        elif absent is not None:
            fmri = fmri.masked_fill(absent, 0)
        self.series = fmri

    @property
    def visible(self) -> Tensor:
        """Weights (B, T, R): one where a value exists and is seen, else zero."""
        visible = torch.ones_like(self.series)
        if self.padding is not None:
            visible = visible.masked_fill(self.padding.unsqueeze(-1), 0)
        if self.hidden is not None:
            visible = visible.masked_fill(self.hidden, 0)
        return visible


def connectivity_profiles(inputs: FMRIInput) -> Tensor:
    r"""Return each region's Fisher-z correlations with all regions.

    Covariances use the time points at which both regions are visible, means and
    variances those at which the one region is,

    .. math::
        z_{rs} = \mathrm{artanh}\left(\frac{c_{rs}}{\sqrt{c_{rr} c_{ss}}}\right),

    with a zero diagonal, and zero for a region that is hidden or constant in
    the window. Differentiable in the series.

    Parameters
    ----------
    inputs : FMRIInput
        Series of shape (B, T, R).

    Returns
    -------
    Tensor of shape (B, R, R)
        Symmetric; each entry in [-3.8, 3.8].

    Examples
    --------
    >>> import torch
    >>> series = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    >>> connectivity_profiles(FMRIInput(series)).round(decimals=1)
    tensor([[[ 0.0000, -3.8000],
             [-3.8000,  0.0000]]])
    """
    # Counts and small differences: at least single precision, whatever is around.
    with torch.autocast(inputs.series.device.type, enabled=False):
        return _fisher_z(inputs).to(inputs.series)


def _fisher_z(inputs: FMRIInput) -> Tensor:
    """See :func:`connectivity_profiles`."""
    series, visible = inputs.series, inputs.visible  # each (B, T, R)
    if series.dtype in (torch.bfloat16, torch.float16):
        series, visible = series.float(), visible.float()
    count = visible.sum(1, keepdim=True).clamp(min=1)
    centred = (series - series.sum(1, keepdim=True) / count) * visible
    variance = centred.square().sum(1) / count[:, 0]  # (B, R)
    pairs = (visible.transpose(1, 2) @ visible).clamp(min=1)  # (B, R, R)
    covariance = centred.transpose(1, 2) @ centred / pairs
    # Rounding leaves a constant region a variance near eps squared, not zero.
    floor = torch.finfo(variance.dtype).eps
    flat = variance <= floor
    scale = torch.where(flat, 1.0, variance).rsqrt()
    correlation = covariance * scale.unsqueeze(1) * scale.unsqueeze(2)
    nothing = flat.unsqueeze(1) | flat.unsqueeze(2)
    nothing = nothing | torch.eye(flat.shape[1], dtype=torch.bool, device=flat.device)
    return (
        correlation.clamp(-MAX_CORRELATION, MAX_CORRELATION)
        .atanh()
        .masked_fill(nothing, 0)
    )


class SpatialStream(SeededModule):
    """Transformer over regions.

    Parameters
    ----------
    n_regions : int
        Regions R.
    window : int
        Time points T.
    dim, depth, n_heads, mlp_dim : int
        Sizes of the blocks.
    dropout : float, default=0.0
        Rate, in [0, 1).
    tokens : {"series", "connectivity", "both"}, default="series"
        What a region brings: its series (published), its Fisher-z correlations
        with all regions in the same window, or both side by side, where the
        weights of the series start small.
    positions : {"learned", "gradient"}, default="learned"
        A free vector per region, or a linear map of its gradients.
    n_gradients : int, default=10
        Gradients G, used with ``positions="gradient"``.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/spatial_temporal.py.

    Examples
    --------
    >>> import torch
    >>> stream = SpatialStream(3, 20, dim=8, depth=1, n_heads=2, mlp_dim=16)
    >>> stream(FMRIInput(torch.zeros(2, 20, 3))).shape
    torch.Size([2, 3, 8])
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
        dropout: float = 0.0,
        tokens: str = "series",
        positions: str = "learned",
        n_gradients: int = 10,
    ) -> None:
        super().__init__()
        check_choice(tokens, SPATIAL_TOKENS, "spatial_tokens")
        check_choice(positions, POSITIONS, "positions")
        self.tokens = tokens
        self.n_features = {
            "series": window,
            "connectivity": n_regions,
            "both": window + n_regions,
        }[tokens]
        self.window = window
        self.embed = nn.Linear(self.n_features, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        if positions == "learned":
            self.positions: LearnedPositions | GradientPositions = LearnedPositions(
                n_regions, dim
            )
        else:
            self.positions = GradientPositions(n_regions, n_gradients, dim)
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_dim, dropout) for _ in range(depth)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Zero the mask token; beside connectivity, the series start small."""
        self.mask_token.zero_()
        if self.tokens == "both":
            self.embed.weight[:, : self.window].mul_(RESIDUAL_SCALE)

    def forward(self, inputs: FMRIInput) -> Tensor:
        """Return region embeddings (B, R, D)."""
        x = self._embed(inputs)
        for block in self.blocks:
            x = block(x)
        return x

    def attention_maps(self, inputs: FMRIInput) -> Tensor:
        """Return the maps (B, L, H, R, R) of every block."""
        return attention_maps(self.blocks, self._embed(inputs), None)

    def features(self, inputs: FMRIInput) -> Tensor:
        """Return what each region's token is made of: (B, R, T), R or T + R."""
        series = inputs.series.transpose(1, 2)
        if self.tokens == "series":
            return series
        profiles = connectivity_profiles(inputs)
        if self.tokens == "connectivity":
            return profiles
        return torch.cat([series, profiles], dim=-1)

    def _embed(self, inputs: FMRIInput) -> Tensor:
        """Return the tokens (B, R, D) before the first block."""
        x = self.embed(self.features(inputs))
        if inputs.hidden_regions is not None:
            x = torch.where(inputs.hidden_regions.unsqueeze(-1), self.mask_token, x)
        return self.positions(x)


class LearnedPositions(SeededModule):
    """A free vector per region, added to its token.

    Parameters
    ----------
    n_regions, dim : int
        Regions R and channels D.

    Examples
    --------
    >>> LearnedPositions(3, 8).vectors().shape
    torch.Size([3, 8])
    """

    def __init__(self, n_regions: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_regions, dim))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors."""
        self.table.normal_(0, POSITION_SCALE, generator=generator)

    def vectors(self) -> Tensor:
        """Return the position of each region, (R, D)."""
        return self.table

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions to `x` (B, R, D)."""
        return x + self.vectors()


class GradientPositions(SeededModule):
    """Positions from the gradients of functional connectivity.

    As in the released code, ``LayerNorm(x + alpha * Linear(gradients))`` with a
    learned `alpha`.

    Parameters
    ----------
    n_regions, n_gradients, dim : int
        Regions R, gradients G and channels D.

    Attributes
    ----------
    coordinates : Tensor of shape (R, G)
        Group gradients, or (B, R, G) for gradients of each scan. Fitted outside
        of the model and stored with its weights.

    Examples
    --------
    >>> GradientPositions(3, 2, 8).vectors().shape
    torch.Size([3, 8])
    """

    coordinates: Tensor

    def __init__(self, n_regions: int, n_gradients: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("coordinates", torch.zeros(n_regions, n_gradients))
        self.project = nn.Linear(n_gradients, dim)
        self.norm = nn.LayerNorm(dim)
        self.alpha = nn.Parameter(torch.tensor(GRADIENT_SCALE))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Set the weight of the positions to its published start."""
        self.alpha.fill_(GRADIENT_SCALE)
        self.coordinates.zero_()

    def vectors(self) -> Tensor:
        """Return the position of each region, (R, D) or (B, R, D)."""
        return self.alpha * self.project(self.coordinates)

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions to `x` (B, R, D) and normalise."""
        return self.norm(x + self.vectors())


class BrainStates(nn.Module):
    r"""Describe the state of the whole brain at each time point.

    .. math::
        s_t = \mathrm{relu}(\mathrm{LN}(\textstyle\sum_k U_k x_{t+k} + a))

    Their average over time sees more than covariances do, since each state is a
    non-linear function of all regions at once; it is what meanMLP [1]_ reads.

    Parameters
    ----------
    n_regions, n_states : int
        Regions R and state channels.
    kernel : int, default=1
        Time points that a state depends on, odd.

    References
    ----------
    .. [1] Popov et al. (2024). A simple but tough-to-beat baseline for fMRI
       time-series classification. NeuroImage 303, 120909.

    Examples
    --------
    >>> import torch
    >>> BrainStates(3, 16)(torch.zeros(2, 20, 3)).shape
    torch.Size([2, 20, 16])
    """

    def __init__(self, n_regions: int, n_states: int, kernel: int = 1) -> None:
        super().__init__()
        self.embed = nn.Conv1d(n_regions, n_states, kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(n_states)

    def forward(self, series: Tensor) -> Tensor:
        """Return the states of `series` (B, T, R)."""
        x = self.embed(series.transpose(1, 2)).transpose(1, 2)
        return F.relu(self.norm(x))


class TemporalStream(SeededModule):
    """Transformer over time points.

    Parameters
    ----------
    n_regions : int
        Regions R.
    dim, depth, n_heads, mlp_dim : int
        Sizes of the blocks.
    dropout : float, default=0.0
        Rate, in [0, 1).
    tokens : {"linear", "states"}, default="linear"
        A time point's token is a linear map of its values (published), or of its
        :class:`BrainStates`.
    kernel : int, default=1
        Neighbouring time points that a token is made of, odd; 1 as published.
    n_states : int, default=160
        Channels of the states.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/spatial_temporal.py.

    Examples
    --------
    >>> import torch
    >>> stream = TemporalStream(3, dim=8, depth=1, n_heads=2, mlp_dim=16)
    >>> stream(FMRIInput(torch.zeros(2, 20, 3))).shape
    torch.Size([2, 20, 8])
    """

    def __init__(
        self,
        n_regions: int,
        *,
        dim: int,
        depth: int,
        n_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        tokens: str = "linear",
        kernel: int = 1,
        n_states: int = 160,
    ) -> None:
        super().__init__()
        check_choice(tokens, TEMPORAL_TOKENS, "temporal_tokens")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"`temporal_kernel` must be odd and at least 1. Got {kernel}."
            )
        self.states = None
        self.embed: nn.Linear | nn.Conv1d = nn.Linear(n_regions, dim)
        if tokens == "states":
            self.states = BrainStates(n_regions, n_states, kernel)
            self.embed = nn.Linear(n_states, dim)
        elif kernel > 1:
            self.embed = nn.Conv1d(n_regions, dim, kernel, padding=kernel // 2)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_dim, dropout) for _ in range(depth)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Zero the mask token."""
        self.mask_token.zero_()

    def forward(self, inputs: FMRIInput, states: Tensor | None = None) -> Tensor:
        """Return time point embeddings (B, T, D); `states` if they are known."""
        x = self._embed(inputs, states)
        for block in self.blocks:
            x = block(x, inputs.padding)
        return x

    def brain_states(self, inputs: FMRIInput) -> Tensor | None:
        """Return the states (B, T, S) that the tokens are made of, if they are."""
        return None if self.states is None else self.states(inputs.series)

    def attention_maps(self, inputs: FMRIInput) -> Tensor:
        """Return the maps (B, L, H, T, T) of every block."""
        return attention_maps(self.blocks, self._embed(inputs), inputs.padding)

    def _embed(self, inputs: FMRIInput, states: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, D) before the first block."""
        if states is None:
            states = self.brain_states(inputs)
        x = inputs.series if states is None else states
        if isinstance(self.embed, nn.Conv1d):
            x = self.embed(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = self.embed(x)
        if inputs.hidden_times is not None:
            x = torch.where(inputs.hidden_times.unsqueeze(-1), self.mask_token, x)
        return x + sinusoidal_positions(*x.shape[1:]).to(x)


class ContextStream(SeededModule):
    """Convolution along each region's own series.

    Parameters
    ----------
    dim : int, default=64
        Signal channels S.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/context_conv.py.

    Examples
    --------
    >>> import torch
    >>> ContextStream(4)(FMRIInput(torch.zeros(2, 20, 3))).shape
    torch.Size([2, 3, 20, 4])
    """

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, dim, TAPS, padding=TAPS // 2)
        self.mask_token = nn.Parameter(torch.zeros(1))
        sizes = (dim, *DECODER_DIMS)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.GELU()]
        self.decoder = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Zero the value that stands for a hidden point."""
        self.mask_token.zero_()

    def forward(self, inputs: FMRIInput) -> Tensor:
        """Return signal features (B, R, T, S)."""
        series, taps, bias = self.signal(inputs)
        return F.linear(sample_windows(series), taps, bias)

    def signal(self, inputs: FMRIInput) -> LocalSignal:
        """Return what the features are made of, at the cost of nothing."""
        x = inputs.series
        if inputs.hidden is not None:
            x = torch.where(inputs.hidden, self.mask_token, x)
        weight, bias = self.convolution.parameters()
        return LocalSignal(x.transpose(1, 2), weight.squeeze(1), bias)

    def decode(self, features: Tensor) -> Tensor:
        """Reconstruct the series (B, T, R) from `features` (B, R, T, S)."""
        return self.decoder(features).squeeze(-1).transpose(1, 2)

    def predict(self, inputs: FMRIInput, times: Tensor) -> Tensor:
        """Reconstruct chosen points only.

        Parameters
        ----------
        inputs : FMRIInput
            Series of shape (B, T, R).
        times : int64 Tensor of shape (B, R, N)
            Time points of each region.

        Returns
        -------
        Tensor of shape (B, R, N)
        """
        series, taps, bias = self.signal(inputs)
        windows = sample_windows(series)  # (B, R, T, TAPS)
        index = times.unsqueeze(-1).expand(-1, -1, -1, windows.shape[-1])
        features = F.linear(windows.gather(2, index), taps, bias)  # (B, R, N, S)
        return self.decoder(features).squeeze(-1)
