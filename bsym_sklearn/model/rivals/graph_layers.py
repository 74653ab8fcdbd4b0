"""The layers of BrainGNN: region-aware convolution, pooling that selects regions.

Shape letters: B scans, R regions, N regions left, K communities, I and D channels in
and out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import SeededModule


class RegionConvolution(SeededModule):
    r"""Graph convolution whose kernel depends on the region.

    .. math::
        y_i = \sum_{j \in N(i) \cup i} \mathrm{softmax}_j(e_{ij})\, x_j W_j + b,
        \qquad W_j = W_0 + \sum_k \mathrm{relu}(\theta_{jk}) W_k

    Parameters
    ----------
    n_regions, n_communities, dim_in, dim_out : int
        Regions R, communities K, and channels in and out.

    References
    ----------
    .. [1] Li et al. (2021). BrainGNN. Section 3.2.

    Examples
    --------
    >>> import torch
    >>> layer, nodes = RegionConvolution(4, 2, 3, 5), torch.arange(4).unsqueeze(0)
    >>> layer(torch.zeros(1, 4, 3), torch.zeros(1, 4, 4), nodes).shape
    torch.Size([1, 4, 5])
    """

    def __init__(
        self, n_regions: int, n_communities: int, dim_in: int, dim_out: int
    ) -> None:
        super().__init__()
        self.dims = (dim_in, dim_out)
        self.communities = nn.Linear(n_regions, n_communities, bias=False)
        self.kernels = nn.Linear(n_communities, dim_in * dim_out)
        self.bias = nn.Parameter(torch.zeros(dim_out))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the bias; the parts have drawn the kernels."""
        bound = self.dims[0] ** -0.5
        self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor, edges: Tensor, regions: Tensor) -> Tensor:
        """Mix `x` (B, N, I) over `edges` (B, N, N), nodes being `regions` (B, N)."""
        member = F.relu(self.communities.weight.T)[regions]  # (B, N, K)
        # One product with each community's kernel is cheaper than a kernel per region.
        kernels = torch.cat(
            [self.kernels.weight, self.kernels.bias.unsqueeze(1)], dim=1
        ).unflatten(0, self.dims)  # (I, D, K + 1)
        products = torch.einsum("bni,idk->bnkd", x, kernels)
        member = F.pad(member, (0, 1), value=1.0)
        x = torch.einsum("bnkd,bnk->bnd", products, member)
        identity = torch.eye(edges.shape[1], dtype=edges.dtype, device=edges.device)
        weights = edges + identity  # a region's edge to itself has weight one
        absent = weights == 0
        return weights.masked_fill(absent, -torch.inf).softmax(-1) @ x + self.bias


class RegionPooling(SeededModule):
    r"""Keep the regions with the highest scores.

    :math:`s = X w / \|w\|`, standardised over the regions of a scan; what is kept is
    multiplied by :math:`\sigma(s)`, through which `w` learns.

    Parameters
    ----------
    dim : int
        Channels D.
    ratio : float
        Share of the regions to keep, in (0, 1], rounded up.

    References
    ----------
    .. [1] Li et al. (2021). BrainGNN. Section 3.3.

    Examples
    --------
    >>> import torch
    >>> kept, index, scores = RegionPooling(8, 0.5)(torch.ones(2, 5, 8))
    >>> kept.shape, index.shape, scores.shape
    (torch.Size([2, 3, 8]), torch.Size([2, 3]), torch.Size([2, 5]))
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.weight = nn.Parameter(torch.ones(dim))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the direction."""
        bound = self.weight.numel() ** -0.5
        self.weight.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kept rows of `x` (B, N, D), their index, and all scores (B, N)."""
        scores = x @ (self.weight / self.weight.norm())
        scores = F.layer_norm(scores, scores.shape[-1:])
        index = scores.topk(math.ceil(self.ratio * x.shape[1]), dim=1).indices
        x = x * scores.sigmoid().unsqueeze(-1)
        return (
            x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2])),
            index,
            scores,
        )

    def unit_loss(self) -> Tensor:
        """Return (|w| - 1) squared."""
        return (self.weight.norm() - 1).square()

    def separation_loss(self, scores: Tensor) -> Tensor:
        """Return how far `scores` (B, N) are from one if kept and zero if not."""
        n_kept = math.ceil(self.ratio * scores.shape[1])
        ordered = scores.sort(dim=1, descending=True).values
        kept, dropped = ordered[:, :n_kept], ordered[:, n_kept:]
        return -torch.cat([F.logsigmoid(kept), F.logsigmoid(-dropped)], dim=1).mean()


class BatchNorm(SeededModule):
    """Batch norm over scans; one scan alone is scaled by the running statistics.

    Parameters
    ----------
    dim : int
        Channels D.

    Examples
    --------
    >>> import torch
    >>> norm = BatchNorm(1).train()
    >>> norm(torch.ones(1, 1)).item() > 0.99
    True
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Set the norm to the identity."""
        self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of `x` (B, D)."""
        norm = self.norm
        return F.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=self.training and x.shape[0] > 1,
            momentum=norm.momentum or 0.0,
            eps=norm.eps,
        )


def consistency_loss(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Return how much the scores of scans of the same class differ.

    :math:`\sum_c \frac{1}{2 n_c^2} \sum_{i, j \in c}
    \|\sigma(s_i) - \sigma(s_j)\|^2`

    Parameters
    ----------
    scores : Tensor of shape (B, R)
        Of the first pooling, in the order of the regions.
    labels : integer Tensor of shape (B,)
        Classes.

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> consistency_loss(torch.ones(3, 4), torch.tensor([0, 0, 1])).item()
    0.0
    """
    s = scores.sigmoid()
    same = (labels.unsqueeze(0) == labels.unsqueeze(1)).to(s)
    squares = s.square().sum(1)
    distances = squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * s @ s.T
    return (same * distances / same.sum(1, keepdim=True).square()).sum() / 2
