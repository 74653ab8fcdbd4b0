"""Windows of files that are read alone, and what is prepared from connectomes."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bsym_sklearn.data import recording
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.scaling import RegionScaler
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.training import reading
from bsym_sklearn.training.inference import WindowLoop
from bsym_sklearn.training.reading import Arrays, ScanReader
from bsym_sklearn.training.scans import WindowDataset, make_loader

R, WINDOW = 5, 12
LENGTHS = (40, 25, 12, 7, 31)
WHOLE = 1 << 30
SCALINGS: list[dict[str, Any] | None] = [
    None,
    *(
        {"method": method, "per": per}
        for method in ("zscore", "robust", "demean")
        for per in ("scan", "cohort")
    ),
]
each_scaling = pytest.mark.parametrize(
    "scaling", SCALINGS, ids=lambda s: "-".join(s.values()) if s else "none"
)


def write_cohort(
    folder: Path, dtype: str = "float32", order: str = "C", suffix: str = ".npy"
) -> Cohort:
    """Return scans in files; one has a constant region."""
    rng = np.random.default_rng(0)
    paths = []
    for i, length in enumerate(LENGTHS):
        values = rng.normal(1000, 3, size=(length, R)).astype(dtype)
        if i == 1:
            values[:, 2] = 7
        path = folder / f"scan{i}{suffix}"
        if suffix == ".npy":
            np.save(path, np.asarray(values, order=order))  # type: ignore[call-overload]
        else:
            pd.DataFrame(values).to_csv(path, sep="\t", index=False)
        paths.append(str(path))
    return check_cohort(paths, constant_regions="mask")


def fit_scaler(cohort: Cohort, scaling: dict[str, Any] | None) -> RegionScaler | None:
    if scaling is None:
        return None
    return RegionScaler(constant_regions="mask", **scaling).fit(cohort)


def count_values(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many time points are copied out of recordings."""
    sizes: list[int] = []
    copy_as = recording._copy_as

    def recorded(values: np.ndarray, dtype: Any) -> np.ndarray:
        sizes.append(len(values))
        return copy_as(values, dtype)

    monkeypatch.setattr(recording, "_copy_as", recorded)
    return sizes


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("order", ["C", "F"])
@each_scaling
def test_a_window_of_a_file_is_that_of_the_whole_scan_to_the_bit(
    scaling: dict[str, Any] | None, order: str, dtype: str, tmp_path: Path
) -> None:
    cohort = write_cohort(tmp_path, dtype, order)
    scaler = fit_scaler(cohort, scaling)
    whole, parts = (
        ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=room)
        for room in (WHOLE, 0)
    )
    for i, length in enumerate(LENGTHS):
        series = whole.fmri(i)
        assert series is not None
        for start in (0, length // 2, length - 1, 0):
            part = parts.window(i, start, WINDOW)
            assert part is not None
            assert part.dtype == np.float32
            assert part.flags.c_contiguous
            assert np.array_equal(part, series[start : start + WINDOW])
        assert np.array_equal(parts.constant_regions(i), whole.constant_regions(i))
    assert parts._cache == {}
    assert parts.constant_regions(1).tolist() == [False, False, True, False, False]


def test_after_the_first_time_only_windows_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cohort = write_cohort(tmp_path)
    scaler = fit_scaler(cohort, SCALINGS[1])
    size = LENGTHS[0] * R * 4
    reader = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=size)
    sizes = count_values(monkeypatch)
    for start in (0, 3, 9):
        reader.window(0, start, WINDOW)  # there is room for this one
        reader.window(1, start, WINDOW)
        reader.constant_regions(1)
    assert sizes == [LENGTHS[0], LENGTHS[1], WINDOW, WINDOW]


