"""Damage files in every way, and read them."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from _reliability_children import RAISED, RETURNED, End, in_child
from _reliability_files import KINDS, Kind, read_quietly
from _reliability_trials import Row, Trial

SHARES = (0.3, 0.15, 0.15, 0.2, 0.1, 0.1)  # of the trials, by kind of file
MEGABYTES = 1000  # that reading a damaged file may take at most
SLOWEST = 20.0  # seconds of the processor; more is a hang
CLEAR, SAME, OTHER = "clear error", "same result", "other data"
SOMEONE_ELSES = ".npy, tables, .mat, HDF5 and CIFTI have no check of their values"
OUR_ERRORS = ("BrainDataError", "CheckpointError")
MARKER = "code-was-run"


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Change one to eight bits."""
    values = bytearray(data)
    for place in rng.integers(len(values), size=rng.integers(1, 9)):
        values[place] ^= 1 << int(rng.integers(8))
    return bytes(values)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep the beginning, maybe nothing."""
    return data[: int(rng.integers(len(data)))]


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    """Fill a block with zeros, as a disk does that lost a page."""
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    """Have a block twice."""
    start, stop = _block(data, rng)
    return data[:stop] + data[start:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    """Add random bytes, in front, within or behind."""
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 65))) + data[place:]


def _block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start, stop = sorted(rng.integers(len(data) + 1, size=2).tolist())
    return start, max(stop, start + 1)


Mutation = Callable[[bytes, np.random.Generator], bytes]
MUTATIONS: dict[str, Mutation] = {
    "bits flipped": flip,
    "truncated": truncate,
    "zeros in it": zero,
    "a block twice": repeat,
    "bytes added": insert,
}
SWAPPED, MISPLACED = "swapped with that of another", "swapped with its neighbour"
GONE, PAYLOAD = "gone", "a pickle that runs code"
HOWS = (*MUTATIONS, SWAPPED, MISPLACED, GONE, PAYLOAD)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.marker,)


def payload(marker: Path, rng: np.random.Generator) -> bytes:
    """Return a pickle, plain, within .npy, .npz or a file of torch."""
    bomb, file = Bomb(marker), io.BytesIO()
    array = np.array([[bomb] * 3] * 3, dtype=object)
    ways: list[Callable[[], object]] = [
        lambda: pickle.dump(bomb, file),
        lambda: np.save(file, array, allow_pickle=True),
        lambda: np.savez(file, array),
        lambda: torch.save({"weights": bomb}, file),
    ]
    ways[int(rng.integers(len(ways)))]()
    return file.getvalue()


def mutation_trials(n_trials: int, seed: int) -> Iterator[Trial]:
    """Yield what to try: all ways in turn, files at random."""
    for kind, share in zip(KINDS, SHARES, strict=True):
        for number in range(round(share * n_trials)):
            how = HOWS[number % len(HOWS)]
            run = partial(_run, kind, how, [seed, number])
            yield Trial(kind.name, number, run)


@cache
def originals(kind: Kind) -> tuple[Path, Path, str]:
    """Return two folders of files, and what reading the first one gives."""
    root = Path(mkdtemp(prefix="reliability-"))
    for seed in (0, 1):
        (root / str(seed)).mkdir()
        kind.write(root / str(seed), seed)
    copy = shutil.copytree(root / "0", root / "copy")
    return root / "0", root / "1", kind.read(copy)


def remove_originals() -> None:
    """Delete the files that the campaign has made."""
    for kind in KINDS:
        shutil.rmtree(originals(kind)[0].parent, ignore_errors=True)
    originals.cache_clear()


def _run(kind: Kind, how: str, seed: list[int], folder: Path) -> Row:
    """Damage one file and read all."""
    source, other, expected = originals(kind)
    rng = np.random.default_rng(seed)
    place = shutil.copytree(source, folder / "files")
    damaged = damage(kind, how, place, other, rng, folder / MARKER)
    end = in_child(_read_timed, kind, place, megabytes=MEGABYTES)
    outcome = judge(kind, end, expected)
    if (folder / MARKER).exists():
        outcome = "code was run"
    said = end.value[1].replace(str(place), "") if end.how == RAISED else ""
    return {"how": how, "file": damaged, "outcome": outcome, "said": said}


def damage(
    kind: Kind,
    how: str,
    place: Path,
    other: Path,
    rng: np.random.Generator,
    marker: Path,
) -> str:
    """Damage one of the files and return its name."""
    paths = sorted(p for p in place.glob(kind.pattern) if p.is_file())
    path = paths[int(rng.integers(len(paths)))]
    data = path.read_bytes()
    if how == GONE:
        path.unlink()
    elif how == PAYLOAD:
        path.write_bytes(payload(marker, rng))
    elif how == SWAPPED:
        path.write_bytes(_counterpart(path.relative_to(place), other).read_bytes())
    elif how == MISPLACED:
        neighbour = paths[int(rng.integers(len(paths)))]
        path.write_bytes(neighbour.read_bytes())
        neighbour.write_bytes(data)
    else:
        path.write_bytes(MUTATIONS[how](data, rng))
    return path.name


def _counterpart(name: Path, other: Path) -> Path:
    """Return the file of that name, or one of the same folder, in another place."""
    if (other / name).exists():
        return other / name
    return min((other / name.parent).iterdir())


def _read_timed(kind: Kind, place: Path) -> list[object]:
    """Return what is read, and the seconds of the processor."""
    before = os.times()
    found = read_quietly(kind, place)
    after = os.times()
    return [found, after.user - before.user]


def judge(kind: Kind, end: End, expected: str) -> str:
    """Return what to call the end of a reader."""
    if end.how == RAISED:
        name, text = end.value
        if name in OUR_ERRORS or (name, text[:14]) == (
            "RuntimeError",
            "compare needs ",
        ):
            return CLEAR
        if name == "ValueError" and " needs " in text:
            return CLEAR
        return f"raised {name}"
    if end.how != RETURNED:
        return f"{end.how}: {end.value}"
    found, seconds = end.value
    if seconds > SLOWEST:
        return "slow"
    if found == expected:
        return SAME
    return "other result, no error" if kind.has_check else OTHER


def outcomes(rows: list[Row]) -> Counter[str]:
    """Return how often each outcome was."""
    return Counter(row["outcome"] for row in rows)
