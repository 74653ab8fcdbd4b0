"""HDF5 files, MATLAB 7.3 among them: arrays of numbers and lists of text."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # before the HDF5 part of a MATLAB 7.3 file
HDF5_ERRORS = (OSError, TypeError, LookupError, RuntimeError)


def is_hdf5(path: Path) -> bool:
    """Say if a file is HDF5, whatever its name."""
    with path.open("rb") as file:
        start = file.read(USER_BLOCK + len(MAGIC))
    return start.startswith(MAGIC) or start[USER_BLOCK:] == MAGIC


class Hdf5File:
    """What lies in the file itself: no links and no data that are kept elsewhere.

    Raises ValueError where the file is damaged and ImportError without h5py.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._h5py = import_module("h5py")  # an optional library
        except ImportError as error:
            raise ImportError(
                f"load_derivatives needs h5py to read HDF5. Got '{path}' and no h5py. "
                "Install it with: pip install h5py."
            ) from error
        self.path = path
        self.numeric: list[str] = []
        self.textual: list[str] = []
        try:
            with self._h5py.File(path, "r") as file:
                for name in file:
                    self._list(file, name)
        except HDF5_ERRORS as error:
            raise ValueError(str(error)) from error

    def numbers(self, name: str) -> np.ndarray:
        """Return an array of real numbers."""
        try:
            with self._h5py.File(self.path, "r") as file:
                values = np.asarray(file[name][()])
                return values.T if file.userblock_size else values  # as MATLAB shows it
        except HDF5_ERRORS as error:
            raise ValueError(str(error)) from error

    def texts(self, name: str) -> tuple[str, ...]:
        """Return texts; MATLAB 7.3 keeps them as references to characters."""
        try:
            with self._h5py.File(self.path, "r") as file:
                data = file[name]
                if self._h5py.check_string_dtype(data.dtype):
                    texts = np.asarray(data.asstr()[()]).reshape(-1)
                    return tuple(str(text).rstrip() for text in texts)
                codes = [file[reference][()] for reference in data[()].reshape(-1)]
        except HDF5_ERRORS as error:
            raise ValueError(str(error)) from error
        if not all(isinstance(c, np.ndarray) and c.dtype == np.uint16 for c in codes):
            raise ValueError(f"{name!r} holds something else than text")
        return tuple("".join(map(chr, code.reshape(-1))).rstrip() for code in codes)

    def _list(self, file: Any, name: str) -> None:
        if not isinstance(file.get(name, getlink=True), self._h5py.HardLink):
            return
        data = file[name]
        if not isinstance(data, self._h5py.Dataset) or data.is_virtual or data.external:
            return
        references = data.dtype == self._h5py.ref_dtype
        if references or self._h5py.check_string_dtype(data.dtype):
            self.textual.append(name)
        elif data.dtype.kind in "biuf":
            self.numeric.append(name)