def test_resampled_scans_are_read_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cohort = write_cohort(tmp_path)
    t_r = np.array([2.0, 1.0, 2.0, 2.0, 2.0])
    whole, parts = (
        ScanReader(
            cohort,
            fit_scaler(cohort, SCALINGS[1]),
            None,
            ("fmri",),
            t_r=t_r,
            model_t_r=1.0,
            cache_bytes=room,
        )
        for room in (WHOLE, 0)
    )
    expected = [whole.fmri(i) for i in range(2)]
    sizes = count_values(monkeypatch)
    for start in (0, 9, 13):
        for i in range(2):
            series, part = expected[i], parts.window(i, start, WINDOW)
            assert series is not None
            assert part is not None
            assert np.array_equal(part, series[start : start + WINDOW])
    # scan 1 has the model's repetition time already
    assert sizes == [LENGTHS[0], LENGTHS[1], *[LENGTHS[0], WINDOW] * 2]


@pytest.mark.parametrize("n_jobs", [0, 2])
@pytest.mark.parametrize("suffix", [".npy", ".tsv"])
def test_reading_processes_read_the_same_windows(
    n_jobs: int, suffix: str, tmp_path: Path
) -> None:
    cohort = write_cohort(tmp_path, suffix=suffix)
    scaler = fit_scaler(cohort, SCALINGS[1])
    batches = []
    for room in (WHOLE, 0):
        reader = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=room)
        dataset = WindowDataset(reader, WINDOW, n_windows=3)
        windows = dataset.covering_windows() * 2
        jobs = 0 if room == WHOLE else n_jobs
        loader = make_loader(dataset, windows, 4, device="cpu", n_jobs=jobs)
        batches.append([batch for batch, _ in loader])
    for one, two in zip(*batches, strict=True):
        assert set(one) == set(two)
        assert all(torch.equal(one[name], two[name]) for name in one)
    averages = [
        WindowLoop(4, "cpu", jobs).average(
            torch.nn.Identity(),
            WindowDataset(
                ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=room), WINDOW
            ),
            lambda batch: batch["fmri"],
        )
        for room, jobs in ((WHOLE, 0), (0, n_jobs))
    ]
    assert np.array_equal(*averages)


def test_little_is_pickled_for_a_reading_process(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path)
    reader = ScanReader(cohort, fit_scaler(cohort, SCALINGS[1]), None, ("fmri",))
    small = ScanReader(cohort, None, None, ("fmri",), cache_bytes=0)
    before = len(pickle.dumps((reader, small)))
    for i in range(len(LENGTHS)):
        reader.fmri(i)
        small.window(i, 0, 3)
        reader.constant_regions(i)
    pickled = pickle.dumps((reader, small))
    assert len(pickled) <= before + 20
    assert len(pickled) < 1000 * len(LENGTHS)
    copy, _ = pickle.loads(pickled)  # noqa: S301
    assert np.array_equal(copy.fmri(0), reader.fmri(0))


def test_a_file_that_shrinks_between_windows_is_an_error(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path)
    reader = ScanReader(cohort, None, None, ("fmri",), cache_bytes=0)
    reader.window(0, 0, WINDOW)
    np.save(tmp_path / "scan0.npy", np.zeros((6, R), np.float32))
    with pytest.raises(BrainDataError, match="files that do not change"):
        reader.window(0, 20, WINDOW)


def test_values_are_checked_before_windows_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, R))
    values[25, 1] = np.nan
    np.save(tmp_path / "scan.npy", values)
    cohort = check_cohort([str(tmp_path / "scan.npy")])
    reader = ScanReader(cohort, None, None, ("fmri",), cache_bytes=0)
    with pytest.raises(BrainDataError, match="NaN or infinity at time point 25"):
        reader.window(0, 0, 5)


def test_arrays_in_memory_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = check_cohort(list(np.random.default_rng(0).normal(size=(2, 30, R))))
    scaler = RegionScaler().fit(cohort)
    reader = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=0)
    sizes = count_values(monkeypatch)
    parts = [reader.window(0, start, 5) for start in (0, 5)]
    assert sizes == [30, 5]
    expected = scaler.scale(cohort.read_fmri(0, np.float64)).astype(np.float32)
    assert np.array_equal(np.concatenate(parts), expected[:10])  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_processes", "n_kept"), [(1, 4), (2, 2), (5, 0)])
