"""Brain Network Transformer: attention between connection profiles, clustered.

Shape letters: B scans, R regions, D channels, K clusters, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import SeededModule
from bsym_sklearn.model.rivals.rival import EncoderLayer, Rival, correlations


class OrthonormalClusters(SeededModule):
    r"""Pool regions into clusters around fixed orthonormal centres.

    .. math::
        p_{rk} = \mathrm{softmax}_k (z_r \cdot e_k)^2, \qquad
        y_k = \sum_r p_{rk} z_r

    Parameters
    ----------
    n_clusters, dim : int
        Clusters K, at most the channels D: no more can be orthonormal.

    Attributes
    ----------
    centres : Tensor of shape (K, D)
        Drawn once; not trained, as in the released configuration.

    References
    ----------
    .. [1] Kan et al. (2022). Brain Network Transformer. Section 3.3.

    Examples
    --------
    >>> import torch
    >>> OrthonormalClusters(2, 8)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 2, 8])
    """

    centres: Tensor

    def __init__(self, n_clusters: int, dim: int) -> None:
        super().__init__()
        if not 1 <= n_clusters <= dim:
            raise ValueError(
                f"OrthonormalClusters needs 1 to {dim} clusters in {dim} channels. "
                f"Got {n_clusters}. Use fewer."
            )
        self.register_buffer("centres", torch.zeros(n_clusters, dim))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw a random orthonormal basis."""
        normal = torch.empty_like(self.centres.T).normal_(generator=generator)
        self.centres.copy_(torch.linalg.qr(normal).Q.T)

    def assignments(self, x: Tensor) -> Tensor:
        """Return the share (B, R, K) of each region `x` (B, R, D) in the clusters."""
        return (x @ self.centres.T).square().softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the regions `x` (B, R, D) into (B, K, D)."""
        return self.assignments(x).transpose(1, 2) @ x


class BrainNetworkTransformer(Rival):
    """Transformer on connection profiles with an orthonormal clustering read-out.

    The token of a region is its row of the correlation matrix, so that tokens are as
    wide as there are regions.

    Parameters
    ----------
    n_regions, n_outputs : int
        Regions R and outputs C.
    depth : int, default=2
        Attention layers.
    n_heads : int, default=4
        Attention heads. Where R is not a multiple of it, profiles get as many zeros
        as are missing (CC200 and the 360 regions of [1]_ need none).
    mlp_dim : int, default=1024
        Hidden channels of the feed-forward nets.
    n_clusters : int, default=100
        Clusters of the read-out; with fewer channels than that, as many as channels.
    bottleneck_dim : int, default=32
        Hidden channels of the perceptron that re-encodes all regions before they are
        clustered.
    cluster_dim : int, default=8
        Channels to which each cluster is reduced.
    hidden_dims : tuple of int, default=(256, 32)
        Channels of the two fully connected layers.
    dropout : float, default=0.1
        Rate inside the attention layers, in [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Notes
    -----
    Differs from the released code in that all centres have length one (there the
    first keeps the length that it was drawn with), attention weights have no dropout,
    and weights start with torch's default for linear layers. The clustering loss is
    defined there and never added, so there is none here. Mixing of scans and the
    learning rate schedule belong to training.

    References
    ----------
    .. [1] Kan et al. (2022). Brain Network Transformer. NeurIPS 35; released code,
       Wayfear/BrainNetworkTransformer, source/models/BNT.

    Examples
    --------
    >>> import torch
    >>> BrainNetworkTransformer(n_regions=5, n_outputs=2)(torch.randn(3, 20, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_regions: int,
        n_outputs: int,
        *,
        depth: int = 2,
        n_heads: int = 4,
        mlp_dim: int = 1024,
        n_clusters: int = 100,
        bottleneck_dim: int = 32,
        cluster_dim: int = 8,
        hidden_dims: tuple[int, int] = (256, 32),
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "n_regions": n_regions,
            "n_outputs": n_outputs,
            "depth": depth,
            "n_heads": n_heads,
            "mlp_dim": mlp_dim,
            "n_clusters": n_clusters,
            "bottleneck_dim": bottleneck_dim,
            "cluster_dim": cluster_dim,
            "hidden_dims": list(hidden_dims),
            "dropout": dropout,
        }
        self.n_missing = -n_regions % n_heads
        dim = n_regions + self.n_missing
        n_clusters = min(n_clusters, dim)
        with torch.device("meta"):
            self.layers = nn.ModuleList(
                EncoderLayer(dim, n_heads, mlp_dim, dropout) for _ in range(depth)
            )
            self.encode = nn.Sequential(
                nn.Linear(n_regions * dim, bottleneck_dim),
                nn.LeakyReLU(),
                nn.Linear(bottleneck_dim, bottleneck_dim),
                nn.LeakyReLU(),
                nn.Linear(bottleneck_dim, n_regions * dim),
            )
            self.clusters = OrthonormalClusters(n_clusters, dim)
            self.reduce = nn.Linear(dim, cluster_dim)
            self.head = nn.Sequential(
                nn.Linear(n_clusters * cluster_dim, hidden_dims[0]),
                nn.LeakyReLU(),
                nn.Linear(*hidden_dims),
                nn.LeakyReLU(),
                nn.Linear(hidden_dims[1], n_outputs),
            )
        self.draw_weights(generator)

    def forward(self, fmri: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return the outputs (B, C).

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R)
            Scaled series.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.

        Returns
        -------
        Tensor of shape (B, C)
            Logits or predicted values.
        """
        x = F.pad(correlations(fmri, padding), (0, self.n_missing))  # (B, R, D)
        for layer in self.layers:
            x = layer(x)
        x = self.encode(x.flatten(1)).unflatten(1, x.shape[1:])
        clusters = F.leaky_relu(self.reduce(self.clusters(x)))  # (B, K, cluster_dim)
        return self.head(clusters.flatten(1))
