"""meanMLP: the same small perceptron at every time point, averaged over time.

Shape letters: B scans, T time points, R regions, D channels, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.heads import mean_over_time
from bsym_sklearn.model.layers import Dropout
from bsym_sklearn.model.rivals.rival import Rival, zero_padding


class MeanMLP(Rival):
    r"""Average a perceptron's output over the time points.

    .. math::
        \hat y = \frac1T \sum_t W \, \mathrm{drop}(\mathrm{relu}(
        \mathrm{LN}(U x_t + a))) + b

    The order of the time points does not matter, and a longer series costs no more
    parameters.

    Parameters
    ----------
    n_regions, n_outputs : int
        Regions R and outputs C.
    dim : int, default=160
        Hidden channels D.
    dropout : float, default=0.49
        Rate on the hidden channels, in [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Notes
    -----
    As published. The average is taken before the last, linear map instead of after
    it, which gives the same output in fewer steps.

    References
    ----------
    .. [1] Popov et al. (2024). A simple but tough-to-beat baseline for fMRI
       time-series classification. NeuroImage 303, 120909; released code,
       neuroneural/meanMLP, ml4fmri/models/meanMLP.py.

    Examples
    --------
    >>> import torch
    >>> MeanMLP(n_regions=5, n_outputs=2)(torch.zeros(3, 20, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_regions: int,
        n_outputs: int,
        *,
        dim: int = 160,
        dropout: float = 0.49,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "n_regions": n_regions,
            "n_outputs": n_outputs,
            "dim": dim,
            "dropout": dropout,
        }
        with torch.device("meta"):
            self.embed = nn.Linear(n_regions, dim)
            self.norm = nn.LayerNorm(dim)
            self.dropout = Dropout(dropout)
            self.head = nn.Linear(dim, n_outputs)
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
        x = self.embed(zero_padding(fmri, padding))  # (B, T, D)
        x = self.dropout(F.relu(self.norm(x)))
        return self.head(mean_over_time(x, padding))
