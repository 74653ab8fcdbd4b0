"""What the rivals share: how they start, their inputs, one transformer layer.

Shape letters: B scans, T time points, R regions, N tokens, D channels, C outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.functional import FMRIInput, connectivity_profiles
from bsym_sklearn.model.layers import (
    Dropout,
    SeededModule,
    attend,
    check_heads,
    initialize_weights,
    split_heads,
)


class Rival(SeededModule):
    """A supervised network from scaled series to one output vector per scan.

    Subclasses make their parts under ``torch.device("meta")``, set `config` and end
    their constructor with :meth:`draw_weights`.

    Attributes
    ----------
    config : dict
        The constructor's arguments, as JSON can hold them: ``cls(**config)``
        builds the same network.

    Examples
    --------
    >>> import torch
    >>> from bsym_sklearn.model.rivals import MeanMLP
    >>> rival = MeanMLP(n_regions=3, n_outputs=2).eval()
    >>> output, loss = rival.outputs_and_loss(torch.zeros(4, 10, 3))
    >>> output.shape, loss.item()
    (torch.Size([4, 2]), 0.0)
    """

    config: dict[str, Any]

    def draw_weights(self, generator: torch.Generator | None) -> None:
        """Fill the parameters from `generator`; None takes one seeded with 0."""
        self.float()  # a float64 default of torch would draw other weights
        self.to_empty(device="cpu")
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        initialize_weights(self, generator)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Keep what the parts drew."""

    def outputs_and_loss(
        self, fmri: Tensor, padding: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs and what the paper adds to the loss of the task.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R)
            Scaled series.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.
        labels : integer Tensor of shape (B,) or None
            Classes of the scans, for a loss that needs them.

        Returns
        -------
        outputs : Tensor of shape (B, C)
            As from `forward`.
        auxiliary_loss : Tensor of shape ()
            Zero where the paper adds nothing.
        """
        outputs, state = self.outputs_and_state(fmri, padding)
        return outputs, self.auxiliary_loss(state, labels) + outputs.new_zeros(())

    def outputs_and_state(
        self, fmri: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the outputs (B, C) and what :meth:`auxiliary_loss` needs of the way.

        In two steps, as a training loop knows the labels after the forward pass.
        """
        return self(fmri, padding), None

    def auxiliary_loss(self, state: Any, labels: Tensor | None) -> Tensor | float:
        """Return what the paper adds to the loss of the task; zero if nothing."""
        return 0.0


def zero_padding(fmri: Tensor, padding: Tensor | None) -> Tensor:
    """Return `fmri` (B, T, R) with zeros at the time points that do not exist.

    Examples
    --------
    >>> import torch
    >>> zero_padding(torch.ones(1, 2, 1), torch.tensor([[False, True]])).flatten()
    tensor([1., 0.])
    """
    return FMRIInput(fmri, None, padding).series


def fisher_z(fmri: Tensor, padding: Tensor | None = None) -> Tensor:
    """Return the Fisher-z correlations of the regions in each window.

    :func:`~bsym_sklearn.model.functional.connectivity_profiles`, in full precision:
    numbers of time points above 256 have no bfloat16.

    Parameters
    ----------
    fmri : Tensor of shape (B, T, R)
        Series.
    padding : bool Tensor of shape (B, T) or None
        True where a time point does not exist.

    Returns
    -------
    Tensor of shape (B, R, R)
        Symmetric, with a zero diagonal; each entry in [-3.8, 3.8].

    Examples
    --------
    >>> import torch
    >>> fisher_z(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])).round(decimals=1)
    tensor([[[ 0.0000, -3.8000],
             [-3.8000,  0.0000]]])
    """
    with torch.autocast(fmri.device.type, enabled=False):
        return connectivity_profiles(FMRIInput(fmri, None, padding))


def correlations(fmri: Tensor, padding: Tensor | None = None) -> Tensor:
    """Return the Pearson correlations of the regions in each window.

    Differentiable in the series, and within [-0.999, 0.999] off the diagonal.

    Parameters
    ----------
    fmri : Tensor of shape (B, T, R)
        Series.
    padding : bool Tensor of shape (B, T) or None
        True where a time point does not exist.

    Returns
    -------
    Tensor of shape (B, R, R)
        Symmetric, with ones on the diagonal. A region that is constant in the window
        correlates with no other.

    Examples
    --------
    >>> import torch
    >>> correlations(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]))
    tensor([[[ 1.0000, -0.9990],
             [-0.9990,  1.0000]]])
    """
    z = fisher_z(fmri, padding)
    return z.tanh() + torch.eye(z.shape[1], dtype=z.dtype, device=z.device)


class EncoderLayer(nn.Module):
    """Post-norm transformer layer of Vaswani et al., as `nn.TransformerEncoderLayer`.

    The same function but for the dropout of attention weights, which is left out so
    that no map is built.

    Parameters
    ----------
    dim, n_heads : int
        Channels D, a multiple of the number of heads.
    mlp_dim : int
        Hidden channels of the feed-forward net.
    dropout : float, default=0.0
        Rate after attention, inside the feed-forward net and after it, in [0, 1).

    References
    ----------
    .. [1] Vaswani et al. (2017). Attention is all you need. Section 3.1.

    Examples
    --------
    >>> import torch
    >>> EncoderLayer(8, 2, 16)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, dim: int, n_heads: int, mlp_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_heads(dim, n_heads)
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, mlp_dim)
        self.contract = nn.Linear(mlp_dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """Update the tokens `x` (B, N, D); `absent` (B, N) is True at padding."""
        query, key, value = (
            split_heads(part, self.n_heads)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        mixed = self.out(attend(query, key, value, absent))
        x = self.attention_norm(x + self.dropout(mixed))
        hidden = self.dropout(F.relu(self.expand(x)))
        return self.feed_forward_norm(x + self.dropout(self.contract(hidden)))
