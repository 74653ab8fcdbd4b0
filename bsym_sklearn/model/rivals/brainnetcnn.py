"""BrainNetCNN: cross-shaped filters on a connectivity matrix.

Shape letters: B scans, R regions, I and D input and output channels, C outputs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import Dropout
from bsym_sklearn.model.rivals.rival import Rival, correlations

LEAK = 1 / 3  # slope of the "very leaky" rectifier below zero


class EdgeToEdge(nn.Module):
    r"""Combine each edge with all edges of its two regions.

    .. math::
        y_{ijd} = \sum_{kc} r_{kcd}\, x_{ikc} + \sum_{kc} s_{kcd}\, x_{kjc} + b_d

    Parameters
    ----------
    n_regions, dim_in, dim_out : int
        Regions R, input channels I and output channels D.

    References
    ----------
    .. [1] Kawahara et al. (2017). BrainNetCNN. NeuroImage 146, equation 1.

    Examples
    --------
    >>> import torch
    >>> EdgeToEdge(4, 1, 3)(torch.zeros(2, 4, 4, 1)).shape
    torch.Size([2, 4, 4, 3])
    """

    def __init__(self, n_regions: int, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.row = nn.Linear(n_regions * dim_in, dim_out)
        self.column = nn.Linear(n_regions * dim_in, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Filter the edges `x` (B, R, R, I) into (B, R, R, D)."""
        row = self.row(x.flatten(2))  # (B, R, D), over the edges of the first region
        column = self.column(x.transpose(1, 2).flatten(2))
        return row.unsqueeze(2) + column.unsqueeze(1)


class BrainNetCNN(Rival):
    """Edge-to-edge, edge-to-node and node-to-graph filters on correlations.

    Parameters
    ----------
    n_regions, n_outputs : int
        Regions R and outputs C.
    edge_dims : tuple of int, default=(32, 32)
        Channels of each edge-to-edge layer.
    node_dim : int, default=64
        Channels of a region after the edge-to-node filter.
    graph_dim : int, default=256
        Channels of the scan after the node-to-graph filter.
    hidden_dims : tuple of int, default=(128, 30)
        Channels of the fully connected layers.
    dropout : float, default=0.5
        Rate after the node-to-graph filter and the first fully connected layer, in
        [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Notes
    -----
    The input is Pearson correlation with ones on the diagonal, where [1]_ had
    structural connectomes. As in the authors' code, the edge-to-node filter is a row
    only. The widespread torch port (nicofarr/brainnetcnnVis_pytorch, copied by the
    Brain Network Transformer's comparison) has ``edge_dims=(32, 64)`` and
    ``node_dim=1``, a rectifier after the output, and dropout that stays on at test;
    the first two are parameters here, the others are left out.

    References
    ----------
    .. [1] Kawahara et al. (2017). BrainNetCNN: convolutional neural networks for
       brain networks; towards predicting neurodevelopment. NeuroImage 146,
       1038-1049; released code, jeremykawahara/ann4brains.

    Examples
    --------
    >>> import torch
    >>> BrainNetCNN(n_regions=5, n_outputs=2)(torch.randn(3, 20, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_regions: int,
        n_outputs: int,
        *,
        edge_dims: tuple[int, ...] = (32, 32),
        node_dim: int = 64,
        graph_dim: int = 256,
        hidden_dims: tuple[int, ...] = (128, 30),
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "n_regions": n_regions,
            "n_outputs": n_outputs,
            "edge_dims": list(edge_dims),
            "node_dim": node_dim,
            "graph_dim": graph_dim,
            "hidden_dims": list(hidden_dims),
            "dropout": dropout,
        }
        edges = (1, *edge_dims)
        hidden = (graph_dim, *hidden_dims)
        with torch.device("meta"):
            self.edges = nn.ModuleList(
                EdgeToEdge(n_regions, *dims) for dims in pairwise(edges)
            )
            self.nodes = nn.Linear(n_regions * edges[-1], node_dim)
            self.graph = nn.Linear(n_regions * node_dim, graph_dim)
            self.hidden = nn.ModuleList(nn.Linear(*dims) for dims in pairwise(hidden))
            self.head = nn.Linear(hidden[-1], n_outputs)
            self.dropout = Dropout(dropout)
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
        x = correlations(fmri, padding).unsqueeze(-1)  # (B, R, R, 1)
        for edge_to_edge in self.edges:
            x = F.leaky_relu(edge_to_edge(x), LEAK)
        x = F.leaky_relu(self.nodes(x.flatten(2)), LEAK)  # (B, R, node_dim)
        x = self.dropout(F.leaky_relu(self.graph(x.flatten(1)), LEAK))
        for i, layer in enumerate(self.hidden):
            x = F.leaky_relu(layer(x), LEAK)
            x = self.dropout(x) if i == 0 else x
        return self.head(x)
