"""BrainSymphony: fMRI and structural connectome to one embedding per region.

Shape letters: B scans, T time points, R regions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.model.dynamics import LinearDynamics
from bsym_sklearn.model.functional import (
    ContextStream,
    FMRIInput,
    GradientPositions,
    SpatialStream,
    TemporalStream,
)
from bsym_sklearn.model.layers import check_choice, initialize_weights
from bsym_sklearn.model.perceiver import RegionPerceiver
from bsym_sklearn.model.structural import StructuralStream
from bsym_sklearn.model.token_attention import LocalSignal

MODALITIES = ("fmri", "sc")
FINAL_NORMS = ("reference", "layer")
FUSIONS = ("gate", "mean")
ENCODER_STREAMS = ("spatial", "temporal", "states")
STREAMS = ("spatial", "temporal", "perceiver", "structural")


@dataclass(frozen=True)
class BrainSymphonyOutput:
    """Everything the model says about a batch; None for a modality not given.

    Parameters
    ----------
    spatial : Tensor of shape (B, R, D)
        Region embeddings of the spatial stream.
    temporal : Tensor of shape (B, T, D)
        Time point embeddings of the temporal stream.
    states : Tensor of shape (B, T, S)
        States of the whole brain, with ``temporal_tokens="states"``.
    latents : Tensor of shape (B, R, D)
        Region embeddings distilled from fMRI.
    expected : Tensor of shape (B, T, R)
        What linear dynamics say of the series, with ``decoder="residual"``.
    fmri_reconstruction : Tensor of shape (B, T, R)
        Series decoded from the latents.
    structural : Tensor of shape (B, R, D)
        Region embeddings distilled from the connectome.
    gate : Tensor of shape (B, R, D)
        Weight of fMRI against the connectome, in (0, 1).
    fused : Tensor of shape (B, R, D)
        The region embeddings to use.
    """

    spatial: Tensor | None = None
    temporal: Tensor | None = None
    states: Tensor | None = None
    latents: Tensor | None = None
    expected: Tensor | None = None
    fmri_reconstruction: Tensor | None = None
    structural: Tensor | None = None
    gate: Tensor | None = None
    fused: Tensor | None = None


class FMRIEncoder(nn.Module):
    """Spatial, temporal and context streams, distilled by a Perceiver.

    Parameters
    ----------
    spatial, temporal, context, perceiver : nn.Module
        The four parts.
    dynamics : LinearDynamics or None
        What the decoded series is added to.
    dim : int
        Channels D.
    final_norm : {"reference", "layer"}
        No norm after the pre-norm stacks (released), or a layer norm.
    """

    def __init__(
        self,
        spatial: SpatialStream,
        temporal: TemporalStream,
        context: ContextStream,
        perceiver: RegionPerceiver,
        dynamics: LinearDynamics | None,
        *,
        dim: int,
        final_norm: str,
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal
        self.context = context
        self.perceiver = perceiver
        self.dynamics = dynamics
        self.norms = nn.ModuleDict(
            {
                name: nn.LayerNorm(dim) if final_norm == "layer" else nn.Identity()
                for name in ("spatial", "temporal", "latents")
            }
        )

    def streams(
        self, inputs: FMRIInput, names: Collection[str] = ENCODER_STREAMS
    ) -> BrainSymphonyOutput:
        """Return what the streams of these names make of `inputs`."""
        spatial = temporal = states = None
        if "spatial" in names:
            spatial = self.norms["spatial"](self.spatial(inputs))
        if "states" in names:
            states = self.temporal.brain_states(inputs)
        if "temporal" in names:
            temporal = self.norms["temporal"](self.temporal(inputs, states))
        return BrainSymphonyOutput(spatial=spatial, temporal=temporal, states=states)

    def tokens(self, inputs: FMRIInput) -> tuple[Tensor, Tensor, LocalSignal, Tensor]:
        """Return what the Perceiver reads: three streams and the positions."""
        return self._tokens(self.streams(inputs), inputs)

    def forward(self, inputs: FMRIInput, decode: bool = True) -> BrainSymphonyOutput:
        """Encode `inputs`, and decode the series from the latents."""
        out = self.streams(inputs)
        spatial, temporal, *others = self._tokens(out, inputs)
        latents = self.perceiver(spatial, temporal, *others, inputs.padding)
        out = replace(out, latents=self.norms["latents"](latents))
        if not decode:
            return out
        if self.dynamics is not None:
            out = replace(out, expected=self.dynamics(inputs))
        return replace(out, fmri_reconstruction=self.decode(out.latents, out))

    def decode(self, latents: Any, out: BrainSymphonyOutput) -> Tensor:
        """Decode the series (B, T, R) from `latents` and the rest of an output."""
        temporal: Any = out.temporal
        decoded = self.perceiver.decode(latents, temporal)
        return decoded if out.expected is None else out.expected + decoded

    def _tokens(
        self, out: BrainSymphonyOutput, inputs: FMRIInput
    ) -> tuple[Any, Any, LocalSignal, Tensor]:
        """See :meth:`tokens`."""
        signal = self.context.signal(inputs)
        return out.spatial, out.temporal, signal, self.spatial.positions.vectors()


class EqualWeights(nn.Module):
    """Mix two modalities half and half, whatever they say.

    Examples
    --------
    >>> import torch
    >>> EqualWeights()(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8)).unique()
    tensor([0.5000])
    """

    def forward(self, fmri: Tensor, sc: Tensor) -> Tensor:
        """Return the weight (B, R, D) of `fmri` against `sc`, both (B, R, D)."""
        return torch.full_like(fmri + sc, 0.5)


class Gate(nn.Module):
    r"""Mix two modalities per region and channel.

    :math:`g = \sigma(W [f; s])`, fused :math:`= g f + (1 - g) s`.

    Parameters
    ----------
    dim : int
        Channels D.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/fusion.py.

    Examples
    --------
    >>> import torch
    >>> gate = Gate(8)
    >>> weight = gate(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8))
    >>> weight.shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, fmri: Tensor, sc: Tensor) -> Tensor:
        """Return the weight (B, R, D) of `fmri` against `sc`, both (B, R, D)."""
        return self.project(torch.cat([fmri, sc], dim=-1)).sigmoid()


