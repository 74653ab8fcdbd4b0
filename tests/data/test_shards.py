"""Shards: the same values as the files before, safe, and whole or not there."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.data import Cohort, check_cohort, load_cohort, recording
from bsym_sklearn.data.recording import FileRecording, ShardRecording
from bsym_sklearn.data.shardfile import find_member
from bsym_sklearn.data.shards import save_shards
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.training.reading import ScanReader
from bsym_sklearn.training.scans import WindowDataset, make_loader

R, LENGTHS = 5, (30, 18, 25, 40, 22)
KINDS = (("<f4", "C"), ("<f8", "F"), (">f4", "C"), ("<i2", "F"), ("<f2", "C"))


@pytest.fixture
def X(tmp_path: Path) -> pd.DataFrame:  # noqa: N802
    """Return files of several dtypes; scan 2 has no fmri, scans 0 and 4 no sc."""
    rng = np.random.default_rng(0)
    fmri: list[Any] = []
    for i, (length, (dtype, order)) in enumerate(zip(LENGTHS, KINDS, strict=True)):
        values = (100 * rng.normal(size=(length, R))).astype(dtype)
        fmri.append(str(tmp_path / f"scan{i}.npy"))
        np.save(fmri[-1], np.asarray(values, order=order))  # type: ignore[call-overload]
    fmri[2] = None
    weights = rng.uniform(size=(R, R))
    np.save(tmp_path / "sc.npy", weights + weights.T)
    shared = str(tmp_path / "sc.npy")
    X = pd.DataFrame(
        {
            "participant_id": ["sub-01", "sub-02", "ü/../x", "007", "sub-02"],
            "age": [31.5, np.nan, 40, 1 / 3, 2],
            "note": pd.Series(["a\tb", None, 'c "d"', "010", "e\nf"], dtype=object),
            "fmri": pd.Series(fmri, dtype=object),
            "sc": pd.Series([None, shared, weights.T @ weights, shared, None]),
        }
    )
    X.attrs["regions"] = pd.DataFrame({"label": list("abcde"), "x": np.arange(5) / 7})
    return X


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cohort"


def shard_of(folder: Path, number: int = 0) -> Path:
    return folder / "shards" / f"{number:05d}.tar"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").iterdir())


def values_of(cohort: Cohort) -> list[np.ndarray | None]:
    both = (*cohort.fmri, *cohort.sc)
    return [None if scan is None else scan.read(None) for scan in both]


def assert_same(first: Cohort, second: Cohort) -> None:
    for one, two in zip(values_of(first), values_of(second), strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.dtype == two.dtype
            assert np.array_equal(one, two)


# What goes in comes out


def test_scans_come_back_to_the_bit_and_missing_ones_stay_missing(X, folder):
    Y = save_shards(X, folder, scans_per_shard=2)
    assert names(folder) == ["00000.tar", "00001.tar", "00002.tar"]
    before, after = check_cohort(X), check_cohort(Y)
    assert_same(before, after)
    for one, two in zip(before.fmri, after.fmri, strict=True):
        if one is not None and two is not None:
            assert one.dtype == two.dtype
            for rows in (slice(3, 9), slice(15, 99), slice(4, 4), slice(None, None, 3)):
                assert np.array_equal(one.read(None, rows), two.read(None, rows))


def test_covariates_and_regions_come_back(X, folder):
    Y = save_shards(X, folder)
    names = ["participant_id", "age", "note"]
    pd.testing.assert_frame_equal(Y[names], X[names], check_dtype=False)
    regions = Y.attrs["regions"]
    pd.testing.assert_frame_equal(
        regions, X.attrs["regions"], check_frame_type=False, check_dtype=False
    )
    pd.testing.assert_frame_equal(load_cohort(folder), Y)


def test_a_connectome_that_sessions_share_is_stored_once(X, folder):
    Y = save_shards(X, folder, scans_per_shard=1)
    assert Y["sc"][1] == Y["sc"][3]
    assert Y["sc"][1].endswith("00001.tar/000001_sub-02.sc.npy")


@pytest.mark.parametrize("bare", ["list", "array", "cohort"])
def test_arrays_without_a_frame_are_taken(bare, folder, rng):
    values = rng.normal(size=(3, 9, 4))
    scans = {"list": list(values), "array": values, "cohort": check_cohort(values)}
    Y = save_shards(scans[bare], folder)
    assert list(Y.columns) == ["fmri"]
    read = [check_cohort(Y).read_fmri(i, np.float64) for i in range(3)]
    assert np.array_equal(read, values)


def test_shards_of_shards_are_the_same_again(X, folder, tmp_path):
    Y = save_shards(X, folder, scans_per_shard=2)
    Z = save_shards(Y, tmp_path / "again", scans_per_shard=4)
    assert_same(check_cohort(Y), check_cohort(Z))


def test_any_tar_program_unpacks_a_shard_of_aligned_npy_files(X, folder):
    cohort = check_cohort(save_shards(X, folder))
    with tarfile.open(shard_of(folder)) as tar:
        members = {member.name: member for member in tar}
        assert list(members)[:2] == ["__index__", "000000_sub-01.fmri.npy"]
        assert all(name.count("/") == 0 for name in members)
        for scan in cohort.fmri:
            if isinstance(scan, ShardRecording):
                file = tar.extractfile(members[scan.path.name])
                assert file is not None
                stored = np.load(io.BytesIO(file.read()), allow_pickle=False)
                assert np.array_equal(stored, scan.read(scan.dtype))
                assert find_member(scan.path)[1] % 64 == 0


def test_cells_are_texts_and_recordings_are_small_when_pickled(X, folder):
    Y = save_shards(X, folder)
    assert all(isinstance(cell, str | None) for cell in Y["fmri"])
    cohort = check_cohort(Y)
    sent = pickle.dumps(cohort.fmri[0])
    assert len(sent) < 1000
    received = pickle.loads(sent)  # noqa: S301
    assert np.array_equal(received.read(), cohort.read_fmri(0))


def test_estimators_give_the_same_bits_from_shards(X, folder):
    Y = save_shards(X, folder, scans_per_shard=2)
    settings = {"dim": 8, "depth": 1, "n_heads": 2, "max_epochs": 1, "batch_size": 2}
    first, second = (
        BrainSymphonyEmbedder(**settings, window=16, random_state=0).fit(cohort)
        for cohort in (X, Y)
    )
    assert np.array_equal(first.transform(X), second.transform(Y))


@pytest.mark.parametrize("name", ["abide_dev", "hcp21"])
def test_public_cohorts_come_back_to_the_bit(name, shared, folder):
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"needs ../shared/data/{name}, which is not here")
    X = load_cohort(shared / "data" / name)
    Y = save_shards(X, folder, scans_per_shard=100)
    cells = [cell for cell in X if cell not in ("fmri", "sc")]
    pd.testing.assert_frame_equal(X[cells], Y[cells])
    assert_same(
        *(check_cohort(frame, constant_regions="mask") for frame in (X[:150], Y[:150]))
    )


def test_reading_processes_and_readers_without_room_see_the_same(X, folder):
    batches = []
    for frame, n_jobs in ((X, 0), (save_shards(X, folder, scans_per_shard=2), 2)):
        reader = ScanReader(
            check_cohort(frame), None, None, ("fmri", "sc"), cache_bytes=0
        )
        dataset = WindowDataset(reader, 8)
        windows = 2 * dataset.covering_windows()
        loader = make_loader(dataset, windows, 4, device="cpu", n_jobs=n_jobs)
        batches.append([batch for batch, _ in loader])
    for one, two in zip(*batches, strict=True):
        assert set(one) == set(two)
        assert all(bool((one[name] == two[name]).all()) for name in one)


def test_after_the_first_time_only_the_rows_asked_for_are_read(X, folder, monkeypatch):
    scan = check_cohort(save_shards(X, folder)).fmri[3]
    asked: list[slice] = []
    read_rows = recording.read_rows

    def recorded(shard: Path, member: Any, start: int, rows: slice) -> np.ndarray:
        asked.append(rows)
        return read_rows(shard, member, start, rows)

    monkeypatch.setattr(recording, "read_rows", recorded)
    scan.read(np.float32, slice(2, 5))  # all values are checked once
    scan.read(np.float32, slice(2, 5))
    assert asked == [slice(None), slice(2, 5)]


def test_the_policy_for_constant_regions_is_that_of_the_reader(folder, rng):
    x = rng.normal(size=(9, 3))
    x[:, 1] = 4
    np.save(folder.with_suffix(".npy"), x)
    Y = save_shards([folder.with_suffix(".npy")], folder)
    with pytest.raises(BrainDataError, match=r"constant region 1, first in scan 0, fi"):
        check_cohort(Y).read_fmri(0)
    assert check_cohort(Y, constant_regions="mask").read_fmri(0)[0, 1] == 4


def test_a_folder_whose_name_ends_in_tar_is_a_folder(tmp_path, rng):
    (tmp_path / "old.tar").mkdir()
    np.save(tmp_path / "old.tar" / "a.npy", rng.normal(size=(9, 3)))
    cohort = check_cohort([tmp_path / "old.tar" / "a.npy"])
    assert type(cohort.fmri[0]) is FileRecording
    assert cohort.read_fmri(0).shape == (9, 3)


# How it is written


def test_values_can_be_stored_narrower(folder, rng):
    x = rng.normal(size=(9, 4))
    cohort = check_cohort(save_shards([x], folder, dtype="float16"))
    assert cohort.fmri[0].dtype == np.float16
    assert np.array_equal(cohort.read_fmri(0), x.astype("f2").astype("f4"))


def test_values_that_do_not_fit_are_named_and_nothing_is_left(folder, rng):
    x = rng.normal(size=(2, 9, 4))
    x[1, 2, 3] = 1e6
    with pytest.raises(
        BrainDataError,
        match=r"^save_shards needs finite values that fit into float16\. Got others in "
        r"'fmri', first in scan 1\. Store",
    ):
        save_shards(x, folder, dtype="float16")
    assert names(folder) == []


def test_a_scan_that_cannot_be_used_is_named(X, folder, tmp_path, rng):
    bad = rng.normal(size=(9, R))
    bad[1, 2] = np.nan
    np.save(tmp_path / "scan3.npy", bad)
    with pytest.raises(BrainDataError, match=r"save_shards needs fini.*scan 3 \(007\)"):
        save_shards(X, folder, scans_per_shard=2)
    assert names(folder) == ["00000.tar"]
    assert not (folder / "participants.tsv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scans_per_shard": 0}, r"scans_per_shard must be a whole number >= 1. Got 0"),
        ({"dtype": "int8"}, r"dtype must be one of .*float64'\)\. Got 'int8'"),
    ],
)
def test_wrong_options_are_refused(options, message, folder, rng):
    with pytest.raises(ValueError, match=message):
        save_shards(rng.normal(size=(2, 9, 3)), folder, **options)


def test_tables_and_columns_that_would_mix_are_refused(folder, rng):
    with pytest.raises(BrainDataError, match="save_shards needs scans of several time"):
        save_shards(rng.normal(size=(9, 3)), folder)
    X = pd.DataFrame({"fmri": list(rng.normal(size=(2, 9, 3))), "a": 1, " a": 2})
    with pytest.raises(BrainDataError, match="needs columns of different names"):
        save_shards(X, folder)
    assert not folder.exists()


def test_several_writers_write_the_same_bytes(X, folder, tmp_path):
    save_shards(X, folder, scans_per_shard=2)
    with joblib.parallel_config(backend="threading"):
        save_shards(X, tmp_path / "two", scans_per_shard=2, n_jobs=2)
    for name in names(folder):
        two = tmp_path / "two" / "shards" / name
        assert two.read_bytes() == (folder / "shards" / name).read_bytes()


# Killed and started again


def _kill_at(X: pd.DataFrame, folder: Path, last: int) -> None:
    """Convert in a process that dies within the values of its last scan."""
    read = FileRecording.read

    def reading(self: FileRecording, *options: Any) -> np.ndarray:
        if self.label.startswith(f"scan {last} "):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, *options)

    FileRecording.read = reading  # type: ignore[method-assign]
    save_shards(X, folder, scans_per_shard=2)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_killed_conversion_shows_whole_shards_only_and_goes_on(X, folder):
    process = multiprocessing.get_context("fork").Process(
        target=_kill_at, args=(X, folder, 3)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    visible = [name for name in names(folder) if not name.startswith(".")]
    assert visible == ["00000.tar"]
    assert len(names(folder)) == 2  # and a part with another name
    with pytest.raises(BrainDataError, match=r"load_cohort needs a file participants"):
        load_cohort(folder)
    kept = shard_of(folder).stat()
    Y = save_shards(X, folder, scans_per_shard=2)
    assert shard_of(folder).stat().st_ino == kept.st_ino
    assert shard_of(folder).stat().st_mtime_ns == kept.st_mtime_ns
    assert names(folder) == ["00000.tar", "00001.tar", "00002.tar"]
    assert_same(check_cohort(X), check_cohort(Y))


@pytest.mark.parametrize("damage", ["a value", "the index", "the end", "all"])
def test_a_finished_shard_that_is_damaged_is_written_again(X, folder, damage):
    Y = save_shards(X, folder, scans_per_shard=2)
    shard = shard_of(folder)
    good = shard.read_bytes()
    _, start = find_member(Path(Y["fmri"][0]))
    bad = {
        "a value": good[:start] + b"\xff" + good[start + 1 :],
        "the index": good[:600] + b"\xff" + good[601:],
        "the end": good[: start + 40],
        "all": b"",
    }
    shard.write_bytes(bad[damage])
    save_shards(X, folder, scans_per_shard=2)
    assert shard.read_bytes() == good


def test_folders_of_other_cohorts_are_left_alone(X, folder, tmp_path):
    save_shards(X, folder, scans_per_shard=2)
    before = shard_of(folder).read_bytes()
    refused = r"needs a new folder, or one in which the same conversion began. Got '"
    with pytest.raises(BrainDataError, match=refused):
        save_shards(X, folder, scans_per_shard=3)
    with pytest.raises(BrainDataError, match=refused):
        save_shards(X[:2], folder, scans_per_shard=2)
    assert shard_of(folder).read_bytes() == before
    (tmp_path / "participants.tsv").write_text("participant_id\tfmri\na\tscan0.npy\n")
    with pytest.raises(BrainDataError, match=refused):
        save_shards(X, tmp_path)


# Damaged and hostile folders


def change_index(shard: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write the index of a shard with other content, at its old length or less."""
    content = bytearray(shard.read_bytes())
    size = int(content[124:135], 8)
    index = json.loads(content[512 : 512 + size])
    text = change(index)
    text = json.dumps(index).encode() if text is None else text
    header = tarfile.TarInfo("__index__")
    header.size = len(text)
    rest = content[512 + -(-size // 512) * 512 :]
    block = header.tobuf(tarfile.USTAR_FORMAT) + text.ljust(-(-len(text) // 512) * 512)
    shard.write_bytes(block + rest)


def change_entry(place: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(index: dict[str, Any]) -> None:
        next(iter(index["members"].values()))[place] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_entry(0, -512),
        change_entry(0, 10**30),
        change_entry(0, "0"),
        change_entry(1, [10**9, 10**9]),
        change_entry(1, [30, 5, 1]),
        change_entry(1, [-1, -1]),
        change_entry(2, "|O8"),
        change_entry(2, "<f3"),
        change_entry(2, "<f4,<f4"),
        change_entry(4, 7),
        lambda index: index["members"].update({"000000_sub-01.fmri.npy": 3}),
        lambda index: index["members"].clear(),
        lambda index: index.update(members=[]),
        lambda index: index.update(format="another"),
        lambda index: b"[" * 100_000,
        lambda index: b"\xff\xfe",
        lambda index: b"{",
    ],
)
def test_a_hostile_index_is_refused_at_the_door(change, X, folder):
    Y = save_shards(X, folder)
    change_index(shard_of(folder), change)
    with pytest.raises(
        BrainDataError,
        match=r"(?s)^check_cohort needs readable files in 'fmri'\. Got '.*00000\.tar"
        r".000000_sub-01\.fmri\.npy' \(.*\), first in scan 0 \(sub-01\)\. Copy the "
        r"shard again, or write it again with save_shards\.$",
    ):
        check_cohort(Y)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 9000, pickle.dumps([1] * 999)])
def test_files_that_are_no_shards_are_refused_at_the_door(content, X, folder):
    Y = save_shards(X, folder)
    shard_of(folder).write_bytes(content)
    with pytest.raises(BrainDataError, match=r"00000.tar' is no shard, or damaged"):
        check_cohort(Y)


def test_a_tar_without_an_index_is_refused(X, folder):
    Y = save_shards(X, folder)
    with tarfile.open(shard_of(folder), "w") as tar:
        tar.add(X["fmri"][0], arcname="000000_sub-01.fmri.npy")
    with pytest.raises(BrainDataError, match="it does not begin with an index"):
        check_cohort(Y)


def test_a_value_that_changed_on_the_disk_is_found_when_it_is_first_read(X, folder):
    Y = save_shards(X, folder)
    _, start = find_member(Path(Y["fmri"][3]))
    with shard_of(folder).open("r+b") as file:
        file.seek(start + 7)
        file.write(b"\x01")
    cohort = check_cohort(Y)
    cohort.read_fmri(0)
    with pytest.raises(BrainDataError, match=r"values changed.*first in scan 3 \(007"):
        cohort.read_fmri(3)


def test_a_shard_of_another_cohort_is_found(X, folder, tmp_path):
    save_shards(X, folder, scans_per_shard=2)
    save_shards(X.iloc[::-1], tmp_path / "other", scans_per_shard=2)
    shard_of(folder, 1).write_bytes(shard_of(tmp_path / "other", 1).read_bytes())
    with pytest.raises(
        BrainDataError, match=r"'00000\.tar' and '00001\.tar' of different ones"
    ):
        load_cohort(folder)


def test_a_shard_that_is_cut_off_or_changes_while_it_is_used_is_named(X, folder):
    Y = save_shards(X, folder)
    cohort = check_cohort(Y)
    cohort.read_fmri(4)
    size = shard_of(folder).stat().st_size
    os.truncate(shard_of(folder), size // 2)
    with pytest.raises(BrainDataError, match=r"'00000.tar' changed while.*scan 4"):
        cohort.read_fmri(4)
    with pytest.raises(BrainDataError, match=r"'00000.tar' is cut off"):
        check_cohort(Y)


def test_a_missing_shard_and_a_missing_member_are_named(X, folder):
    Y = save_shards(X, folder, scans_per_shard=2)
    shard_of(folder, 1).replace(shard_of(folder, 0))
    with pytest.raises(
        BrainDataError, match=r"has no such member\), first in scan 0 \("
    ):
        check_cohort(Y)
    with pytest.raises(
        BrainDataError,
        match=r"no file 'shards/00001.tar/.*', first in row 3, column 'f",
    ):
        load_cohort(folder)


@pytest.mark.parametrize(
    "cell",
    [
        "shards/00000.tar/../../../scan0.npy",
        "/etc/passwd.tar/a.npy",
        "../cohort.tar/a.npy",
    ],
)
def test_members_outside_the_folder_are_refused(cell, X, folder):
    save_shards(X, folder)
    (folder / "participants.tsv").write_text(f"participant_id\tfmri\na\t{cell}\n")
    with pytest.raises(BrainDataError, match=r"needs files inside the cohort folder"):
        load_cohort(folder)


def test_links_to_shards_outside_the_folder_are_refused(X, folder, tmp_path):
    save_shards(X, folder)
    shard_of(folder).replace(tmp_path / "outside.tar")
    shard_of(folder).symlink_to(tmp_path / "outside.tar")
    with pytest.raises(BrainDataError, match=r"needs files inside the cohort folder"):
        load_cohort(folder)


def test_names_in_a_shard_are_never_paths(X, folder, tmp_path):
    Y = save_shards(X, folder)
    np.save(tmp_path / "secret.npy", np.ones((9, R)))
    name = "../../secret.npy"

    def rename(index: dict[str, Any]) -> None:
        index["members"] = {name: next(iter(index["members"].values()))}

    change_index(shard_of(folder), rename)
    with pytest.raises(BrainDataError, match="has no such member"):
        check_cohort(Y)
