from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bsym_sklearn.model.connectome import (
    EDGE_WEIGHTS,
    N_SPECTRAL,
    hop_weights,
    spectral_coordinates,
)

B, R = 2, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def connectome(n_scans: int = B, n_regions: int = R, seed: int = 0) -> Tensor:
    """Return signed symmetric weights, some absent, zero diagonal."""
    upper = normal(n_scans, n_regions, n_regions, seed=seed).triu(1)
    upper = upper * (normal(n_scans, n_regions, n_regions, seed=seed + 1) > -0.4)
    return upper + upper.transpose(1, 2)


# Hops


def test_hops_are_normalised_powers() -> None:
    sc = connectome()
    hops = hop_weights(sc, "multi_hop", max_hops=3)
    first = sc[0].numpy()
    second = first @ first
    second /= np.linalg.norm(second)
    third = second @ first
    third /= np.linalg.norm(third)
    for k, expected in enumerate([first, second, third]):
        np.testing.assert_allclose(hops[0, k].numpy(), expected, atol=1e-7)


def test_diffusion_is_a_truncated_series() -> None:
    sc = connectome()
    scale = np.diag(1 / np.sqrt(np.abs(sc[0].numpy()).sum(1)))
    step = 0.1 * scale @ sc[0].numpy() @ scale
    expected = sum(np.linalg.matrix_power(step, k) for k in range(10))
    ours = hop_weights(sc, "diffusion")[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # summed in float32


@pytest.mark.parametrize("kind", EDGE_WEIGHTS)
def test_empty_connectome_gives_finite_hops(kind: str) -> None:
    assert hop_weights(torch.zeros(1, R, R), kind).isfinite().all()


# Positions


def ring(n_regions: int) -> Tensor:
    """Return a connectome in which each region resembles its neighbours on a ring."""
    place = torch.arange(n_regions, dtype=torch.float64)
    distance = (place[:, None] - place).abs()
    distance = torch.minimum(distance, n_regions - distance)
    # Not quite regular, so that no two eigenvalues are equal.
    return (torch.exp(-distance) + 0.01 * connectome(1, n_regions)[0])[None]


def test_spectral_positions_are_smooth_and_the_released_ones_rough() -> None:
    sc = ring(40)

    def roughness(order: str) -> float:
        first = spectral_coordinates(sc, order)[0, :, 0]
        return (first - first.roll(1)).square().sum().item()

    assert roughness("spectral") < 0.1
    assert roughness("reference") > 1


def test_spectral_positions_are_orthonormal_with_a_fixed_sign_and_no_constant() -> None:
    for order in ("spectral", "reference"):
        table = spectral_coordinates(ring(40), order)[0]
        assert table.shape == (40, N_SPECTRAL)
        torch.testing.assert_close(
            table.T @ table, torch.eye(N_SPECTRAL).double(), rtol=0, atol=1e-9
        )
        peak = table.gather(0, table.abs().argmax(0, keepdim=True))
        assert (peak > 0).all()
    assert spectral_coordinates(ring(40))[0].std(0).min() > 0.05


def test_spectral_positions_of_few_regions_are_filled_with_zeros() -> None:
    table = spectral_coordinates(connectome())
    assert table.shape == (B, R, N_SPECTRAL)
    assert table[:, :, : R - 1].any()
    assert not table[:, :, R - 1 :].any()