def test_processes_of_one_loader_share_out_the_room(
    n_processes: int, n_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = check_cohort(np.random.default_rng(0).normal(size=(6, 20, R)))
    if n_processes > 1:
        worker = SimpleNamespace(num_workers=n_processes)
        monkeypatch.setattr(reading, "get_worker_info", lambda: worker)
    room = 4 * 20 * R * 4  # of four scans
    reader = ScanReader(cohort, None, None, ("fmri",), cache_bytes=room)
    for i in range(6):
        reader.fmri(i)
    assert len(reader._cache) == n_kept


def test_statistics_are_kept_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = check_cohort(np.random.default_rng(0).normal(size=(6, 20, R)))
    scaler = RegionScaler().fit(cohort)
    whole = ScanReader(cohort, scaler, None, ("fmri",))
    monkeypatch.setattr(reading, "STATISTICS_BYTES", 4 * 2 * R * 8)
    parts = ScanReader(cohort, scaler, None, ("fmri",), cache_bytes=0)
    sizes = count_values(monkeypatch)
    windows = [parts.window(i, 3, 5) for _ in range(2) for i in range(6)]
    assert sizes == [*[20] * 6, *[5] * 4, *[20] * 2]
    for i, part in enumerate(windows):
        series = whole.fmri(i % 6)
        assert series is not None
        assert part is not None
        assert np.array_equal(part, series[3:8])


# What is prepared from connectomes


class Preparation:
    """Degrees and signs of a connectome; counts how often it is asked."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, sc: np.ndarray) -> Arrays:
        self.n_calls += 1
        assert sc.dtype == np.float32
        return {"degrees": sc.sum(1), "present": sc > 0}


def make_mixed_cohort() -> Cohort:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.uniform(size=(4, R, R)), 1)
    sc: list[Any] = list(upper + upper.transpose(0, 2, 1))
    sc[1] = None
    return check_cohort(
        pd.DataFrame({"fmri": list(rng.normal(size=(4, 20, R))), "sc": sc})
    )


def test_what_is_prepared_comes_in_the_batch_and_is_made_once() -> None:
    prepare = Preparation()
    reader = ScanReader(
        make_mixed_cohort(), None, None, ("fmri", "sc"), prepare_sc=prepare
    )
    dataset = WindowDataset(reader, WINDOW)
    for _ in range(3):
        batch, _ = dataset.batch([(0, 0), (1, 3), (3, 1)])
        assert set(batch) == {"fmri", "sc", "has_sc", "degrees", "present"}
        torch.testing.assert_close(batch["degrees"], batch["sc"].sum(2))
        assert torch.equal(batch["present"], batch["sc"] > 0)
        assert batch["present"].dtype == torch.bool
        assert not batch["degrees"][1].any()
        assert batch["has_sc"].tolist() == [True, False, True]
    assert prepare.n_calls == 2
    assert np.array_equal(reader.sc(0), batch["sc"][0])  # type: ignore[arg-type]
    assert set(dataset.batch([(1, 0)])[0]) == {"fmri"}


def test_what_is_prepared_counts_as_kept() -> None:
    size = R * R * 4 + R * 4 + R * R  # connectome, degrees, present
    for room, n_calls in ((size, 1 + 3), (size - 1, 2 * 2), (2 * size, 2)):
        prepare = Preparation()
        reader = ScanReader(
            make_mixed_cohort(),
            None,
            None,
            ("sc",),
            prepare_sc=prepare,
            cache_bytes=room,
        )
        for _ in range(2):
            for i in (0, 2):
                reader.sc(i)
        if room == size:
            reader.connectome(2)
        assert prepare.n_calls == n_calls


def test_reading_processes_prepare_too() -> None:
    batches = []
    for n_jobs in (0, 2):
        reader = ScanReader(
            make_mixed_cohort(), None, None, ("sc",), prepare_sc=Preparation()
        )
        dataset = WindowDataset(reader, WINDOW, rows=[0, 2, 3])
        loader = make_loader(
            dataset, dataset.covering_windows(), 2, device="cpu", n_jobs=n_jobs
        )
        batches.append([batch for batch, _ in loader])
    for one, two in zip(*batches, strict=True):
        assert set(one) == {"sc", "degrees", "present"}
        assert all(torch.equal(one[name], two[name]) for name in one)
