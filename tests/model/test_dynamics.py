"""What linear dynamics say of hidden values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.model.dynamics import PRIOR, LinearDynamics
from bsym_sklearn.model.functional import FMRIInput

B, T, R, ORDER = 3, 12, 4, 2


@pytest.fixture
def dynamics() -> LinearDynamics:
    made = LinearDynamics(R, ORDER).double()
    generator = torch.Generator().manual_seed(0)
    made.reset_parameters(generator)
    noise = torch.randn(R, R, ORDER + 1, generator=generator, dtype=torch.float64)
    made.whitening += 0.2 * noise
    return made


def precision(dynamics: LinearDynamics) -> torch.Tensor:
    """Return F' F of a whole window as one matrix, (T R, T R)."""
    unit = torch.eye(T * R, dtype=torch.float64).reshape(T * R, T, R).transpose(1, 2)
    errors = F.conv1d(F.pad(unit, (ORDER, 0)), dynamics.whitening).flatten(1)
    return errors @ errors.T


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    series = torch.randn(B, T, R, generator=generator, dtype=torch.float64)
    mask = torch.rand(B, T, R, generator=generator) < 0.2
    mask[0, :, 1] = True  # a region
    mask[1, 3:6] = True  # time points
    return series, mask


def test_hidden_values_are_their_mean_given_the_others(dynamics, monkeypatch) -> None:
    monkeypatch.setattr("bsym_sklearn.model.dynamics.N_STEPS", 60)
    series, mask = draw(0)
    found = dynamics(FMRIInput(series, mask))
    whole = precision(dynamics)
    for x, hidden, expected in zip(series, mask, found, strict=True):
        h = hidden.flatten()
        inner = whole[h][:, h] + PRIOR * torch.eye(int(h.sum()), dtype=torch.float64)
        exact = torch.linalg.solve(inner, -whole[h][:, ~h] @ x.flatten()[~h])
        torch.testing.assert_close(expected.flatten()[h], exact)


def test_visible_values_are_expected_from_the_others(dynamics) -> None:
    series, _ = draw(1)
    found = dynamics(FMRIInput(series))
    whole = precision(dynamics)
    x = series[0].flatten()
    others = whole @ x - whole.diagonal() * x
    torch.testing.assert_close(found[0].flatten(), -others / whole.diagonal())
    changed = series.clone()
    changed[0, 5, 2] += 7
    again = dynamics(FMRIInput(changed))
    torch.testing.assert_close(again[0, 5, 2], found[0, 5, 2])  # not from itself


def test_hidden_values_and_padding_have_no_influence(dynamics) -> None:
    series, mask = draw(2)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[:, -3:] = True
    found = dynamics(FMRIInput(series, mask, padding))
    other = torch.where(mask | padding.unsqueeze(-1), 99.0, series)
    torch.testing.assert_close(dynamics(FMRIInput(other, mask, padding)), found)
    short = dynamics(FMRIInput(series[:, :-3], mask[:, :-3]))
    torch.testing.assert_close(found[:, :-3], short)
    assert not found[:, -3:].any()


def test_before_it_is_fitted_it_expects_nothing() -> None:
    fresh = LinearDynamics(R, ORDER)
    fresh.reset_parameters(torch.Generator())
    series, mask = draw(3)
    assert not fresh(FMRIInput(series.float(), mask)).any()


def test_the_model_adds_what_it_decodes(dynamics) -> None:
    sizes = {"window": T, "dim": 8, "depth": 1, "modalities": ("fmri",)}
    model = BrainSymphony(R, **sizes, decoder="residual").double().eval()
    model.set_expectations(whitening=dynamics.whitening)
    series, mask = draw(4)
    out = model(fmri=series, fmri_mask=mask)
    inputs = FMRIInput(series, mask)
    torch.testing.assert_close(out.expected, dynamics(inputs))
    added = model.fmri.perceiver.decode(out.latents, out.temporal)
    torch.testing.assert_close(out.fmri_reconstruction, out.expected + added)
    assert added.abs().max() < 0.2  # starts near the linear answer
    encoded = model(fmri=series, fmri_mask=mask, decode=False)
    assert encoded.fmri_reconstruction is None
    torch.testing.assert_close(encoded.fused, out.fused)


def test_edges_are_added_to_expected_ones() -> None:
    sizes = {"window": T, "dim": 8, "depth": 1, "modalities": ("sc",)}
    model = BrainSymphony(R, **sizes, decoder="residual").eval()
    edges = model.sc.edges
    x = torch.randn(2, R, 8, generator=torch.Generator().manual_seed(0))
    before = edges(x)
    assert before.abs().max() < 0.1
    mean = torch.arange(R * R).reshape(R, R).float()
    model.set_expectations(edges=mean + mean.T)
    torch.testing.assert_close(edges(x), before + mean + mean.T)
    row, column = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[3, 2], [0, 0]])
    chosen = edges(x)[torch.tensor([[0], [1]]), row, column]
    torch.testing.assert_close(edges.pairs(x, row, column), chosen)


def test_expectations_of_another_shape_are_refused() -> None:
    model = BrainSymphony(R, T, dim=8, depth=1, decoder="residual")
    with pytest.raises(ValueError, match=r"`whitening` of shape \(4, 4, 3\)"):
        model.set_expectations(whitening=torch.zeros(R, R, 2))
    with pytest.raises(ValueError, match=r"`edges` of shape \(4, 4\)"):
        model.set_expectations(edges=torch.zeros(R, 2))
    plain = BrainSymphony(R, T, dim=8, depth=1)
    with pytest.raises(ValueError, match="decoder="):
        plain.set_expectations(whitening=torch.zeros(R, R, 3))


def test_double_and_single_precision_agree(dynamics) -> None:
    series, mask = draw(5)
    single = LinearDynamics(R, ORDER)
    single.whitening.copy_(dynamics.whitening.float())
    found = single(FMRIInput(series.float(), mask))
    np.testing.assert_allclose(found, dynamics(FMRIInput(series, mask)), atol=1e-4)
