r"""Signed graph transformer over the structural connectome.

Shape letters: B scans, K hops, R regions, D channels, H heads, E = D / H.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.model.connectome import (
    EDGE_WEIGHTS,
    N_SPECTRAL,
    hop_weights,
    prepare_connectome,
    spectral_coordinates,
)
from bsym_sklearn.model.edges import EdgePredictor
from bsym_sklearn.model.layers import (
    Dropout,
    FeedForward,
    SeededModule,
    attention_maps,
    check_choice,
    check_heads,
    shrink,
    split_heads,
)
from bsym_sklearn.model.signed_attention import (
    ABSENT_EDGES,
    SIGNED_ATTENTION,
    signed_attention,
    signed_map,
)

POSITION_SCALE = 0.02  # sd of learned positions at the start
STRUCTURAL_POSITIONS = ("learned", "spectral", "reference")


class SignedGraphAttention(nn.Module):
    r"""Attention between regions, scaled by signed edge weights.

    For regions :math:`i, j` and one hop matrix :math:`W`,
    :math:`s_{ij} = W_{ij}\, q_i^\top k_j / \sqrt{E}` and

    .. math::
        a_{ij} = \mathrm{sign}(s_{ij}) \, e^{|s_{ij}|} / \textstyle\sum_k e^{|s_{ik}|}

    as released, so a negative score subtracts a region's value instead of muting
    it. It jumps at zero. ``signed="continuous"`` replaces the numerator by
    :math:`\mathrm{sign}(s_{ij}) (e^{|s_{ij}|} - 1)`, which does not. The maps of
    the K hops are averaged. No map is kept, see
    :func:`~bsym_sklearn.model.signed_attention.signed_attention`.

    Parameters
    ----------
    dim : int
        Channels D, a multiple of `n_heads`.
    n_heads : int, default=4
        Heads H.
    signed : {"reference", "continuous"}, default="reference"
        Numerator of the map.
    absent_edges : {"reference", "masked"}, default="reference"
        Whether a pair without an edge keeps its share of the sum below the
        fraction (released), or is left out of it.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/signed_graph.py.

    Examples
    --------
    >>> import torch
    >>> attention = SignedGraphAttention(8, 2)
    >>> attention(torch.zeros(1, 3, 8), torch.ones(1, 1, 3, 3)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        dim: int,
        n_heads: int = 4,
        *,
        signed: str = "reference",
        absent_edges: str = "reference",
    ) -> None:
        super().__init__()
        check_heads(dim, n_heads)
        check_choice(signed, SIGNED_ATTENTION, "signed_attention")
        check_choice(absent_edges, ABSENT_EDGES, "absent_edges")
        self.n_heads = n_heads
        self.signed = signed
        self.absent_edges = absent_edges
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Mix region embeddings `x` (B, R, D) along `edges` (B, K, R, R)."""
        mixed = signed_attention(
            split_heads(self.query(x), self.n_heads),
            split_heads(self.key(x), self.n_heads),
            split_heads(self.value(x), self.n_heads),
            edges,
            signed=self.signed,
            absent_edges=self.absent_edges,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, R, D)

    def attention_map(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return the signed map (B, H, R, R) that `forward` applies."""
        return signed_map(
            split_heads(self.query(x), self.n_heads),
            split_heads(self.key(x), self.n_heads),
            edges,
            signed=self.signed,
            absent_edges=self.absent_edges,
        )


