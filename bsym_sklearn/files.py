"""Files that are whole, or the older ones, whenever the machine stops."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and the command line writes too
    import pandas as pd

NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP)  # of some network disks


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is whole, or the old one, whenever the machine stops.

    Parameters
    ----------
    path : Path
        File; its folder is made if needed.
    content : str or bytes
        What it will hold; text is written as UTF-8.

    Raises
    ------
    OSError
        If it cannot be written; an older file is left as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "a.txt"), "all")
    ...     Path(folder, "a.txt").read_text()
    'all'
    """
    with replacing(path) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


def write_table(path: Path, table: pd.DataFrame) -> None:
    r"""Write a table as BIDS has them, like :func:`write_atomically`.

    Parameters
    ----------
    path : Path
        File; its folder is made if needed.
    table : DataFrame
        Written without its index, with tabs between columns and n/a for what is not
        there.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(Path(folder, "a.tsv"), pd.DataFrame({"x": [1, None]}))
    ...     Path(folder, "a.tsv").read_text()
    'x\n1.0\nn/a\n'
    """
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    write_atomically(path, text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to, which becomes `path` once all went well.

    Parameters
    ----------
    path : Path
        File; its folder is made if needed.

    Yields
    ------
    Path
        Beside it, of the same suffix. Its name begins with a dot.

    Raises
    ------
    OSError
        If it cannot be written; an older file is left as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as fresh:
    ...         _ = fresh.write_text("all")
    ...     [file.name for file in Path(folder).iterdir()]
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary_name(path)
    try:
        yield fresh
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    except OSError as error:
        # Of a full disk, or of a name that nobody but us knows.
        if error.errno is not None and error.filename in (None, str(fresh)):
            error.filename = str(path)
        raise
    finally:
        fresh.unlink(missing_ok=True)  # there only if something went wrong


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that nobody else uses or reads."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    A folder is left out where the system, or the kind of disk, cannot.
    """
    is_folder = path.is_dir()
    if is_folder and os.name != "posix":
        return
    # Windows asks for a descriptor that may write.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in NOT_FOR_FOLDERS):
            raise
    finally:
        os.close(descriptor)
