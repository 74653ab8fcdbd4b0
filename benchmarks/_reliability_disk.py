"""Disks that are full, folders that cannot be written, files that may not grow."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from _reliability_children import RAISED, RETURNED, End, in_child, temporary_files
from _reliability_models import (
    compare_models,
    digest,
    fitted,
    pretrain_uncounted,
    scans,
)
from _reliability_trials import Row, Trial

import bsym_sklearn

ROOMY = 64 << 20  # bytes of a small disk before it is filled
NOBODY = 65534
LIMITED, FULL = "files may not grow", "a full disk"
READ_ONLY, FORBIDDEN = "a read-only disk", "a folder of someone else"
CLEAR, WHOLE = "clear error, nothing lost", "there was room"
# What Linux says of these; our own messages quote it.
REASONS = ("File too large", "No space left", "Read-only file system", "Permission")


class Writing(NamedTuple):
    """Something that writes: `write` returns a hash, also when it goes on.

    `read` returns the hash of what is there, None if that is nothing.
    """

    name: str
    write: Callable[[Path], str]
    prepare: Callable[[Path], object]
    read: Callable[[Path], str | None]


def _save(folder: Path) -> str:
    fitted(1).save_pretrained(folder / "model")
    return str(_read_model(folder))


def _save_older(folder: Path) -> None:
    fitted(0).save_pretrained(folder / "model")


def _read_model(folder: Path) -> str | None:
    if not (folder / "model").exists():
        return None
    model = bsym_sklearn.BrainSymphonyEmbedder.from_pretrained(folder / "model")
    return digest(model.transform(scans()[0]))


def _nothing(folder: Path) -> None:
    """Prepare nothing, or read nothing."""


WRITINGS = [
    Writing("save_pretrained", _save, _nothing, _read_model),
    Writing("save_pretrained over an older", _save, _save_older, _read_model),
    Writing("fit with checkpoint_dir", pretrain_uncounted, _nothing, _nothing),
    Writing("compare with store", compare_models, _nothing, _nothing),
]


def disk_trials(n_levels: int, *, mounts: bool) -> Iterator[Trial]:
    """Yield what to try, with room for 0 to nearly all that is written.

    With `mounts`, on disks of its own, for which one must be root.
    """
    for writing in WRITINGS:
        for number in range(n_levels):
            share = number / n_levels
            run = partial(_run, writing, partial(_limited, share))
            yield Trial(f"{writing.name}: {LIMITED}", number, run)
            if mounts:
                run = partial(_run, writing, partial(_full, share))
                yield Trial(f"{writing.name}: {FULL}", number, run)
        conditions = {
            FORBIDDEN: _forbidden,
            **({READ_ONLY: _read_only} if mounts else {}),
        }
        for name, condition in conditions.items():
            yield Trial(f"{writing.name}: {name}", 0, partial(_run, writing, condition))


def can_mount() -> bool:
    """Return whether this process may mount a disk."""
    if os.name != "posix" or os.geteuid() != 0:
        return False
    with TemporaryDirectory() as name:
        try:
            with _small_disk(Path(name)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


Condition = Callable[[Writing, Path], tuple[End, Row]]


def _run(writing: Writing, condition: Condition, folder: Path) -> Row:
    """Write under a condition, look at what is there, and write again without."""
    whole = complete(writing)
    end, seen = condition(writing, folder)
    row = {"outcome": _judge(writing, end, seen, whole.value), **seen}
    said = end.value[1] if end.how == RAISED else ""
    return {**row, "said": said, "names_file": str(folder) in said}


def _judge(writing: Writing, end: End, seen: Row, whole: str) -> str:
    """Say in words whether anything is wrong."""
    if end.how not in (RAISED, RETURNED):
        return f"{end.how}: {end.value}"
    if end.how == RETURNED and end.value != whole:
        return "no error, other bits"
    if end.how == RAISED and not any(reason in end.value[1] for reason in REASONS):
        return f"unclear error: {end.value}"
    if seen["there"] not in _allowed(writing, end):
        return f"what is there: {seen['there']}"
    if seen["afterwards"] != whole:
        return f"cannot go on: {seen['afterwards']}"
    if seen["files_left"]:
        return f"{seen['files_left']} temporary files left"
    return CLEAR if end.how == RAISED else WHOLE


def _allowed(writing: Writing, end: End) -> list[str | None]:
    """Return what may be there: the new if there was no error, else the old."""
    if end.how == RETURNED:
        return [None if writing.read is _nothing else end.value]
    with TemporaryDirectory() as name:
        writing.prepare(Path(name))
        return [writing.read(Path(name))]


class Complete(NamedTuple):
    """What a writing returns and takes when nothing is in its way."""

    value: str
    largest: int
    total: int


@cache
def complete(writing: Writing) -> Complete:
    """Write once without a condition."""
    with TemporaryDirectory() as name:
        end = in_child(writing.write, Path(name))
        if end.how != RETURNED:
            raise RuntimeError(f"{writing.name} fails by itself: {end}")
        sizes = [p.stat().st_size for p in Path(name).rglob("*") if p.is_file()]
        return Complete(end.value, max(sizes), sum(sizes))


def _look(writing: Writing, folder: Path) -> Row:
    """Return what is there after an attempt."""
    there = in_child(writing.read, folder)
    return {"there": there.value, "files_left": len(temporary_files(folder))}


def _again(writing: Writing, folder: Path) -> Row:
    return {"afterwards": in_child(writing.write, folder).value}


def _limited(share: float, writing: Writing, folder: Path) -> tuple[End, Row]:
    """Write files no larger than a share of the largest that is needed."""
    writing.prepare(folder)
    most = int(share * complete(writing).largest)
    end = in_child(_write_limited, writing, folder, most)
    return end, _look(writing, folder) | _again(writing, folder)


def _write_limited(writing: Writing, folder: Path, most: int) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return writing.write(folder)


def _forbidden(writing: Writing, folder: Path) -> tuple[End, Row]:
    """Write where a folder may be read and not be written."""
    folder.parent.chmod(0o755)
    writing.prepare(folder)
    folder.chmod(0o555)
    end = in_child(_write_as_other, writing, folder)
    seen = _look(writing, folder)
    folder.chmod(0o755)
    return end, seen | _again(writing, folder)


def _write_as_other(writing: Writing, folder: Path) -> str:
    if os.geteuid() == 0:  # root may write everywhere
        os.seteuid(NOBODY)
    return writing.write(folder)


def _full(share: float, writing: Writing, folder: Path) -> tuple[End, Row]:
    """Write to a disk with room for a share of what is written."""
    with _small_disk(folder):
        writing.prepare(folder)
        filling = folder / "filling"
        with filling.open("wb") as file:
            space = os.statvfs(folder)
            free = space.f_bavail * space.f_frsize
            room = int(share * complete(writing).total)
            file.write(bytes(max(0, free - room)))
        end = in_child(writing.write, folder)
        seen = _look(writing, folder)
        filling.unlink()
        return end, seen | _again(writing, folder)


def _read_only(writing: Writing, folder: Path) -> tuple[End, Row]:
    """Write to a disk that is read-only."""
    with _small_disk(folder):
        writing.prepare(folder)
        _call("mount", "-o", "remount,ro", str(folder))
        end = in_child(writing.write, folder)
        seen = _look(writing, folder)
        _call("mount", "-o", "remount,rw", str(folder))
        return end, seen | _again(writing, folder)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Mount a disk in memory on a folder."""
    options = f"size={ROOMY},mode=755"
    _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        _call("umount", "-l", str(folder))


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
