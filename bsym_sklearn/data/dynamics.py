"""How regions follow one another in the training scans, linearly.

Shape letters: R regions, L time points back.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ORDER = 2  # time points back
RIDGE = 0.1  # variance added to the errors and to the past, of series of variance 1


def fit_whitening(
    series: Iterable[np.ndarray], *, order: int = ORDER, ridge: float = RIDGE
) -> np.ndarray:
    r"""Return the filter that leaves of a scan what its past does not explain.

    A vector autoregression :math:`x_t = \sum_k A_k x_{t-k} + e_t`, fitted to the
    covariances of all scans (Yule-Walker), and the root of its errors' precision,

    .. math::
        F = \Sigma_e^{-1/2} [-A_L, \dots, -A_1, I],

    so that :math:`F * x` is white. What it makes of a scan is
    :class:`~bsym_sklearn.model.dynamics.LinearDynamics`.

    Parameters
    ----------
    series : iterable of ndarray of shape (n_timepoints, n_regions)
        Scaled scans, of any lengths; those too short for a lag do not count for it.
    order : int, default=2
        Time points back, L.
    ridge : float, default=0.1
        Shrinks the weights and the precision; in units of the variance.

    Returns
    -------
    ndarray of shape (n_regions, n_regions, order + 1)
        Taps of a convolution, the oldest time point first.

    Raises
    ------
    ValueError
        If there is no scan.

    References
    ----------
    .. [1] Luetkepohl (2005). New introduction to multiple time series analysis.
       Springer. Section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal((500, 2))
    >>> taps = fit_whitening([noise], order=1, ridge=0.0)
    >>> abs(taps[..., -1] - np.eye(2)).max() < 0.1, abs(taps[..., 0]).max() < 0.1
    (np.True_, np.True_)
    """
    lagged = _lagged_covariances(series, order)
    n_regions = lagged.shape[1]
    past = np.block(
        [
            [lagged[j - i] if j >= i else lagged[i - j].T for j in range(order)]
            for i in range(order)
        ]
    )
    now = np.concatenate(list(lagged[1:]), axis=1)  # (R, L R)
    weights = np.linalg.solve(past + ridge * np.eye(len(past)), now.T).T
    errors = lagged[0] - weights @ now.T - now @ weights.T + weights @ past @ weights.T
    values, vectors = np.linalg.eigh((errors + errors.T) / 2)
    floor = max(ridge, 1e-6)
    root = (vectors / np.sqrt(np.maximum(values, 0) + floor)) @ vectors.T
    taps = [
        -root @ a for a in weights.reshape(n_regions, order, n_regions).swapaxes(0, 1)
    ]
    return np.stack([*taps[::-1], root], axis=2)


def _lagged_covariances(series: Iterable[np.ndarray], order: int) -> np.ndarray:
    """Return the mean of x_t x_{t-k}' for k = 0, ..., order: (order + 1, R, R)."""
    total: np.ndarray | None = None
    count = np.zeros(order + 1)
    for scan in series:
        x = np.asarray(scan, dtype=np.float64)
        if total is None:
            total = np.zeros((order + 1, x.shape[1], x.shape[1]))
        for k in range(min(order + 1, len(x))):
            total[k] += x[k:].T @ x[: len(x) - k]
            count[k] += len(x) - k
    if total is None:
        raise ValueError(
            "fit_whitening needs at least one scan. Got none. Pass training scans."
        )
    return total / np.maximum(count, 1)[:, None, None]
