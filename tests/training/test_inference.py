from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bsym_sklearn.data.cohort import check_cohort
from bsym_sklearn.data.resampling import window_starts
from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.training.inference import Batch, WindowLoop
from bsym_sklearn.training.scans import ScanReader, WindowDataset

R, WINDOW = 3, 8
LENGTHS = [20, 8, 5, 27, 9]


def draw_series() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, R)) for length in LENGTHS]


def draw_connectome(seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(size=(R, R)), 1)
    return upper + upper.T


def make_dataset(
    *, mixed: bool = False, rows: list[int] | None = None, n_windows: int | None = None
) -> WindowDataset:
    """Return scans of several lengths; `mixed` ones have connectomes and gaps."""
    fmri: list[Any] = list(draw_series())
    frame = pd.DataFrame({"fmri": fmri})
    if mixed:
        fmri[1] = None
        sc = [draw_connectome(i) for i in range(4)]
        frame = pd.DataFrame({"fmri": fmri, "sc": [*sc, None]})
    modalities = ("fmri", "sc") if mixed else ("fmri",)
    reader = ScanReader(check_cohort(frame), None, None, modalities, dtype=np.float64)
    return WindowDataset(reader, WINDOW, rows=rows, n_windows=n_windows)


def make_model() -> BrainSymphony:
    """Return a model whose every parameter has a value of its own."""
    model = BrainSymphony(
        R, WINDOW, dim=8, depth=1, n_heads=2, structural_heads=2, dropout=0.5
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def means(batch: Batch) -> Tensor:
    """Return the mean (B, R) over the time points that exist."""
    exists = torch.ones(batch["fmri"].shape[:2], dtype=torch.bool)
    if "padding" in batch:
        exists = ~batch["padding"]
    count = exists.sum(1, keepdim=True)
    return (batch["fmri"] * exists.unsqueeze(2)).sum(1) / count


def expected_means(rows: list[int], n_windows: int | None = None) -> np.ndarray:
    """Average the windows of each scan by hand."""
    made = []
    for row in rows:
        series = draw_series()[row]
        starts = window_starts(len(series), WINDOW, n_windows=n_windows)
        made.append(np.mean([series[s : s + WINDOW].mean(0) for s in starts], axis=0))
    return np.array(made)


@pytest.mark.parametrize("n_windows", [None, 1, 4])
@pytest.mark.parametrize("rows", [None, [3, 0], [4, 2, 1, 0, 3], [2]])
def test_windows_are_averaged_by_scan_in_the_order_of_rows(
    rows: list[int] | None, n_windows: int | None
) -> None:
    dataset = make_dataset(rows=rows, n_windows=n_windows)
    made = WindowLoop(3, "cpu").average(nn.Identity(), dataset, means)
    expected = expected_means(list(range(5)) if rows is None else rows, n_windows)
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-14)


def test_outputs_keep_their_shape() -> None:
    loop, module = WindowLoop(4, "cpu"), nn.Identity()
    scalars = loop.average(module, make_dataset(), lambda b: b["fmri"].mean((1, 2)))
    assert scalars.shape == (5,)
    matrices = loop.average(
        module, make_dataset(), lambda b: b["fmri"].mT @ b["fmri"] / WINDOW
    )
    assert matrices.shape == (5, R, R)
    low = loop.average(module, make_dataset(), lambda b: means(b).bfloat16())
    assert low.dtype == np.float64


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_every_window_comes_once_in_order_with_its_values(batch_size: int) -> None:
    dataset = make_dataset()
    seen = []
    loop = WindowLoop(batch_size, "cpu")
    for windows, batch in loop.iterate(nn.Identity(), dataset, lambda b, _: b):
        assert len(windows) == len(batch["fmri"]) <= batch_size
        for (row, start), values in zip(windows, batch["fmri"].numpy(), strict=True):
            crop = draw_series()[row][start : start + WINDOW]
            assert np.array_equal(values[: len(crop)], crop)
        seen += windows
    assert seen == dataset.covering_windows()


def test_what_is_applied_gets_the_windows_of_its_batch() -> None:
    loop = WindowLoop(3, "cpu")
    for windows, given in loop.iterate(
        nn.Identity(), make_dataset(), lambda _, chunk: chunk
    ):
        assert given == windows


def test_the_module_is_evaluated_without_gradients_or_dropout() -> None:
    model = make_model().train()

    def apply(batch: Batch) -> Tensor:
        assert not any(part.training for part in model.modules())
        out = model(**batch).fused
        assert torch.is_inference_mode_enabled()
        assert not out.requires_grad
        return out

    loop, dataset = WindowLoop(4, "cpu"), make_dataset(mixed=True)
    first, second = (loop.average(model, dataset, apply) for _ in range(2))
    assert np.array_equal(first, second)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_the_batch_size_changes_nothing(batch_size: int, mixed: bool) -> None:
    model, dataset = make_model(), make_dataset(mixed=mixed)

    def average(size: int) -> np.ndarray:
        loop = WindowLoop(size, "cpu")
        return loop.average(model, dataset, lambda batch: model(**batch).fused)

    made = average(batch_size)
    assert made.shape == (5, R, 8)
    np.testing.assert_allclose(made, average(7), rtol=0, atol=1e-12)


def test_the_company_of_a_scan_changes_nothing() -> None:
    model, loop = make_model(), WindowLoop(4, "cpu")

    def average(rows: list[int]) -> np.ndarray:
        dataset = make_dataset(mixed=True, rows=rows)
        return loop.average(model, dataset, lambda batch: model(**batch).fused)

    together = average([0, 1, 2, 3, 4])
    for row in range(5):
        alone = average([row])[0]
        np.testing.assert_allclose(alone, together[row], rtol=0, atol=1e-12)
    swapped = average([4, 3, 2, 1, 0])
    np.testing.assert_allclose(swapped[::-1], together, rtol=0, atol=1e-12)


def test_a_reading_process_changes_nothing() -> None:
    model, dataset = make_model(), make_dataset(mixed=True)
    made = [
        WindowLoop(4, "cpu", n_jobs).average(model, dataset, lambda b: model(**b).fused)
        for n_jobs in (0, 1)
    ]
    assert np.array_equal(made[0], made[1])


def test_global_generators_are_not_touched() -> None:
    state = torch.get_rng_state()
    WindowLoop(3, "cpu").average(nn.Identity(), make_dataset(), means)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_scans_are_an_error() -> None:
    message = r"A prediction needs at least one scan\. Got none\."
    with pytest.raises(ValueError, match=message):
        WindowLoop(3, "cpu").average(nn.Identity(), make_dataset(rows=[]), means)
