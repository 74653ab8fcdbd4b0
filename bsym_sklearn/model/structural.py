r"""Signed graph transformer over the structural connectome.

Shape letters: B scans, K hops, R regions, D channels, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

EDGE_DIMS = (512, 128)  # hidden channels of the edge predictor
POSITION_SCALE = 0.02  # sd of learned positions at the start
N_SPECTRAL = 30  # eigenvectors used as positions
DIFFUSION_TERMS = 9
EDGE_WEIGHTS = ("first_hop", "multi_hop", "diffusion")
SIGNED_ATTENTION = ("reference", "continuous")
ABSENT_EDGES = ("reference", "masked")
EDGE_SYMMETRY = ("reference", "symmetric")
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
    the K hops are averaged.

    Parameters
    ----------
    dim : int
        Channels D, a multiple of `n_heads`.
    n_heads : int, default=4
        Heads H.
    dropout : float, default=0.0
        Rate applied to the map, in [0, 1).
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
        dropout: float = 0.0,
        *,
        signed: str = "reference",
        absent_edges: str = "reference",
    ) -> None:
        super().__init__()
        check_heads(dim, n_heads)
        check_choice(signed, SIGNED_ATTENTION, "signed_attention")
        check_choice(absent_edges, ABSENT_EDGES, "absent_edges")
        self.n_heads = n_heads
        self.scale = (dim // n_heads) ** -0.5
        self.signed = signed
        self.absent_edges = absent_edges
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Mix region embeddings `x` (B, R, D) along `edges` (B, K, R, R)."""
        value = split_heads(self.value(x), self.n_heads)
        mixed = self.dropout(self.attention_map(x, edges)) @ value  # (B, H, R, E)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, R, D)

    def attention_map(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return the signed map (B, H, R, R) that `forward` applies."""
        query = split_heads(self.query(x), self.n_heads)
        key = split_heads(self.key(x), self.n_heads)
        similarity = query @ key.transpose(-2, -1) * self.scale  # (B, H, R, R)
        maps = [
            self._signed_softmax(similarity * hop, hop == 0)
            for hop in edges.unsqueeze(2).unbind(1)  # each (B, 1, R, R)
        ]
        return torch.stack(maps).mean(0)

    def _signed_softmax(self, score: Tensor, absent: Tensor) -> Tensor:
        """Return the map of one hop from its scores (B, H, R, R)."""
        magnitude = score.abs()
        if self.absent_edges == "masked":
            # Not -inf: a region without edges must give zeros, not NaN.
            lowest = torch.finfo(score.dtype).min
            magnitude = magnitude.masked_fill(absent, lowest)
        share = magnitude.softmax(-1)
        if self.signed == "continuous":
            # softmax * (1 - e^-|s|) = (e^|s| - 1) / sum, finite for every score
            return share * -torch.expm1(-score.abs()) * score.sign()
        return share * score.sign()


class SignedGraphBlock(SeededModule):
    """Signed attention, then a feed-forward net; residual and post-norm on each.

    Both residual branches start small.

    Parameters
    ----------
    dim, n_heads, mlp_dim : int
        Sizes.
    dropout : float, default=0.0
        Rate, in [0, 1).
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
            dim, n_heads, dropout, signed=signed, absent_edges=absent_edges
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
        x = self.attention_norm(x + self.attention(x, edges))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def attention_map(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return the signed map (B, H, R, R) that `forward` applies."""
        return self.attention.attention_map(x, edges)


class EdgePredictor(nn.Module):
    """Predict the weight of an edge from the embeddings of its two regions.

    Parameters
    ----------
    dim : int
        Channels D.
    symmetry : {"reference", "symmetric"}, default="reference"
        One order of the two regions (released, so that the edge from i to j
        differs from the edge from j to i), or the mean over both orders.

    Examples
    --------
    >>> import torch
    >>> predictor = EdgePredictor(8, symmetry="symmetric")
    >>> weights = predictor(torch.randn(1, 3, 8))
    >>> torch.allclose(weights, weights.transpose(1, 2))
    True
    """

    def __init__(self, dim: int, symmetry: str = "reference") -> None:
        super().__init__()
        check_choice(symmetry, EDGE_SYMMETRY, "edge_symmetry")
        self.symmetry = symmetry
        first, second = EDGE_DIMS
        self.pair = nn.Linear(2 * dim, first)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the weights (B, R, R) of all edges between `x` (B, R, D)."""
        return self.between(x.unsqueeze(2), x.unsqueeze(1))

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the weights (...) of edges between `left` and `right` (..., D)."""
        weight = self._ordered(left, right)
        if self.symmetry == "symmetric":
            weight = (weight + self._ordered(right, left)) / 2
        return weight

    def _ordered(self, left: Tensor, right: Tensor) -> Tensor:
        """Apply the net to the concatenation, its first layer split in two."""
        from_left, from_right = self.pair.weight.chunk(2, dim=1)
        hidden = left @ from_left.T + right @ from_right.T + self.pair.bias
        return self.rest(hidden).squeeze(-1)


def hop_weights(
    sc: Tensor, kind: str = "first_hop", max_hops: int = 2, theta: float = 0.1
) -> Tensor:
    r"""Return the matrices along which the graph attention mixes regions.

    Parameters
    ----------
    sc : Tensor of shape (B, R, R)
        Structural connectome.
    kind : {"first_hop", "multi_hop", "diffusion"}, default="first_hop"
        The connectome itself; its powers up to `max_hops`, each from the second
        on divided by its Frobenius norm; or the truncated heat-like series
        :math:`\sum_{k=0}^{9} (\theta D^{-1/2} A D^{-1/2})^k` with D the absolute
        degrees.
    max_hops : int, default=2
        Powers K, used with ``"multi_hop"``.
    theta : float, default=0.1
        Diffusion rate, in (0, 1).

    Returns
    -------
    Tensor of shape (B, K, R, R)

    References
    ----------
    .. [1] Released code of arXiv:2506.18314, models/layers/signed_graph.py.

    Examples
    --------
    >>> import torch
    >>> hop_weights(torch.eye(2)[None], "multi_hop", max_hops=3).shape
    torch.Size([1, 3, 2, 2])
    """
    check_choice(kind, EDGE_WEIGHTS, "edge_weights")
    if kind == "first_hop":
        return sc.unsqueeze(1)
    if kind == "multi_hop":
        hops = [sc]
        for _ in range(1, max_hops):
            power = hops[-1] @ sc
            norm = power.flatten(1).norm(dim=1)[:, None, None]
            hops.append(power / (norm + 1e-8))
        return torch.stack(hops, dim=1)
    degree = sc.abs().sum(-1)
    scale = (degree + 1e-10).rsqrt()
    step = theta * scale.unsqueeze(2) * sc * scale.unsqueeze(1)
    power = torch.eye(sc.shape[-1], dtype=sc.dtype, device=sc.device)
    # The released code sums in single precision whatever the input is.
    total = power.float()
    for _ in range(DIFFUSION_TERMS):
        power = power @ step
        total = (total + power).float()
    return total.to(sc).unsqueeze(1)


def spectral_coordinates(sc: Tensor, order: str = "spectral") -> Tensor:
    r"""Return eigenvectors of the Laplacian of the connectome's row similarity.

    With :math:`A_{ij} = 1 - \arccos(\cos(w_i, w_j)) / \pi` for rows :math:`w` and
    its symmetric normalised Laplacian. Each vector's largest entry is positive.

    Parameters
    ----------
    sc : Tensor of shape (B, R, R)
        Structural connectome.
    order : {"spectral", "reference"}, default="spectral"
        Smallest eigenvalues but the trivial one (smooth), or the largest as
        released (rough).

    Returns
    -------
    Tensor of shape (B, R, 30)
        Zero padded for small R.

    Examples
    --------
    >>> import torch
    >>> spectral_coordinates(torch.eye(4)[None]).shape
    torch.Size([1, 4, 30])
    """
    rows = sc / (sc.norm(dim=-1, keepdim=True) + 1e-8)
    cosine = (rows @ rows.transpose(1, 2)).clamp(-1, 1)
    affinity = 1 - cosine.arccos() / torch.pi
    scale = (affinity.sum(-1) + 1e-10).rsqrt()
    normalized = scale.unsqueeze(2) * affinity * scale.unsqueeze(1)
    identity = torch.eye(sc.shape[-1], dtype=sc.dtype, device=sc.device)
    _, vectors = torch.linalg.eigh(identity - normalized)  # ascending
    if order == "reference":
        vectors = vectors.flip(-1)[..., :N_SPECTRAL]
    else:
        vectors = vectors[..., 1 : 1 + N_SPECTRAL]
    peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * torch.where(peak < 0, -1.0, 1.0).to(vectors)
    return nn.functional.pad(vectors, (0, N_SPECTRAL - vectors.shape[-1]))


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
        self.edges = EdgePredictor(dim, edge_symmetry)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the positions; zero the value that stands for a hidden edge."""
        self.mask_token.zero_()
        if self.table is not None:
            self.table.normal_(0, POSITION_SCALE, generator=generator)

    def forward(self, sc: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return region embeddings (B, R, D).

        Parameters
        ----------
        sc : Tensor of shape (B, R, R)
            Scaled connectome; zero is no edge.
        mask : bool Tensor of shape (B, R, R) or None
            True where an edge is hidden: from the features, the attention and
            the positions. Symmetric.

        Returns
        -------
        Tensor of shape (B, R, D)
        """
        x, hops = self._embed(sc, mask)
        for block in self.blocks:
            x = block(x, hops)
        return x

    def attention_maps(self, sc: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the signed maps (B, L, H, R, R) of every block."""
        return attention_maps(self.blocks, *self._embed(sc, mask))

    def _embed(self, sc: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return tokens (B, R, D) and hop matrices (B, K, R, R) without what hides."""
        features = sc
        if mask is not None:
            features = torch.where(mask, self.mask_token, sc)
            sc = sc.masked_fill(mask, 0)
        x = self.embed(features)
        if self.table is not None:
            x = x + self.table
        else:
            x = x + self.project(spectral_coordinates(sc, self.positions))
        return x, hop_weights(sc, self.edge_weights, self.max_hops)
