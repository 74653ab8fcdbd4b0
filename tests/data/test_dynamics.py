"""The filter that leaves of a scan what its past does not explain."""

from __future__ import annotations

import numpy as np
import pytest

from bsym_sklearn.data.dynamics import fit_whitening

WEIGHTS = np.array([[0.6, 0.2, 0.0], [0.0, 0.5, -0.3], [0.1, 0.0, 0.4]])
MIXING = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.3, 0.9]])


def simulate(rng, n_timepoints: int) -> np.ndarray:
    """Return an autoregression of order 1 with correlated errors."""
    x = np.zeros((n_timepoints, 3))
    errors = rng.standard_normal(x.shape) @ MIXING.T
    for t in range(1, n_timepoints):
        x[t] = WEIGHTS @ x[t - 1] + errors[t]
    return x


def test_what_is_left_is_white(rng) -> None:
    scans = [simulate(rng, 3000) for _ in range(4)]
    taps = fit_whitening(scans, order=2, ridge=0.0)
    assert taps.shape == (3, 3, 3)
    x = simulate(rng, 8000)
    left = sum(x[k : len(x) - 2 + k] @ taps[:, :, k].T for k in range(3))
    np.testing.assert_allclose(left.T @ left / len(left), np.eye(3), atol=0.06)
    np.testing.assert_allclose(left[1:].T @ left[:-1] / len(left), 0, atol=0.06)
    # The last tap whitens the errors, the one before takes the past away.
    root = taps[:, :, 2]
    np.testing.assert_allclose(
        np.linalg.solve(root, -taps[:, :, 1]), WEIGHTS, atol=0.05
    )


def test_a_ridge_keeps_few_and_constant_series_finite() -> None:
    few = [np.random.default_rng(0).standard_normal((5, 9)), np.zeros((1, 9))]
    few[0][:, 3] = 0
    taps = fit_whitening(few)
    assert np.isfinite(taps).all()
    flat = taps[3, np.arange(9) != 3]  # knows nothing of the others
    np.testing.assert_allclose(flat, 0, atol=1e-9)


def test_no_scan_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one scan"):
        fit_whitening([])
