"""From what the streams say to a prediction per scan.

Shape letters: B scans, T time points, R regions, D channels, S states, C outputs,
K read-outs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainsymphony import BrainSymphonyOutput
from bsym_sklearn.model.layers import Dropout, SeededModule, check_choice

POOLINGS = ("mean", "regions")
READOUTS = ("spatial", "temporal", "states", "structural", "fused")
OVER_TIME = ("temporal", "states")  # (B, T, .), averaged over time
OF_SC = ("structural",)
MAX_DROPOUT_OF_AVERAGES = 0.5  # meanMLP's is .49


class TaskHead(SeededModule):
    """Linear read-outs, one per stream, whose outputs are averaged.

    Each read-out is trained by a loss of its own (see
    :class:`~bsym_sklearn.training.objectives.SupervisedTask`): under a common one, the
    read-out that fits the training scans first leaves nothing for the others to
    learn. All start at zero.

    Parameters
    ----------
    n_regions, dim : int
        Regions R and channels D.
    n_outputs : int
        Outputs C.
    readouts : tuple of {"spatial", "temporal", "states", "structural", "fused"}
        Fields of :class:`BrainSymphonyOutput` to read; those over time are averaged
        over time first.
    pooling : {"mean", "regions"}, default="regions"
        Average the regions first, or give each its own weights.
    dropout : float, default=0.0
        Rate on what is read, in [0, 1). What is averaged over time or regions, which
        leaves few numbers, loses at most half; over time, it does so before the
        average, at each time point anew, as in meanMLP.
    n_states : int, default=160
        Channels of the states.

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
        readouts: tuple[str, ...] = ("fused",),
        pooling: str = "regions",
        dropout: float = 0.0,
        n_states: int = 160,
    ) -> None:
        super().__init__()
        check_choice(pooling, POOLINGS, "pooling")
        for name in readouts:
            check_choice(name, READOUTS, "readouts")
        self.pooling = pooling
        self.dropout = Dropout(dropout)
        self.dropout_of_averages = Dropout(min(dropout, MAX_DROPOUT_OF_AVERAGES))
        widths = dict.fromkeys(READOUTS, dim if pooling == "mean" else n_regions * dim)
        widths |= {"temporal": dim, "states": n_states}
        self.readouts = nn.ModuleDict()
        for name in readouts:
            # on no device: nothing is drawn from torch's global generator
            made = nn.Linear(widths[name], n_outputs, device="meta").to_empty(
                device="cpu"
            )
            self.readouts[name] = made
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    @property
    def needs(self) -> tuple[str, ...] | None:
        """What the backbone has to compute; None for everything."""
        names = tuple(self.readouts)
        return None if "fused" in names else names

    def forward(
        self,
        out: BrainSymphonyOutput,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
        has_sc: Tensor | None = None,
    ) -> Tensor:
        """Return the outputs (B, C), averaged over the read-outs.

        Parameters
        ----------
        out : BrainSymphonyOutput
            Of the backbone.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        has_fmri, has_sc : bool Tensor of shape (B,) or None
            False for scans without the modality: only the others speak for them.

        Returns
        -------
        Tensor of shape (B, C)
        """
        outputs, weights = self.each(out, padding, has_fmri, has_sc)
        return (outputs * weights.unsqueeze(-1)).sum(1)

    def each(
        self,
        out: BrainSymphonyOutput,
        padding: Tensor | None = None,
        has_fmri: Tensor | None = None,
        has_sc: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs of every read-out, and its say in their average.

        Parameters
        ----------
        out, padding, has_fmri, has_sc
            See :meth:`forward`.

        Returns
        -------
        outputs : Tensor of shape (B, K, C)
            Of the K read-outs whose stream is there.
        weights : Tensor of shape (B, K)
            Zero for a modality that the scan lacks; rows sum to one.
        """
        outputs, weights = [], []
        for name, readout in self.readouts.items():
            stream = getattr(out, name)
            if stream is None:
                continue
            outputs.append(readout(self._pool(name, stream, padding)))
            weights.append(self._weights(name, stream, has_fmri, has_sc))
        if not outputs:
            raise ValueError(
                f"TaskHead needs one of {list(self.readouts)}. Got none of them."
            )
        weight = torch.stack(weights, dim=1)
        total = weight.sum(1, keepdim=True).clamp(min=1)
        return torch.stack(outputs, dim=1), weight / total

    def _weights(
        self,
        name: str,
        stream: Tensor,
        has_fmri: Tensor | None,
        has_sc: Tensor | None,
    ) -> Tensor:
        """Return one for the scans that a read-out speaks for, else zero, (B,)."""
        has = has_sc if name in OF_SC else has_fmri
        if has is None or name == "fused":
            return stream.new_ones(stream.shape[0])
        return has.to(stream.dtype)

    def _pool(self, name: str, stream: Tensor, padding: Tensor | None) -> Tensor:
        """Return one vector per scan, less what drops out: (B, S), (B, D), (B, R D)."""
        if name in OVER_TIME:
            return mean_over_time(self.dropout_of_averages(stream), padding)
        if self.pooling == "mean":
            return self.dropout_of_averages(stream.mean(1))
        return self.dropout(stream.flatten(1))


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
