"""Edges of a connectome from the embeddings of its regions.

Shape letters: B scans, E edges, R regions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bsym_sklearn.model.layers import SeededModule, check_choice, shrink

EDGE_DIMS = (512, 128)  # hidden channels
EDGE_SYMMETRY = ("reference", "symmetric")
# Size of what one piece of the edges needs in the first hidden layer.
CPU_BYTES = 1 << 21
DEVICE_BYTES = 1 << 28


class EdgePredictor(SeededModule):
    r"""Predict the weight of an edge from the embeddings of its two regions.

    The first layer is applied to each region instead of each edge, as
    :math:`W [h_i ; h_j] = U h_i + V h_j`, and the rest to pieces of the edges, so
    that memory does not grow with their number but by what is returned.

    Parameters
    ----------
    dim : int
        Channels D.
    symmetry : {"reference", "symmetric"}, default="reference"
        One order of the two regions (released, so that the edge from i to j
        differs from the edge from j to i), or the mean over both orders.
    n_regions : int or None, default=None
        With it, what is predicted is added to `expected`, and starts small.

    Attributes
    ----------
    expected : Tensor of shape (R, R) or None
        Symmetric; fitted outside of the model and stored with its weights. Zero at
        first.

    Examples
    --------
    >>> import torch
    >>> predictor = EdgePredictor(8, symmetry="symmetric")
    >>> weights = predictor(torch.randn(1, 3, 8))
    >>> torch.allclose(weights, weights.transpose(1, 2))
    True
    """

    expected: Tensor | None

    def __init__(
        self, dim: int, symmetry: str = "reference", n_regions: int | None = None
    ) -> None:
        super().__init__()
        check_choice(symmetry, EDGE_SYMMETRY, "edge_symmetry")
        self.symmetry = symmetry
        first, second = EDGE_DIMS
        self.pair = nn.Linear(2 * dim, first)
        # in place, as nothing else needs what enters
        self.rest = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Linear(first, second),
            nn.ReLU(inplace=True),
            nn.Linear(second, 1),
        )
        expected = None if n_regions is None else torch.zeros(n_regions, n_regions)
        self.register_buffer("expected", expected)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Expect zero; what is added to it starts small."""
        if self.expected is not None:
            self.expected.zero_()
            *_, last = self.rest
            shrink(cast(nn.Linear, last))

    def forward(self, x: Tensor) -> Tensor:
        """Return the weights (B, R, R) of all edges between `x` (B, R, D)."""
        left, right = self._halves(x)
        n_rows = max(_limit(left) // right[..., 0].numel(), 1)
        pieces = left.unsqueeze(2).split(n_rows, dim=1)
        across = right.unsqueeze(1)
        weights = [self._lean(self._sum, len(pieces), rows, across) for rows in pieces]
        weight = torch.cat(weights, dim=1)
        if self.symmetry == "symmetric":
            weight = (weight + weight.transpose(1, 2)) / 2
        return weight if self.expected is None else self.expected + weight

    def pairs(self, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the weights of chosen edges.

        Parameters
        ----------
        x : Tensor of shape (B, R, D)
            Region embeddings.
        row, column : int64 Tensor of shape (B, E)
            The two regions of each edge, in [0, R).

        Returns
        -------
        Tensor of shape (B, E)
            The entries of ``forward(x)`` at these places.

        Examples
        --------
        >>> import torch
        >>> x, predictor = torch.randn(1, 4, 8), EdgePredictor(8)
        >>> row, column = torch.tensor([[0, 0]]), torch.tensor([[1, 3]])
        >>> weights = predictor.pairs(x, row, column)
        >>> torch.allclose(weights, predictor(x)[:, 0, [1, 3]])
        True
        """
        n_edges = row.shape[1]
        if n_edges == 0:
            return x.new_zeros(row.shape)
        left, right = self._halves(x)
        size = _limit(left)
        step = max(size // n_edges, 1)  # whole scans, or one in parts
        n_pieces = -(-len(x) // step) * -(-n_edges // size)
        weights = []
        for scans in zip(
            *(part.split(step) for part in (left, right, row, column)), strict=True
        ):
            parts = [
                self._lean(self._gathered, n_pieces, *scans[:2], i, j)
                for i, j in zip(
                    *(index.split(size, dim=1) for index in scans[2:]), strict=True
                )
            ]
            weights.append(torch.cat(parts, dim=1))
        weight = torch.cat(weights)
        return weight if self.expected is None else self.expected[row, column] + weight

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first and the second region add, each (B, R, 512)."""
        first, second = self.pair.weight.chunk(2, dim=1)
        return F.linear(x, first, self.pair.bias), F.linear(x, second)

    def _sum(self, left: Tensor, right: Tensor) -> Tensor:
        """Apply the layers behind the first to the sum of its halves."""
        return self.rest(left + right).squeeze(-1)

    def _gathered(
        self, left: Tensor, right: Tensor, row: Tensor, column: Tensor
    ) -> Tensor:
        """Return the weights (b, e) of edges of whole scans."""
        weight = self._sum(_take(left, row), _take(right, column))
        if self.symmetry == "symmetric":
            other = self._sum(_take(left, column), _take(right, row))
            weight = (weight + other) / 2
        return weight

    @staticmethod
    def _lean(
        function: Callable[..., Tensor], n_pieces: int, *inputs: Tensor
    ) -> Tensor:
        """Apply `function`, and again in backward if there are several pieces."""
        if n_pieces == 1 or not torch.is_grad_enabled():
            return function(*inputs)
        return checkpoint(
            function, *inputs, use_reentrant=False, preserve_rng_state=False
        )


def _limit(hidden: Tensor) -> int:
    """Return how many vectors as long as those of `hidden` one piece may have."""
    n_bytes = CPU_BYTES if hidden.device.type == "cpu" else DEVICE_BYTES
    return max(n_bytes // (hidden.shape[-1] * hidden.element_size()), 1)


def _take(table: Tensor, region: Tensor) -> Tensor:
    """Return rows (b, e, F) of `table` (b, R, F) at `region` (b, e)."""
    n_scans, n_regions, _ = table.shape
    first = torch.arange(0, n_scans * n_regions, n_regions, device=table.device)
    place = (region + first.unsqueeze(1)).flatten()
    return table.flatten(0, 1).index_select(0, place).unflatten(0, (n_scans, -1))
