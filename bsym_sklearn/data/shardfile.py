"""One shard: a tar of .npy files that begins with an index of where they lie.

Any tar program unpacks it. Members lie uncompressed, row after row, so that the rows
that somebody asks for are read at their place. Names of members are only looked up,
never used as paths.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bsym_sklearn.files import replacing

INDEX = "__index__"
FORMAT = "bsym_sklearn shard 1"
BLOCK = tarfile.BLOCKSIZE
MAX_INDEX_BYTES = 1 << 26  # 300,000 members
N_CACHED_INDEXES = 1024
DTYPES = re.compile(r"\|b1|[<|][iu][1248]|<f(2|4|8|16)")
NO_CRC = "0" * 8  # until the values are written


class Member(NamedTuple):
    """One array of a shard."""

    name: str
    offset: int  # of the values, from the end of the index
    shape: tuple[int, ...]
    dtype: str
    source: str  # changes with what the values were read from
    crc32: str = NO_CRC

    @property
    def n_bytes(self) -> int:
        """Return the size of the values."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Index(NamedTuple):
    """What the beginning of a shard says."""

    cohort: str  # the same in all shards of a conversion
    start: int  # where the index ends
    members: dict[str, Any]  # not checked yet


def is_member(path: Path) -> bool:
    """Say if a path names an array within a shard, as in ``00001.tar/a.npy``."""
    return path.parent.suffix == ".tar" and not path.parent.is_dir()


def find_member(path: Path) -> tuple[Member, int]:
    """Return an array of a shard, and where its values begin; values are not read.

    Raises
    ------
    OSError, ValueError
        If the shard is missing or damaged, or has no such array.
    """
    shard = path.parent
    status = shard.stat()
    index = _read_index(shard, status.st_size, status.st_mtime_ns)
    if path.name not in index.members:
        raise ValueError(f"'{shard.name}' has no such member")
    member = _parse(path.name, index.members[path.name])
    start = index.start + member.offset
    if start + member.n_bytes > status.st_size:
        raise ValueError(f"'{shard.name}' is cut off")
    return member, start


def read_rows(shard: Path, member: Member, start: int, rows: slice) -> np.ndarray:
    """Read some rows of an array whose values begin at `start`.

    Not through a memory map: one read is faster, and of a file that is cut off
    meanwhile it gives an error where a map would kill the process.
    """
    n_rows, n_columns = member.shape
    first, last, step = rows.indices(n_rows)
    if step != 1:
        return read_rows(shard, member, start, slice(None))[rows]
    count = max(last - first, 0) * n_columns
    dtype = np.dtype(member.dtype)
    offset = start + first * n_columns * dtype.itemsize
    values = np.fromfile(shard, dtype, count, offset=offset)
    if values.size < count:
        raise EOFError(f"'{shard.name}' is cut off")
    return values.reshape(-1, n_columns) if count else np.empty((0, n_columns), dtype)


def check_crc(values: np.ndarray, member: Member) -> None:
    """Raise if values are others than were written."""
    if _crc32(values) != member.crc32:
        raise ValueError("its values changed after they were written")


def cohort_of(shard: Path) -> str | None:
    """Return which conversion a shard comes from; None if it is damaged."""
    try:
        status = shard.stat()
        return _read_index(shard, status.st_size, status.st_mtime_ns).cohort
    except (OSError, ValueError):
        return None


def is_whole(shard: Path, cohort: str, planned: Sequence[Member]) -> bool:
    """Say if a shard holds what was planned, by its index and checksums."""
    if cohort_of(shard) != cohort:
        return False
    try:
        for expected in planned:
            member, start = find_member(shard / expected.name)
            if member._replace(crc32=NO_CRC) != expected:
                return False
            check_crc(read_rows(shard, member, start, slice(None)), member)
    except (OSError, EOFError, ValueError):
        return False
    return True


def lay_out(
    entries: Iterable[tuple[str, tuple[int, ...], np.dtype, str]],
) -> list[Member]:
    """Return the members of (name, shape, dtype, source), one after the other."""
    members, end = [], 0
    for name, shape, dtype, source in entries:
        member = Member(name, 0, shape, dtype.newbyteorder("<").str, source)
        header = len(_npy_header(member))
        members.append(member._replace(offset=end + BLOCK + header))
        end += BLOCK + _padded(header + member.n_bytes)
    return members


def write_shard(
    shard: Path,
    cohort: str,
    planned: Sequence[Member],
    arrays: Iterable[np.ndarray],
) -> None:
    """Write a shard that is whole whenever the machine stops, or not there.

    The arrays, one per planned member, are taken one at a time.
    """
    with replacing(shard) as fresh, fresh.open("wb") as file:
        file.write(_index_block(cohort, planned))
        written = [
            _write_member(file, member, array)
            for member, array in zip(planned, arrays, strict=True)
        ]
        file.write(bytes(2 * BLOCK))  # end of the archive
        file.seek(0)
        file.write(_index_block(cohort, written))  # now with checksums


def _write_member(file: BinaryIO, member: Member, values: np.ndarray) -> Member:
    """Write one array where it was planned; return it with its checksum."""
    values = np.ascontiguousarray(values, dtype=member.dtype)
    header = _npy_header(member)
    size = len(header) + member.n_bytes
    file.write(_tar_header(member.name, size))
    file.write(header)
    file.write(values.data)
    file.write(bytes(_padded(size) - size))
    return member._replace(crc32=_crc32(values))


def _index_block(cohort: str, members: Sequence[Member]) -> bytes:
    """Return the index as a file of the tar; of one length whatever the checksums."""
    entries = {member.name: member[1:] for member in members}
    content = {"format": FORMAT, "cohort": cohort, "members": entries}
    text = json.dumps(content, separators=(",", ":")).encode("ascii")
    return _tar_header(INDEX, len(text)) + text.ljust(_padded(len(text)), b"\0")


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _npy_header(member: Member) -> bytes:
    header = io.BytesIO()
    fields = {"descr": member.dtype, "fortran_order": False, "shape": member.shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _crc32(values: np.ndarray) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(values).data):08x}"


@lru_cache(maxsize=N_CACHED_INDEXES)
def _read_index(shard: Path, size: int, mtime: int) -> Index:  # noqa: ARG001
    """Read an index; `size` and `mtime` make the cache forget a changed shard."""
    damaged = f"'{shard.name}' is no shard, or damaged"
    with shard.open("rb") as file:
        try:
            header = tarfile.TarInfo.frombuf(file.read(BLOCK), "ascii", "strict")
        except tarfile.TarError as error:
            raise ValueError(f"{damaged}: {error}") from error
        if header.name != INDEX or header.size > min(size, MAX_INDEX_BYTES):
            raise ValueError(f"{damaged}: it does not begin with an index")
        text = file.read(header.size)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{damaged}: its index cannot be read") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{damaged}: its index is none of {FORMAT!r}")
    cohort, members = content.get("cohort"), content.get("members")
    if not isinstance(cohort, str) or not isinstance(members, dict):
        raise ValueError(f"{damaged}: its index lacks entries")
    return Index(cohort, BLOCK + _padded(header.size), members)


def _parse(name: str, entry: Any) -> Member:
    """Return an entry of an index that may hold anything."""
    match entry:
        case [
            int(offset),
            [int(n_rows), int(n_columns)],
            str(dtype),
            str(source),
            str(crc32),
        ] if min(offset, n_rows, n_columns) >= 0 and DTYPES.fullmatch(dtype):
            return Member(name, offset, (n_rows, n_columns), dtype, source, crc32)
    raise ValueError(f"the entry of {name!r} in the index is damaged")
