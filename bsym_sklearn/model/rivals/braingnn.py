"""BrainGNN: a graph network that selects regions.

Shape letters: B scans, T time points, R regions, N regions left, D channels,
C outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import Dropout
from bsym_sklearn.model.rivals.graph_layers import (
    BatchNorm,
    RegionConvolution,
    RegionPooling,
    consistency_loss,
)
from bsym_sklearn.model.rivals.graphs import partial_correlations, strongest_edges
from bsym_sklearn.model.rivals.rival import Rival, fisher_z


class BrainGNN(Rival):
    r"""Two rounds of region-aware graph convolution and region-selecting pooling.

    Nodes are regions, described by their Fisher-z correlations with all regions;
    edges are the largest partial correlations. The loss of the task gets

    .. math::
        L_{unit} + \lambda_1 L_{top-k} + \lambda_2 L_{consistency}

    see :class:`~bsym_sklearn.model.rivals.graph_layers.RegionPooling`.

    Parameters
    ----------
    n_regions, n_outputs : int
        Regions R and outputs C.
    dims : tuple of int, default=(32, 32)
        Channels of the two convolutions.
    n_communities : int, default=8
        Kernels that a region's own kernel is mixed from.
    ratio : float, default=0.5
        Share of the regions that each pooling keeps, in (0, 1].
    edge_share : float, default=0.1
        Share of the possible edges that the graph has, in (0, 1].
    hidden_dims : tuple of int, default=(32, 512)
        Channels of the two fully connected layers.
    top_k_weight, consistency_weight : float, default=0.1, 0.0
        :math:`\lambda_1` and :math:`\lambda_2`, as in the released script for ABIDE.
    dropout : float, default=0.5
        Rate after each fully connected layer, in [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Notes
    -----
    The layers are those of the released code, computed on dense matrices; pooling,
    its losses and the choice of edges are those of the paper. The code instead leaves
    scores unstandardised, computes the top-k loss from the kept regions only and
    after two sigmoids, keeps all absolute partial correlations as edges, and computes
    the consistency loss from scores in the order of their rank. As in the code,
    fully connected layers have batch norms; a batch of one scan uses their running
    statistics.

    References
    ----------
    .. [1] Li et al. (2021). BrainGNN: interpretable brain graph neural network for
       fMRI analysis. Medical Image Analysis 74, 102233; released code,
       xxlya/BrainGNN_Pytorch, net/braingnn.py and 03-main.py.

    Examples
    --------
    >>> import torch
    >>> BrainGNN(n_regions=5, n_outputs=2)(torch.randn(3, 20, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_regions: int,
        n_outputs: int,
        *,
        dims: tuple[int, int] = (32, 32),
        n_communities: int = 8,
        ratio: float = 0.5,
        edge_share: float = 0.1,
        hidden_dims: tuple[int, int] = (32, 512),
        top_k_weight: float = 0.1,
        consistency_weight: float = 0.0,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, share in (("ratio", ratio), ("edge_share", edge_share)):
            if not 0 < share <= 1:
                raise ValueError(f"`{name}` must be in (0, 1]. Got {share!r}.")
        self.config = {
            "n_regions": n_regions,
            "n_outputs": n_outputs,
            "dims": list(dims),
            "n_communities": n_communities,
            "ratio": ratio,
            "edge_share": edge_share,
            "hidden_dims": list(hidden_dims),
            "top_k_weight": top_k_weight,
            "consistency_weight": consistency_weight,
            "dropout": dropout,
        }
        self.edge_share = edge_share
        self.top_k_weight = top_k_weight
        self.consistency_weight = consistency_weight
        with torch.device("meta"):
            self.convolutions = nn.ModuleList(
                RegionConvolution(n_regions, n_communities, *pair)
                for pair in ((n_regions, dims[0]), (dims[0], dims[1]))
            )
            self.poolings = nn.ModuleList(RegionPooling(dim, ratio) for dim in dims)
            self.hidden = nn.ModuleList(
                nn.Linear(*pair)
                for pair in ((2 * sum(dims), hidden_dims[0]), hidden_dims)
            )
            self.norms = nn.ModuleList(BatchNorm(dim) for dim in hidden_dims)
            self.dropout = Dropout(dropout)
            self.head = nn.Linear(hidden_dims[1], n_outputs)
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
        return self.outputs_and_state(fmri, padding)[0]

    def auxiliary_loss(self, state: Any, labels: Tensor | None) -> Tensor:
        """Return the losses of the poolings, weighted.

        `state` holds the scores (B, N) of each pooling. Without `labels`, as in
        regression, there is no consistency loss.
        """
        loss = state[0].new_zeros(())
        poolings = cast("Iterable[RegionPooling]", self.poolings)
        for pooling, score in zip(poolings, state, strict=True):
            loss = loss + pooling.unit_loss()
            loss = loss + self.top_k_weight * pooling.separation_loss(score)
        if labels is not None and self.consistency_weight > 0:
            # Only the first pooling sees the same regions in every scan.
            loss = loss + self.consistency_weight * consistency_loss(state[0], labels)
        return loss

    def outputs_and_state(
        self, fmri: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs (B, C), and the scores (B, N) of each pooling."""
        x = fisher_z(fmri, padding)
        edges = strongest_edges(partial_correlations(fmri, padding), self.edge_share)
        regions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        pooled, scores = [], []
        for convolve, pool in zip(self.convolutions, self.poolings, strict=True):
            x, index, score = pool(convolve(x, edges, regions))
            edges = _edges_of_neighbours(edges, index)
            regions = regions.gather(1, index)
            pooled += [x.amax(1), x.mean(1)]
            scores.append(score)
        x = torch.cat(pooled, dim=1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = self.dropout(norm(F.relu(layer(x))))
        return self.head(x), scores


def _edges_of_neighbours(edges: Tensor, index: Tensor) -> Tensor:
    """Return the edges (B, N, N) among the kept `index`, over up to two steps."""
    n_kept = index.shape[1]
    rows = index.unsqueeze(2).expand(-1, -1, edges.shape[2])
    columns = index.unsqueeze(1).expand(-1, n_kept, -1)
    identity = torch.eye(n_kept, dtype=edges.dtype, device=edges.device)
    steps = edges.gather(1, rows).gather(2, columns) + identity
    return (steps @ steps) * (1 - identity)
