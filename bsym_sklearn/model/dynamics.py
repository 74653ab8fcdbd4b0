"""What linear dynamics say of values that are hidden.

Shape letters: B scans, T time points, R regions, L time points back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.layers import SeededModule

N_STEPS = 30  # of conjugate gradients: gaps of 20 time points need them
PRIOR = 0.01  # precision of a hidden value's mean of zero


class LinearDynamics(SeededModule):
    r"""Expect each value from all that is visible, under a fitted filter.

    With a filter F that whitens scans, hidden values are those that leave the least
    unexplained,

    .. math::
        x_h = \arg\min \|F * x\|^2 + \lambda \|x_h\|^2,

    which is their mean given the visible values under the autoregression that F is
    made of, whatever the pattern of hidden regions, time points and points. Found by a
    few steps of conjugate gradients. A visible value is expected from all others, not
    from itself:
    :math:`x_i - (F^T F x)_i / (F^T F)_{ii}`.

    Parameters
    ----------
    n_regions : int
        Regions R.
    order : int
        Time points back, L.

    Attributes
    ----------
    whitening : Tensor of shape (R, R, L + 1)
        The filter, fitted outside of the model
        (:func:`~bsym_sklearn.data.dynamics.fit_whitening`) and stored with its
        weights. At first it expects zero of everything.

    References
    ----------
    .. [1] Rue & Held (2005). Gaussian Markov random fields. Chapman & Hall.
       Section 2.2: conditional means from the precision.

    Examples
    --------
    >>> import torch
    >>> from bsym_sklearn.model.functional import FMRIInput
    >>> dynamics = LinearDynamics(n_regions=1, order=1)
    >>> dynamics.reset_parameters(torch.Generator())
    >>> dynamics.whitening[0, 0] = torch.tensor([-1.0, 1.0])  # as it was before
    >>> series = torch.tensor([[[1.0], [0.0], [3.0]]])
    >>> hidden = torch.tensor([[[False], [True], [False]]])
    >>> round(float(dynamics(FMRIInput(series, hidden))[0, 1, 0]), 1)
    2.0
    """

    whitening: Tensor

    def __init__(self, n_regions: int, order: int) -> None:
        super().__init__()
        self.register_buffer("whitening", torch.zeros(n_regions, n_regions, order + 1))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Expect zero of everything."""
        self.whitening.zero_()
        self.whitening[..., -1].fill_diagonal_(1)

    def forward(self, inputs: FMRIInput) -> Tensor:
        """Return the expected series (B, T, R)."""
        # Small differences of large sums: at least single precision.
        with torch.autocast(inputs.series.device.type, enabled=False):
            series = inputs.series.to(self.whitening).transpose(1, 2)  # (B, R, T)
            exists = torch.ones_like(series)
            if inputs.padding is not None:
                exists = exists.masked_fill(inputs.padding.unsqueeze(1), 0)
            hidden = exists - inputs.visible.to(series).transpose(1, 2)
            precision = Precision(self.whitening, exists)
            filled = series + _hidden_values(series, hidden, precision)
            alone = filled - precision(filled) / precision.diagonal
            expected = torch.where(hidden.bool(), filled, alone)
        return expected.transpose(1, 2).to(inputs.series)


class Precision:
    """The map x -> F' F x of series, without building it.

    Parameters
    ----------
    taps : Tensor of shape (R, R, L + 1)
        Filter F.
    exists : Tensor of shape (B, R, T)
        One, and zero at padding, of which no error counts. Before it begins, a
        series is zero.

    Attributes
    ----------
    diagonal : Tensor of shape (B, R, T)
        Above zero.
    """

    def __init__(self, taps: Tensor, exists: Tensor) -> None:
        self.taps = taps
        self.exists = exists
        smallest = torch.finfo(taps.dtype).tiny
        self.diagonal = self._transposed(exists, taps.square()).clamp(min=smallest)

    def __call__(self, series: Tensor) -> Tensor:
        """Return F' F x of `series` (B, R, T)."""
        order = self.taps.shape[-1] - 1
        errors = F.conv1d(F.pad(series, (order, 0)), self.taps)
        return self._transposed(errors * self.exists, self.taps)

    def _transposed(self, errors: Tensor, taps: Tensor) -> Tensor:
        """Return F' e of `errors` (B, R, T)."""
        return F.conv_transpose1d(errors, taps)[..., taps.shape[-1] - 1 :]


def _hidden_values(series: Tensor, hidden: Tensor, precision: Precision) -> Tensor:
    """Return the hidden values, zero elsewhere, by conjugate gradients (B, R, T)."""
    diagonal = precision.diagonal + PRIOR
    smallest = torch.finfo(series.dtype).tiny
    residual = -hidden * precision(series)
    direction = residual / diagonal
    size = (residual * direction).sum((1, 2), keepdim=True)
    found = torch.zeros_like(series)
    for _ in range(N_STEPS):
        image = hidden * precision(direction) + PRIOR * direction
        along = (direction * image).sum((1, 2), keepdim=True)
        step = size / along.clamp(min=smallest)
        found = found + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        before, size = size, (residual * scaled).sum((1, 2), keepdim=True)
        direction = scaled + size / before.clamp(min=smallest) * direction
    return found
