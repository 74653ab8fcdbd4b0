"""From region embeddings to a prediction per scan.

Shape letters: B scans, T time points, R regions, D channels, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainsymphony import BrainSymphonyOutput
from bsym_sklearn.model.layers import Dropout, SeededModule, check_choice

POOLINGS = ("mean", "regions")


class TaskHead(SeededModule):
    """Linear read-outs of the region embeddings and of the temporal stream.

    Each stream has its own read-out and the two are averaged, which on the
    multitask cohort was better than one read-out of both. All start at zero.

    Parameters
    ----------
    n_regions, dim : int
        Regions R and channels D.
    n_outputs : int
        Outputs C.
    pooling : {"mean", "regions"}, default="regions"
        Average the regions first, or give each its own weights.
    temporal : bool, default=True
        Read the temporal stream too, where there is fMRI.
    dropout : float, default=0.0
        Rate on what is read, in [0, 1).

    Examples
    --------
    >>> import torch
    >>> head = TaskHead(3, 8, 2)
    >>> head(BrainSymphonyOutput(fused=torch.zeros(4, 3, 8))).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        n_regions: int,
        dim: int,
        n_outputs: int,
        *,
        pooling: str = "regions",
        temporal: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice(pooling, POOLINGS, "pooling")
        self.pooling = pooling
        width = dim if pooling == "mean" else n_regions * dim
        with torch.device("meta"):
            self.dropout = Dropout(dropout)
            self.regions = nn.Linear(width, n_outputs)
            self.temporal = nn.Linear(dim, n_outputs) if temporal else None
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(
        self,
        out: BrainSymphonyOutput,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
    ) -> Tensor:
        """Return the outputs (B, C).

        Parameters
        ----------
        out : BrainSymphonyOutput
            Of the backbone.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        has_fmri : bool Tensor of shape (B,) or None
            False for scans without fMRI.

        Returns
        -------
        Tensor of shape (B, C)
        """
        if out.fused is None:
            raise ValueError("TaskHead needs fused embeddings. Got None.")
        pooled = out.fused.mean(1) if self.pooling == "mean" else out.fused.flatten(1)
        logits = self.regions(self.dropout(pooled))
        if self.temporal is None or out.temporal is None:
            return logits
        over_time = self.temporal(self.dropout(mean_over_time(out.temporal, padding)))
        both = (logits + over_time) / 2
        return (
            both if has_fmri is None else torch.where(has_fmri[:, None], both, logits)
        )


def mean_over_time(x: Tensor, padding: Tensor | None) -> Tensor:
    """Average `x` (B, T, D) over the time points that exist, (B, D).

    Examples
    --------
    >>> import torch
    >>> mean_over_time(torch.ones(1, 2, 3), torch.tensor([[False, True]]))
    tensor([[1., 1., 1.]])
    """
    if padding is None:
        return x.mean(1)
    exists = (~padding).unsqueeze(-1).to(x)
    return (x * exists).sum(1) / exists.sum(1).clamp(min=1)
