from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.resampling import resample, window_starts
from bsym_sklearn.data.scaling import ConnectomeScaler, RegionScaler
from bsym_sklearn.training.scans import (
    RandomWindows,
    ScanReader,
    WindowDataset,
    split_rows,
)

R = 4
BOTH = ("fmri", "sc")
thorough = settings(max_examples=200, deadline=None, derandomize=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_series(length: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(1000, 3, size=(length, R)).astype(dtype)


def draw_connectome(seed: int = 0) -> np.ndarray:
    weights = np.triu(np.random.default_rng(seed).uniform(1, 100, size=(R, R)), 1)
    return weights + weights.T


def make_cohort(
    lengths: list[int | None], *, sc: list[bool] | None = None, **options: Any
) -> Cohort:
    """Return scans of these lengths (None: no fmri); `sc` says who has one."""
    sc = [False] * len(lengths) if sc is None else sc
    frame = pd.DataFrame(
        {
            "fmri": [
                None if n is None else draw_series(n, i) for i, n in enumerate(lengths)
            ],
            "sc": [draw_connectome(i) if has else None for i, has in enumerate(sc)],
        }
    )
    return check_cohort(frame, min_timepoints=1, **options)


def make_dataset(
    lengths: list[int | None], window: int = 10, **options: Any
) -> WindowDataset:
    cohort = make_cohort(lengths, sc=options.pop("sc", None))
    return WindowDataset(ScanReader(cohort, None, None, BOTH), window, **options)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record which scans are read from the cohort."""
    reads: list[tuple[str, int]] = []
    read = Cohort._read

    def recorded(self: Cohort, modality: str, i: int, *args: Any) -> np.ndarray:
        reads.append((modality, i))
        return read(self, modality, i, *args)

    monkeypatch.setattr(Cohort, "_read", recorded)
    return reads


# ScanReader


def test_scans_are_scaled_in_double_precision() -> None:
    cohort = make_cohort([1200, 30], sc=[True, True])
    reader = ScanReader(
        cohort, RegionScaler().fit(cohort), ConnectomeScaler().fit(cohort), BOTH
    )
    exact = draw_series(1200).astype(np.float64)
    exact = (exact - exact.mean(0)) / exact.std(0)
    read = reader.fmri(0)
    assert read is not None
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    assert np.array_equal(read, exact.astype(np.float32))
    connectome = reader.sc(1)
    assert connectome is not None
    expected = ConnectomeScaler().fit(cohort).scale(draw_connectome(1))
    assert np.array_equal(connectome, expected.astype(np.float32))


def test_double_precision_reaches_the_model() -> None:
    cohort = make_cohort([20])
    reader = ScanReader(cohort, RegionScaler().fit(cohort), None, BOTH, dtype=float)
    read = reader.fmri(0)
    assert read is not None
    assert read.dtype == np.float64
    assert np.abs(read.mean(0)).max() < 1e-12


def test_without_scalers_values_stay_as_they_are() -> None:
    reader = ScanReader(make_cohort([20], sc=[True]), None, None, BOTH)
    assert np.array_equal(reader.fmri(0), draw_series(20))
    assert np.array_equal(reader.sc(0), draw_connectome().astype(np.float32))


def test_a_missing_or_unused_modality_is_none() -> None:
    cohort = make_cohort([20, None], sc=[False, True])
    reader = ScanReader(cohort, None, None, BOTH)
    assert len(reader) == 2
    assert reader.fmri(1) is None
    assert reader.sc(0) is None
    only_sc = ScanReader(cohort, None, None, ("sc",))
    assert only_sc.fmri(0) is None
    assert only_sc.lengths.tolist() == [0, 0]
    assert ScanReader(cohort, None, None, ("fmri",)).sc(1) is None
    assert reader.lengths.tolist() == [20, 0]


def test_scans_are_resampled_before_they_are_scaled() -> None:
    cohort = make_cohort([40, 40])
    reader = ScanReader(
        cohort,
        RegionScaler().fit(cohort),
        None,
        BOTH,
        t_r=np.array([0.72, 2.0]),
        model_t_r=2.0,
        dtype=np.float64,
    )
    slower = resample(draw_series(40).astype(np.float64), 0.72, 2.0)
    expected = (slower - slower.mean(0)) / slower.std(0)
    np.testing.assert_allclose(reader.fmri(0), expected, rtol=0, atol=1e-12)
    unchanged = draw_series(40, 1).astype(np.float64)
    expected = (unchanged - unchanged.mean(0)) / unchanged.std(0)
    np.testing.assert_allclose(reader.fmri(1), expected, rtol=0, atol=1e-12)
    assert reader.lengths.tolist() == [len(slower), 40]


@thorough
@given(
    length=st.integers(20, 200),
    t_r=st.sampled_from([0.5, 0.72, 0.8, 1.0, 1.5, 2.0, 2.2, 3.0]),
    model_t_r=st.sampled_from([0.5, 0.72, 1.1, 2.0, 3.0]),
)
def test_lengths_are_those_of_the_resampled_scans(
    length: int, t_r: float, model_t_r: float
) -> None:
    cohort = make_cohort([length])
    reader = ScanReader(
        cohort, None, None, BOTH, t_r=np.array([t_r]), model_t_r=model_t_r
    )
    read = reader.fmri(0)
    assert read is not None
    assert reader.lengths.tolist() == [len(read)]


def test_a_scan_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ScanReader(make_cohort([20, 30], sc=[True, False]), None, None, BOTH)
    reads = count_reads(monkeypatch)
    for _ in range(3):
        for i in range(2):
            reader.fmri(i)
            reader.sc(i)
    assert sorted(reads) == [("fmri", 0), ("fmri", 1), ("sc", 0)]


def test_no_more_is_kept_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 20 * R * 4  # bytes of a float32 scan
    cohort = make_cohort([20, 20, 20])
    reader = ScanReader(cohort, None, None, BOTH, cache_bytes=2 * size)
    reads = count_reads(monkeypatch)
    for _ in range(2):
        values = [reader.fmri(i) for i in range(3)]
    assert reads == [("fmri", 0), ("fmri", 1), ("fmri", 2), ("fmri", 2)]
    assert np.array_equal(values[2], draw_series(20, 2))


def test_a_reader_is_pickled_without_what_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = make_cohort([500])
    reader = ScanReader(cohort, RegionScaler().fit(cohort), None, BOTH)
    before = len(pickle.dumps(reader))
    read = reader.fmri(0)
    pickled = pickle.dumps(reader)
    assert len(pickled) <= before + 10
    copy = pickle.loads(pickled)  # noqa: S301
    assert np.array_equal(copy.fmri(0), read)
    reads = count_reads(monkeypatch)
    assert reader.fmri(0) is read  # the original keeps it
    assert reads == []


# Windows


def test_a_short_scan_is_padded_at_the_end() -> None:
    dataset = make_dataset([6, 10])
    batch, _ = dataset.batch([(0, 0), (1, 0)])
    assert batch["fmri"].shape == (2, 10, R)
    assert np.array_equal(batch["fmri"][0, :6], draw_series(6))
    assert not batch["fmri"][0, 6:].any()
    assert batch["padding"].tolist() == [[False] * 6 + [True] * 4, [False] * 10]


def test_a_window_is_a_copy_of_its_place_in_the_scan() -> None:
    dataset = make_dataset([25])
    for _ in range(2):
        batch, _ = dataset.batch([(0, 7)])
        assert np.array_equal(batch["fmri"][0], draw_series(25)[7:17])
        assert "padding" not in batch
        batch["fmri"].zero_()


@pytest.mark.parametrize("n_windows", [None, 1, 3])
def test_covering_windows_are_evenly_spaced_in_the_order_of_rows(
    n_windows: int | None,
) -> None:
    lengths = [25, 6, None, 10, 31]
    dataset = make_dataset(
        lengths, sc=[True] * 5, rows=[4, 2, 1, 0], n_windows=n_windows
    )
    expected = [
        (row, start)
        for row in (4, 2, 1, 0)
        for start in window_starts(lengths[row] or 1, 10, n_windows=n_windows)
    ]
    assert dataset.covering_windows() == expected
    assert len(dataset) == 4


def test_covering_windows_see_every_time_point() -> None:
    dataset = make_dataset([10, 11, 25, 40])
    seen = [np.zeros(n, dtype=bool) for n in (10, 11, 25, 40)]
    for row, start in dataset.covering_windows():
        seen[row][start : start + 10] = True
        assert start + 10 <= len(seen[row])
    assert all(x.all() for x in seen)


def test_constant_regions_are_masked_whole_where_they_are_let_through() -> None:
    series = [draw_series(25), draw_series(25, 1)]
    series[0][:, 2] = 5.0
    series[1][:10, 1] = 5.0  # constant in a window, not in the scan
    cohort = check_cohort(series, constant_regions="mask")
    scaler = RegionScaler(constant_regions="mask").fit(cohort)
    for fmri_scaler in (None, scaler):
        dataset = WindowDataset(ScanReader(cohort, fmri_scaler, None, BOTH), 10)
        batch, _ = dataset.batch([(0, 3), (1, 0)])
        assert batch["fmri_mask"].shape == (2, 10, R)
        hidden = batch["fmri_mask"].all(1)
        assert hidden.tolist() == [[False, False, True, False], [False] * 4]
        assert torch.equal(batch["fmri_mask"].any(1), hidden)
        batch, _ = dataset.batch([(1, 0)])
        assert "fmri_mask" not in batch


def test_a_table_of_single_time_points_has_no_constant_regions() -> None:
    X = np.random.default_rng(0).normal(size=(5, R))
    cohort = check_cohort(X, constant_regions="mask")
    dataset = WindowDataset(ScanReader(cohort, None, None, BOTH), 1)
    batch, _ = dataset.batch([(i, 0) for i in range(5)])
    assert batch["fmri"].shape == (5, 1, R)
    assert set(batch) == {"fmri"}


# Batches


def test_a_batch_says_who_lacks_what() -> None:
    targets, weights = torch.tensor([3, 1, 4]), torch.tensor([0.5, 1.0, 1.5])
    dataset = make_dataset(
        [25, None, 4], sc=[True, True, False], targets=targets, weights=weights
    )
    batch, target = dataset.batch([(2, 0), (1, 0), (0, 9)])
    assert batch["fmri"].shape == (3, 10, R)
    assert batch["sc"].shape == (3, R, R)
    assert batch["has_fmri"].tolist() == [True, False, True]
    assert batch["has_sc"].tolist() == [False, True, True]
    assert not batch["fmri"][1].any()
    assert not batch["sc"][0].any()
    assert np.array_equal(batch["fmri"][2], draw_series(25)[9:19])
    assert np.array_equal(batch["sc"][1], draw_connectome(1).astype(np.float32))
    # Filling is not padding: a scan without fmri would have no time point at all.
    assert batch["padding"].sum(1).tolist() == [6, 0, 0]
    assert target["row"].tolist() == [2, 1, 0]
    assert target["target"].tolist() == [4, 1, 3]
    assert target["weight"].tolist() == [1.5, 1.0, 0.5]


def test_a_batch_of_complete_scans_has_no_flags() -> None:
    dataset = make_dataset([12, 15], sc=[True, True])
    batch, target = dataset.batch([(0, 0), (1, 2)])
    assert set(batch) == {"fmri", "sc"}
    assert set(target) == {"row"}


def test_a_batch_without_a_modality_leaves_it_out() -> None:
    dataset = make_dataset([12, None], sc=[False, True])
    assert set(dataset.batch([(0, 0)])[0]) == {"fmri"}
    assert set(dataset.batch([(1, 0)])[0]) == {"sc"}


# RandomWindows


@thorough
@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(1, 40)), min_size=1, max_size=8),
    window=st.integers(1, 20),
    seed=st.integers(0, 100),
)
def test_every_scan_comes_once_and_no_window_leaves_its_scan(
    lengths: list[int | None], window: int, seed: int
) -> None:
    dataset = make_dataset(lengths, window, sc=[True] * len(lengths))
    sampler = RandomWindows(dataset, seeded(seed))
    for _ in range(2):
        windows = list(sampler)
        assert len(windows) == len(sampler) == len(lengths)
        assert sorted(row for row, _ in windows) == list(range(len(lengths)))
        for row, start in windows:
            assert 0 <= start <= max((lengths[row] or 1) - window, 0)
            assert type(row) is int
            assert type(start) is int


def test_every_start_is_equally_likely_and_every_order_comes() -> None:
    dataset = make_dataset([14, 12, 10, 6])
    sampler = RandomWindows(dataset, seeded())
    n_epochs = 5000
    starts: dict[int, list[int]] = {row: [] for row in range(4)}
    first = np.zeros(4)
    for _ in range(n_epochs):
        windows = list(sampler)
        first[windows[0][0]] += 1
        for row, start in windows:
            starts[row].append(start)
    for row, n_starts in ((0, 5), (1, 3), (2, 1), (3, 1)):
        counts = np.bincount(starts[row], minlength=n_starts)
        assert len(counts) == n_starts
        share = 1 / n_starts
        deviation = (share * (1 - share) / n_epochs) ** 0.5
        assert np.all(np.abs(counts / n_epochs - share) <= 4.5 * deviation)
    assert np.all(np.abs(first / n_epochs - 0.25) < 4.5 * (0.1875 / n_epochs) ** 0.5)


def test_windows_are_drawn_from_the_generator_alone() -> None:
    dataset = make_dataset([30, 40, 50], rows=[2, 0])
    state = torch.get_rng_state()
    generator = seeded(1)
    epochs = [list(RandomWindows(dataset, generator)) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), state)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(RandomWindows(dataset, seeded(1))) == epochs[0]
    torch.set_default_dtype(torch.float64)
    try:
        assert list(RandomWindows(dataset, seeded(1))) == epochs[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {row for row, _ in epochs[0]} == {0, 2}


def test_a_place_at_the_very_end_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset([40])
    last = torch.nextafter(torch.tensor([1.0]), torch.tensor([0.0]))
    monkeypatch.setattr(torch, "rand", lambda n, **_: last.expand(n))
    monkeypatch.setattr(ScanReader, "lengths", property(lambda self: np.array([2**31])))
    ((row, start),) = RandomWindows(dataset, seeded())
    assert row == 0
    assert 2**31 - 200 < start <= 2**31 - 10


# Splits


@thorough
@given(
    groups=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    fraction=st.floats(0, 1, exclude_max=True),
    n_classes=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_splits_keep_groups_whole_and_every_class_in_training(
    groups: list[int], fraction: float, n_classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.integers(n_classes, size=len(groups)) if n_classes else None
    train, valid = split_rows(groups, fraction, seeded(seed), strata=strata)
    again = split_rows(groups, fraction, seeded(seed), strata=strata)
    assert np.array_equal(train, again[0])
    assert np.array_equal(valid, again[1])
    assert sorted([*train, *valid]) == list(range(len(groups)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(valid) > 0)
    assert len(train) > 0
    array = np.array(groups)
    assert not set(array[train]) & set(array[valid])
    n_groups = len(set(groups))
    wanted = max(round(fraction * n_groups), 1) if fraction else 0
    n_held_out = len(set(array[valid]))
    if strata is None:
        assert n_held_out == min(wanted, n_groups - 1)
    else:
        assert n_held_out <= wanted
        assert set(strata[train]) == set(strata)


@pytest.mark.parametrize(
    ("groups", "fraction", "n_valid"),
    [
        ("ab", 0.01, 1),
        ("ab", 0.99, 1),
        ("ab", 0.0, 0),
        ("aaaa", 0.5, 0),
        ("a", 0.5, 0),
        ("abcdefghij", 0.2, 2),
        ("abcdefghij", 0.01, 1),
        ("abcdefghij", 0.99, 9),
    ],
)
def test_how_many_groups_are_held_out(
    groups: str, fraction: float, n_valid: int
) -> None:
    train, valid = split_rows(list(groups), fraction, seeded())
    assert len(valid) == n_valid
    assert len(train) == len(groups) - n_valid
    assert valid.dtype == train.dtype == np.flatnonzero([True]).dtype


@pytest.mark.parametrize("seed", range(5))
def test_classes_keep_their_shares(seed: int) -> None:
    strata = np.repeat([0, 1, 2], [60, 30, 10])
    _, valid = split_rows(np.arange(100), 0.2, seeded(seed), strata=strata)
    assert np.bincount(strata[valid]).tolist() == [12, 6, 2]


def test_a_class_of_one_group_is_never_held_out() -> None:
    strata = np.array([0, 0, 0, 0, 1])
    for seed in range(20):
        _, valid = split_rows(np.arange(5), 0.75, seeded(seed), strata=strata)
        assert len(valid) == 3
        assert 4 not in valid


def test_classes_of_one_group_each_leave_nothing_to_hold_out() -> None:
    _, valid = split_rows(np.arange(2), 0.5, seeded(), strata=np.array([0, 1]))
    assert len(valid) == 0


def test_a_class_inside_the_scans_of_one_person_is_never_held_out() -> None:
    groups, strata = list("aabbcc"), np.array([0, 1, 0, 0, 0, 0])
    for seed in range(20):
        _, valid = split_rows(groups, 0.4, seeded(seed), strata=strata)
        assert len(valid) == 2
        assert 0 not in valid


def test_every_group_has_its_turn() -> None:
    held_out = np.zeros(10)
    for seed in range(500):
        held_out[split_rows(np.arange(10), 0.2, seeded(seed))[1]] += 1
    assert np.all(np.abs(held_out / 500 - 0.2) < 4.5 * (0.16 / 500) ** 0.5)


def test_groups_may_have_any_kind_of_name() -> None:
    for groups in (
        ["s1", "s2", "s1"],
        [1, 2, 1],
        [1, None, 1],
        np.array([1.5, 2, 1.5]),
    ):
        _, valid = split_rows(groups, 0.5, seeded())
        assert valid.tolist() in ([0, 2], [1])