class SignedGraphBlock(SeededModule):
    """Signed attention, then a feed-forward net; residual and post-norm on each.

    Both residual branches start small. Dropout acts on both branches, not on the
    map as released: a map that is never built cannot lose entries.

    Parameters
    ----------
    dim, n_heads, mlp_dim : int
        Sizes.
    dropout : float, default=0.0
        Rate on both residual branches, in [0, 1).
    signed, absent_edges : str
        See :class:`SignedGraphAttention`.

    Examples
    --------
    >>> import torch
    >>> block = SignedGraphBlock(8, 2, 32)
    >>> block(torch.zeros(1, 3, 8), torch.ones(1, 1, 3, 3)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        *,
        signed: str = "reference",
        absent_edges: str = "reference",
    ) -> None:
        super().__init__()
        self.attention = SignedGraphAttention(
            dim, n_heads, signed=signed, absent_edges=absent_edges
        )
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, mlp_dim, nn.ReLU)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Shrink what the branches add."""
        shrink(self.attention.out, self.feed_forward.contract)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Update region embeddings `x` (B, R, D) given `edges` (B, K, R, R)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, edges)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def attention_map(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return the signed map (B, H, R, R) that `forward` applies."""
        return self.attention.attention_map(x, edges)


class StructuralStream(SeededModule):
    """Signed graph transformer: one embedding per region of a connectome.

    Parameters
    ----------
    n_regions : int
        Regions R.
    dim, depth, n_heads, mlp_dim : int
        Sizes of the blocks.
    dropout : float, default=0.0
        Rate, in [0, 1).
    edge_weights : {"first_hop", "multi_hop", "diffusion"}, default="first_hop"
        See :func:`hop_weights`.
    max_hops : int, default=2
        Used with ``edge_weights="multi_hop"``.
    positions : {"learned", "spectral", "reference"}, default="learned"
        A free vector per region, or a linear map of
        :func:`spectral_coordinates` in the order of that name.
    signed_attention, absent_edges : str
        See :class:`SignedGraphAttention`.
    edge_symmetry : str
        See :class:`EdgePredictor`.
    expects_edges : bool, default=False
        Whether the predicted edges are added to expected ones.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, models/layers/signed_graph.py.

    Examples
    --------
    >>> import torch
    >>> stream = StructuralStream(3, dim=8, depth=1, n_heads=2, mlp_dim=16)
    >>> stream(torch.ones(2, 3, 3)).shape
    torch.Size([2, 3, 8])
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
        edge_weights: str = "first_hop",
        max_hops: int = 2,
        positions: str = "learned",
        signed_attention: str = "reference",
        absent_edges: str = "reference",
        edge_symmetry: str = "reference",
        expects_edges: bool = False,
    ) -> None:
        super().__init__()
        check_choice(edge_weights, EDGE_WEIGHTS, "edge_weights")
        check_choice(positions, STRUCTURAL_POSITIONS, "structural_positions")
        self.edge_weights = edge_weights
        self.max_hops = max_hops
        self.positions = positions
        self.embed = nn.Linear(n_regions, dim)
        self.mask_token = nn.Parameter(torch.zeros(1))
        self.table: nn.Parameter | None = None
        if positions == "learned":
            self.table = nn.Parameter(torch.zeros(n_regions, dim))
        else:
            self.project = nn.Linear(N_SPECTRAL, dim)
        self.blocks = nn.ModuleList(
            SignedGraphBlock(
                dim,
                n_heads,
                mlp_dim,
                dropout,
                signed=signed_attention,
                absent_edges=absent_edges,
            )
            for _ in range(depth)
        )
        self.edges = EdgePredictor(
            dim, edge_symmetry, n_regions if expects_edges else None
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the positions; zero the value that stands for a hidden edge."""
        self.mask_token.zero_()
        if self.table is not None:
            self.table.normal_(0, POSITION_SCALE, generator=generator)

    def forward(
        self,
        sc: Tensor,
        mask: Tensor | None = None,
        *,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
    ) -> Tensor:
        """Return region embeddings (B, R, D).

        Parameters
        ----------
        sc : Tensor of shape (B, R, R)
            Scaled connectome; zero is no edge.
        mask : bool Tensor of shape (B, R, R) or None
            True where an edge is hidden: from the features, the attention and
            the positions. Symmetric.
        sc_hops : Tensor of shape (B, K, R, R) or None
            What :func:`hop_weights` made of `sc`. Made here if it is None, or if
            edges are hidden, as it knows them.
        sc_positions : Tensor of shape (B, R, 30) or None
            What :func:`spectral_coordinates` made of `sc`. As `sc_hops`.

        Returns
        -------
        Tensor of shape (B, R, D)
        """
        x, edges = self._embed(sc, mask, sc_hops, sc_positions)
        for block in self.blocks:
            x = block(x, edges)
        return x

    def attention_maps(
        self,
        sc: Tensor,
        mask: Tensor | None = None,
        *,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
    ) -> Tensor:
        """Return the signed maps (B, L, H, R, R) of every block; see `forward`."""
        return attention_maps(
            self.blocks, *self._embed(sc, mask, sc_hops, sc_positions)
        )

    @property
    def prepare(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Function that computes what depends on one connectome only.

        To be called once for all the uses of a scan. It holds no weights, so that
        reading processes can have it. See
        :func:`~bsym_sklearn.model.connectome.prepare_connectome`.

        Examples
        --------
        >>> import numpy as np
        >>> sizes = {"dim": 8, "depth": 1, "n_heads": 2, "mlp_dim": 16}
        >>> stream = StructuralStream(3, edge_weights="multi_hop", **sizes)
        >>> {name: x.shape for name, x in stream.prepare(np.eye(3)).items()}
        {'sc_hops': (2, 3, 3)}
        """
        return partial(
            prepare_connectome,
            edge_weights=self.edge_weights,
            max_hops=self.max_hops,
            positions=self.positions,
        )

    def _embed(
        self,
        sc: Tensor,
        mask: Tensor | None = None,
        sc_hops: Tensor | None = None,
        sc_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, R, D) and hop matrices (B, K, R, R) without what hides."""
        features = sc
        if mask is not None:
            features = torch.where(mask, self.mask_token, sc)
            sc = sc.masked_fill(mask, 0)
            sc_hops = sc_positions = None  # they would tell what is hidden
        # powers and eigenvectors of rounded numbers would be of little use
        with torch.autocast(sc.device.type, enabled=False):
            if sc_hops is None:
                sc_hops = hop_weights(sc, self.edge_weights, self.max_hops)
            if sc_positions is None and self.table is None:
                sc_positions = spectral_coordinates(sc, self.positions)
        x = self.embed(features)
        places = self.project(sc_positions) if self.table is None else self.table
        return x + places, sc_hops
