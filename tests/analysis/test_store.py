"""Finished cells survive kills, and are known again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.files import write_atomically


def test_records_come_back_with_numbers_of_numpy(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.write("k", {"a": np.arange(2), "b": np.float64(0.5), "c": float("nan")})
    record = CellStore(tmp_path).read("k")
    assert record is not None
    assert record["a"] == [0, 1]
    assert record["b"] == 0.5
    assert np.isnan(record["c"])


@pytest.mark.parametrize(
    "damage", [b"", b'{"key": "k", "a"', b"\xff\xfe", b"[1]", b"{}"]
)
def test_damaged_files_count_as_not_finished(tmp_path: Path, damage: bytes) -> None:
    store = CellStore(tmp_path)
    store.write("k", {"a": 1})
    store.path("k").write_bytes(damage)
    with pytest.warns(BrainSymphonyWarning, match="Got a damaged 'k.json'"):
        assert store.read("k") is None


def test_changed_and_misplaced_values_count_as_not_finished(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.write("k", {"a": 0.25, "b": float("nan")})
    store.write("l", {"a": 0.5})
    text = store.path("k").read_text()
    for damaged in (text.replace("0.25", "0.35"), store.path("l").read_text()):
        store.path("k").write_text(damaged)
        with pytest.warns(BrainSymphonyWarning, match="Got a damaged 'k.json'"):
            assert store.read("k") is None


def test_records_of_older_versions_have_no_check(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    write_atomically(store.path("k"), '{"a": 0.25, "key": "k"}')
    assert store.read("k") == {"a": 0.25, "key": "k"}


def test_a_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch) -> None:
    def stop(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bsym_sklearn.files.os.fsync", stop)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        write_atomically(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def stop(*_):
        raise OSError("no space")

    monkeypatch.setattr("bsym_sklearn.files.os.fsync", stop)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_cannot_sync_folders_still_takes_files(
    tmp_path: Path, monkeypatch
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr("bsym_sklearn.files.os.fsync", only_files)
    write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_success_clears_the_error(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.write_error("k", "reason")
    assert store.errors("k").read_text() == "reason"
    store.write("k", {})
    assert not store.errors("k").exists()
