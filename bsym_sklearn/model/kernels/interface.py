r"""What a kernel of the token attention computes.

For query :math:`i`, region :math:`r` and time point :math:`t` of a scan, with the
raw samples :math:`w_{rt}` around :math:`t` (TAPS of them, zero beyond the ends),

.. math::
    s_{irt} = (\alpha_{ir} + \beta_{it} + m_i \cdot w_{rt}) \, \sigma_{rt}^{-1},
    \qquad P_i = \mathrm{softmax}_{rt}(s_i), \qquad Q = P / \sigma

A kernel returns sums of P and Q only, and so never holds more than a few rows of
either. Shape letters: B scans, N queries of all heads, R regions, T time points.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

TAPS = 5  # samples in a window
# Stands for minus infinity in `beta`: far below every score, and still finite after
# any product with a scale, so that no NaN can come of it.
ABSENT = -1e30


class Moments(NamedTuple):
    """Sums over all tokens, per query.

    Parameters
    ----------
    rows : Tensor of shape (B, N, R)
        Sum of Q over time.
    columns : Tensor of shape (B, N, T)
        Sum of Q over regions.
    taps : Tensor of shape (B, N, TAPS)
        Sum of Q times the window, over both.
    mass : Tensor of shape (B, N, R)
        Sum of P over time: the attention that a region gets. Not differentiable.
    log_total : Tensor of shape (B, N)
        Logarithm of the sum of the exponentials. Not differentiable.
    """

    rows: Tensor
    columns: Tensor
    taps: Tensor
    mass: Tensor
    log_total: Tensor


class Received(NamedTuple):
    """What the backward pass is given.

    Parameters
    ----------
    rows, columns, taps : Tensor
        Gradients of a loss with respect to these :class:`Moments`.
    log_total : Tensor of shape (B, N)
        Of the forward pass.
    delta : Tensor of shape (B, N)
        Sum of the gradients times their moments, the usual term of a softmax.
    """

    rows: Tensor
    columns: Tensor
    taps: Tensor
    log_total: Tensor
    delta: Tensor


class Gradients(NamedTuple):
    """Gradients of a loss with respect to the inputs.

    Parameters
    ----------
    alpha, beta, slope, scale : Tensor
        Of the shapes of the inputs.
    windows : Tensor of shape (B, R, TAPS, T) or None
        With respect to the windows, not yet added up to one per sample; None if
        not asked for.
    """

    alpha: Tensor
    beta: Tensor
    slope: Tensor
    scale: Tensor
    windows: Tensor | None


class Kernel(Protocol):
    """A module with these two functions, for float32 or float64.

    All tensors are contiguous, those that are given and those that are returned.
    """

    def forward(
        self,
        alpha: Tensor,
        beta: Tensor,
        slope: Tensor,
        scale: Tensor,
        series: Tensor,
    ) -> Moments:
        """Return the sums over all tokens.

        Parameters
        ----------
        alpha, beta, slope : Tensor of shape (B, N, R), (B, N, T), (B, N, TAPS)
            Parts of the scores; `beta` is ABSENT where a time point does not exist.
        scale : Tensor of shape (B, R, T)
            One over the standard deviation of each token, above zero.
        series : Tensor of shape (B, R, T)
            Samples.

        Returns
        -------
        Moments
        """

    def backward(
        self,
        alpha: Tensor,
        beta: Tensor,
        slope: Tensor,
        scale: Tensor,
        series: Tensor,
        given: Received,
        *,
        with_series: bool,
    ) -> Gradients:
        """Return the gradients of the inputs.

        Parameters
        ----------
        alpha, beta, slope, scale, series : Tensor
            As in the forward pass.
        given : Received
            Gradients of the moments.
        with_series : bool
            Whether the gradient of the windows is needed.

        Returns
        -------
        Gradients
        """