class BrainSymphony(nn.Module):
    """The whole model; either modality alone works without changing anything.

    Defaults are the published sizes and the published function. Every option
    whose value is ``"reference"`` has a repaired alternative.

    Parameters
    ----------
    n_regions : int
        Regions R.
    window : int, default=200
        Time points T that the model sees at once.
    modalities : tuple of {"fmri", "sc"}, default=("fmri", "sc")
        Branches to build.
    dim : int, default=128
        Channels D of every embedding.
    depth : int, default=6
        Blocks of the spatial stream, and of the two others if not given.
    temporal_depth, structural_depth : int or None, default=None
        Blocks of the temporal and the structural stream.
    perceiver_depth : int, default=2
        Blocks between the latents.
    n_heads, perceiver_heads, structural_heads : int, default=4, 2, 4
        Attention heads.
    mlp_dim : int or None, default=None
        Hidden channels of the feed-forward nets, 4 D if not given.
    perceiver_mlp_dim, structural_mlp_dim : int or None, default=None
        The same in the Perceiver and the structural stream, `mlp_dim` if not given.
    context_dim : int, default=64
        Channels of the context convolution.
    projection_dim : int or None, default=None
        Channels that each stream contributes to a Perceiver token, D if not
        given.
    dropout : float, default=0.1
        Rate, in [0, 1).
    spatial_tokens, positions, n_gradients
        See :class:`~bsym_sklearn.model.functional.SpatialStream`.
    temporal_tokens, temporal_kernel, n_states
        See :class:`~bsym_sklearn.model.functional.TemporalStream`.
    edge_weights, max_hops, structural_positions
        See :class:`~bsym_sklearn.model.structural.StructuralStream`.
    signed_attention, absent_edges
        See :class:`~bsym_sklearn.model.structural.SignedGraphAttention`.
    edge_symmetry
        See :class:`~bsym_sklearn.model.edges.EdgePredictor`.
    fusion : {"gate", "mean"}, default="gate"
        Weights of two modalities: learned per region and channel, or equal.
    perceiver_residual, decoder
        See :class:`~bsym_sklearn.model.perceiver.RegionPerceiver`; with
        ``decoder="residual"`` decoded edges are added to expected ones too.
    dynamics_order : int, default=2
        Time points back, with ``decoder="residual"``.
    final_norm : {"reference", "layer"}, default="reference"
        No norm after the pre-norm stacks (released, so that the gate partly
        measures scale), or a layer norm.
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Attributes
    ----------
    config : dict
        The constructor's arguments, as JSON can hold them:
        ``BrainSymphony(**config)`` builds the same model.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> import torch
    >>> model = BrainSymphony(n_regions=5, window=20, dim=8, depth=1).eval()
    >>> out = model(fmri=torch.randn(2, 20, 5), sc=torch.ones(2, 5, 5))
    >>> out.fused.shape, out.fmri_reconstruction.shape
    (torch.Size([2, 5, 8]), torch.Size([2, 20, 5]))
    >>> model(sc=torch.ones(2, 5, 5)).gate is None
    True
    """

    def __init__(
        self,
        n_regions: int,
        window: int = 200,
        *,
        modalities: tuple[str, ...] = MODALITIES,
        dim: int = 128,
        depth: int = 6,
        temporal_depth: int | None = None,
        structural_depth: int | None = None,
        perceiver_depth: int = 2,
        n_heads: int = 4,
        perceiver_heads: int = 2,
        structural_heads: int = 4,
        mlp_dim: int | None = None,
        perceiver_mlp_dim: int | None = None,
        structural_mlp_dim: int | None = None,
        context_dim: int = 64,
        projection_dim: int | None = None,
        dropout: float = 0.1,
        spatial_tokens: str = "series",
        positions: str = "learned",
        n_gradients: int = 10,
        temporal_tokens: str = "linear",
        temporal_kernel: int = 1,
        n_states: int = 160,
        edge_weights: str = "first_hop",
        max_hops: int = 2,
        structural_positions: str = "learned",
        signed_attention: str = "reference",
        absent_edges: str = "reference",
        edge_symmetry: str = "reference",
        fusion: str = "gate",
        perceiver_residual: str = "reference",
        decoder: str = "reference",
        dynamics_order: int = 2,
        final_norm: str = "reference",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice(final_norm, FINAL_NORMS, "final_norm")
        check_choice(fusion, FUSIONS, "fusion")
        if not modalities or set(modalities) - set(MODALITIES):
            raise ValueError(
                f"`modalities` must be a non-empty part of {MODALITIES}. "
                f"Got {modalities!r}."
            )
        self.n_regions = n_regions
        self.window = window
        self.dim = dim
        self.modalities = tuple(modalities)
        self.config: dict[str, Any] = {
            "n_regions": n_regions,
            "window": window,
            "modalities": list(modalities),
            "dim": dim,
            "depth": depth,
            "temporal_depth": temporal_depth,
            "structural_depth": structural_depth,
            "perceiver_depth": perceiver_depth,
            "n_heads": n_heads,
            "perceiver_heads": perceiver_heads,
            "structural_heads": structural_heads,
            "mlp_dim": mlp_dim,
            "context_dim": context_dim,
            "projection_dim": projection_dim,
            "dropout": dropout,
            "spatial_tokens": spatial_tokens,
            "positions": positions,
            "n_gradients": n_gradients,
            "temporal_tokens": temporal_tokens,
            "temporal_kernel": temporal_kernel,
            "n_states": n_states,
            "edge_weights": edge_weights,
            "max_hops": max_hops,
            "structural_positions": structural_positions,
            "signed_attention": signed_attention,
            "absent_edges": absent_edges,
            "edge_symmetry": edge_symmetry,
            "fusion": fusion,
            "perceiver_residual": perceiver_residual,
            "decoder": decoder,
            "dynamics_order": dynamics_order,
            "final_norm": final_norm,
        }
        self.fmri: FMRIEncoder | None = None
        self.sc: StructuralStream | None = None
        self.gate: nn.Module | None = None
        mlp_dim = 4 * dim if mlp_dim is None else mlp_dim
        # Nothing is drawn from torch's global generator: the weights are made
        # without memory and filled from ours.
        with torch.device("meta"):
            if "fmri" in modalities:
                spatial = SpatialStream(
                    n_regions,
                    window,
                    dim=dim,
                    depth=depth,
                    n_heads=n_heads,
                    mlp_dim=mlp_dim,
                    dropout=dropout,
                    tokens=spatial_tokens,
                    positions=positions,
                    n_gradients=n_gradients,
                )
                temporal = TemporalStream(
                    n_regions,
                    dim=dim,
                    depth=depth if temporal_depth is None else temporal_depth,
                    n_heads=n_heads,
                    mlp_dim=mlp_dim,
                    dropout=dropout,
                    tokens=temporal_tokens,
                    kernel=temporal_kernel,
                    n_states=n_states,
                )
                perceiver = RegionPerceiver(
                    n_regions,
                    window,
                    dim=dim,
                    depth=perceiver_depth,
                    n_heads=perceiver_heads,
                    mlp_dim=mlp_dim if perceiver_mlp_dim is None else perceiver_mlp_dim,
                    context_dim=context_dim,
                    projection_dim=dim if projection_dim is None else projection_dim,
                    dropout=dropout,
                    residual=perceiver_residual,
                    decoder=decoder,
                )
                dynamics = None
                if decoder == "residual":
                    dynamics = LinearDynamics(n_regions, dynamics_order)
                self.fmri = FMRIEncoder(
                    spatial,
                    temporal,
                    ContextStream(context_dim),
                    perceiver,
                    dynamics,
                    dim=dim,
                    final_norm=final_norm,
                )
            if "sc" in modalities:
                self.sc = StructuralStream(
                    n_regions,
                    dim=dim,
                    depth=depth if structural_depth is None else structural_depth,
                    n_heads=structural_heads,
                    mlp_dim=(
                        mlp_dim if structural_mlp_dim is None else structural_mlp_dim
                    ),
                    dropout=dropout,
                    edge_weights=edge_weights,
                    max_hops=max_hops,
                    positions=structural_positions,
                    signed_attention=signed_attention,
                    absent_edges=absent_edges,
                    edge_symmetry=edge_symmetry,
                    expects_edges=decoder == "residual",
                )
            if len(self.modalities) == len(MODALITIES):
                self.gate = Gate(dim) if fusion == "gate" else EqualWeights()
        self.float()  # a float64 default of torch would draw other weights
        self.to_empty(device="cpu")
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        initialize_weights(self, generator)

    def forward(
        self,
        fmri: Tensor | None = None,
        sc: Tensor | None = None,
        fmri_mask: Tensor | None = None,
        *,
        sc_mask: Tensor | None = None,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
        has_sc: Tensor | None = None,
        only: Collection[str] | None = None,
        decode: bool = True,
    ) -> BrainSymphonyOutput:
        """Embed a batch.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R) or None
            Scaled series.
        sc : Tensor of shape (B, R, R) or None
            Scaled connectomes.
        fmri_mask : bool Tensor of shape (B, T, R) or None
            True where a value is hidden.
        sc_mask : bool Tensor of shape (B, R, R) or None
            True where an edge is hidden; symmetric.
        sc_hops, sc_positions : Tensor of shape (B, K, R, R), (B, R, 30) or None
            What :meth:`StructuralStream.prepare
            <bsym_sklearn.model.structural.StructuralStream.prepare>` made of each
            connectome, so that it is not made again. Not used with `sc_mask`.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        has_fmri, has_sc : bool Tensor of shape (B,) or None
            False for scans whose rows of `fmri` or `sc` are only filling. None
            is the same as all True.
        only : collection of {"spatial", "temporal", "states", "structural"} or None
            Outputs to compute, without the Perceiver and the gate, which are most of
            the time. None computes everything.
        decode : bool, default=True
            Whether to decode the series too.

        Returns
        -------
        BrainSymphonyOutput
        """
        out = BrainSymphonyOutput()
        structural = None
        if fmri is not None and self.fmri is not None:
            inputs = FMRIInput(fmri, fmri_mask, padding)
            out = (
                self.fmri(inputs, decode)
                if only is None
                else self.fmri.streams(inputs, only)
            )
        wants_sc = only is None or "structural" in only
        if sc is not None and self.sc is not None and wants_sc:
            structural = self.sc(
                sc, sc_mask, sc_hops=sc_hops, sc_positions=sc_positions
            )
        if only is not None:
            return replace(out, structural=structural)
        gate, fused = self._fuse(out.latents, structural, has_fmri, has_sc)
        return replace(out, structural=structural, gate=gate, fused=fused)

    def attention_maps(
        self,
        stream: str,
        fmri: Tensor | None = None,
        sc: Tensor | None = None,
        *,
        fmri_mask: Tensor | None = None,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the attention of one stream, as `forward` applies it.

        Parameters
        ----------
        stream : {"spatial", "temporal", "perceiver", "structural"}
            Which part.
        fmri, sc, fmri_mask, sc_hops, sc_positions, padding
            See :meth:`forward`.

        Returns
        -------
        Tensor of shape (B, L, H, N, N)
            Maps of block L and head H; N is R, or T for ``"temporal"``. The
            Perceiver has one block, its keys summed over time. Rows sum to one
            but for the signed ``"structural"`` maps.
        """
        check_choice(stream, STREAMS, "stream")
        if stream == "structural":
            if self.sc is None or sc is None:
                raise ValueError("The 'structural' stream needs `sc`. Got none.")
            return self.sc.attention_maps(
                sc, sc_hops=sc_hops, sc_positions=sc_positions
            )
        if self.fmri is None or fmri is None:
            raise ValueError(f"The {stream!r} stream needs `fmri`. Got none.")
        inputs = FMRIInput(fmri, fmri_mask, padding)
        if stream == "spatial":
            return self.fmri.spatial.attention_maps(inputs)
        if stream == "temporal":
            return self.fmri.temporal.attention_maps(inputs)
        tokens = self.fmri.tokens(inputs)
        return self.fmri.perceiver.attention_map(*tokens, padding).unsqueeze(1)

    def set_coordinates(self, coordinates: Tensor) -> None:
        """Store the gradients (R, G) used by ``positions="gradient"``."""
        positions = None if self.fmri is None else self.fmri.spatial.positions
        if not isinstance(positions, GradientPositions):
            raise ValueError(
                'set_coordinates needs a model with positions="gradient" and the '
                "'fmri' modality. Got another. Build the model with both."
            )
        table = positions.coordinates
        if coordinates.shape != table.shape:
            raise ValueError(
                f"set_coordinates needs gradients of shape {tuple(table.shape)}. "
                f"Got {tuple(coordinates.shape)}. Use the same regions and number "
                "of gradients."
            )
        table.copy_(coordinates.to(table))

    def set_expectations(
        self, whitening: Tensor | None = None, edges: Tensor | None = None
    ) -> None:
        """Store what ``decoder="residual"`` adds to: a filter, mean edges, or both.

        Parameters
        ----------
        whitening : Tensor of shape (R, R, L + 1) or None
            See :class:`~bsym_sklearn.model.dynamics.LinearDynamics`.
        edges : Tensor of shape (R, R) or None
            See :class:`~bsym_sklearn.model.edges.EdgePredictor`.
        """
        dynamics = None if self.fmri is None else self.fmri.dynamics
        places = {
            "whitening": (whitening, None if dynamics is None else dynamics.whitening),
            "edges": (edges, None if self.sc is None else self.sc.edges.expected),
        }
        for name, (given, place) in places.items():
            if given is None:
                continue
            if place is None or place.shape != given.shape:
                needed = None if place is None else tuple(place.shape)
                raise ValueError(
                    f"set_expectations needs `{name}` of shape {needed} (None: a model "
                    'with decoder="residual" and the modality). Got '
                    f"{tuple(given.shape)}."
                )
            place.copy_(given.to(place))

    @property
    def has_states(self) -> bool:
        """Whether the temporal stream makes :class:`BrainStates`."""
        return self.fmri is not None and self.fmri.temporal.states is not None

    @property
    def prepare_sc(self) -> Callable[[np.ndarray], dict[str, np.ndarray]] | None:
        """See :attr:`StructuralStream.prepare`; None without that stream."""
        return None if self.sc is None else self.sc.prepare

    def blocks_by_depth(self) -> Iterator[tuple[float, nn.Module]]:
        """Yield every part with its depth from 0 (input) to 1 (output).

        Used by layer-wise learning rates.
        """
        encoders: list[SpatialStream | TemporalStream | StructuralStream] = []
        if self.fmri is not None:
            encoders += [self.fmri.spatial, self.fmri.temporal]
            yield 0.0, self.fmri.context
            yield 1.0, self.fmri.perceiver
            yield 1.0, self.fmri.norms
        if self.sc is not None:
            encoders.append(self.sc)
        if self.gate is not None:
            yield 1.0, self.gate
        for encoder in encoders:
            yield 0.0, encoder
            blocks = list(encoder.blocks)
            for i, block in enumerate(blocks):
                yield (i + 1) / (len(blocks) + 1), block

    def _fuse(
        self,
        latents: Tensor | None,
        structural: Tensor | None,
        has_fmri: Tensor | None,
        has_sc: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gate and the fused embeddings; one modality passes unchanged."""
        if latents is None and structural is None:
            raise ValueError(
                f"The model needs one of {self.modalities}. Got neither `fmri` "
                "nor `sc` for a branch that it has."
            )
        if structural is None:
            return None, latents
        if latents is None or self.gate is None:
            return None, structural
        gate = self.gate(latents, structural)
        fused = gate * latents + (1 - gate) * structural
        if has_sc is not None:
            fused = torch.where(has_sc[:, None, None], fused, latents)
        if has_fmri is not None:
            fused = torch.where(has_fmri[:, None, None], fused, structural)
        return gate, fused
