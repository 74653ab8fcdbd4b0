"""The plain transformer: a token per time point, averaged over time.

Shape letters: B scans, T time points, R regions, D channels, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsym_sklearn.model.heads import mean_over_time
from bsym_sklearn.model.layers import Dropout, check_choice, sinusoidal_positions
from bsym_sklearn.model.rivals.rival import EncoderLayer, Rival, zero_padding

READOUTS = ("mean", "first")


class TimePointTransformer(Rival):
    """Classify a series with a transformer encoder over its time points.

    Parameters
    ----------
    n_regions, n_outputs : int
        Regions R and outputs C.
    dim : int, default=80
        Channels D, a multiple of `n_heads`.
    depth : int, default=2
        Layers.
    n_heads : int, default=4
        Attention heads.
    mlp_dim : int, default=2048
        Hidden channels of the feed-forward nets.
    readout : {"mean", "first"}, default="mean"
        Read the average of the tokens ("meanTransformer" of [1]_) or the first token
        ("Transformer").
    dropout : float, default=0.3
        Rate before the last, linear map, in [0, 1).
    layer_dropout : float, default=0.1
        Rate inside the layers, in [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Notes
    -----
    Differs from the released code in that attention weights have no dropout, and
    that the projections in front of attention start with torch's default for linear
    layers instead of Xavier's.

    References
    ----------
    .. [1] Popov et al. (2024). A simple but tough-to-beat baseline for fMRI
       time-series classification. NeuroImage 303, 120909; released code,
       neuroneural/meanMLP, ml4fmri/models/meanTransformer.py and Transformer.py.
    .. [2] Vaswani et al. (2017). Attention is all you need.

    Examples
    --------
    >>> import torch
    >>> TimePointTransformer(n_regions=5, n_outputs=2)(torch.zeros(3, 20, 5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_regions: int,
        n_outputs: int,
        *,
        dim: int = 80,
        depth: int = 2,
        n_heads: int = 4,
        mlp_dim: int = 2048,
        readout: str = "mean",
        dropout: float = 0.3,
        layer_dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice(readout, READOUTS, "readout")
        self.readout = readout
        self.config = {
            "n_regions": n_regions,
            "n_outputs": n_outputs,
            "dim": dim,
            "depth": depth,
            "n_heads": n_heads,
            "mlp_dim": mlp_dim,
            "readout": readout,
            "dropout": dropout,
            "layer_dropout": layer_dropout,
        }
        with torch.device("meta"):
            self.embed = nn.Linear(n_regions, dim)
            self.layers = nn.ModuleList(
                EncoderLayer(dim, n_heads, mlp_dim, layer_dropout) for _ in range(depth)
            )
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
        x = x + sinusoidal_positions(*x.shape[1:]).to(x, non_blocking=True)
        for layer in self.layers:
            x = layer(x, padding)
        pooled = mean_over_time(x, padding) if self.readout == "mean" else x[:, 0]
        return self.head(self.dropout(pooled))
