"""MATLAB 5 files (``save -v6`` and ``-v7``): matrices of numbers and lists of text.

scipy.io.loadmat reads more, but a damaged file can crash the process in it. Here every
length is checked, and what is neither number nor text is not looked at.

References
----------
MathWorks, MAT-File Format, version 5: data elements, array flags and classes.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER = 128
MI_MATRIX, MI_COMPRESSED = 14, 15
MI_NUMBERS = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 12, 13),
        ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"),
        strict=True,
    )
)
MI_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
MX_CELL, MX_CHAR = 1, 4
MX_NUMBERS = range(6, 16)  # double, single, (u)int8 to (u)int64
COMPLEX = 0x0800
# Enough of a compressed variable for its name; and more than any connectome takes.
N_HEADER_BYTES = 4096
N_LARGEST = 1 << 30


@dataclass(frozen=True)
class Variable:
    """A variable whose values are not parsed yet."""

    name: str
    kind: int
    shape: tuple[int, ...]
    is_complex: bool
    values: memoryview

    @property
    def is_numeric(self) -> bool:
        """Say if it is an array of real numbers."""
        return self.kind in MX_NUMBERS and not self.is_complex


class MatFile:
    """A file in memory; raises ValueError where it is damaged."""

    def __init__(self, path: Path) -> None:
        data = memoryview(path.read_bytes())
        orders = {b"IM": "<", b"MI": ">"}
        order = orders.get(bytes(data[HEADER - 2 : HEADER]))
        if order is None:
            raise ValueError("no MATLAB file of version 5; save it with -v7")
        self._order = order
        self._elements: dict[str, tuple[int, memoryview]] = {}
        self.numeric: list[str] = []
        self.textual: list[str] = []
        offset = HEADER
        while offset < len(data):
            kind, body, offset = self._element(data, offset)
            if kind in (MI_MATRIX, MI_COMPRESSED):
                variable = self._variable(self._matrix(kind, body, N_HEADER_BYTES))
                self._elements[variable.name] = kind, body
                if variable.is_numeric:
                    self.numeric.append(variable.name)
                elif variable.kind in (MX_CELL, MX_CHAR):
                    self.textual.append(variable.name)

    def numbers(self, name: str) -> np.ndarray:
        """Return an array of real numbers."""
        variable = self._variable(self._matrix(*self._elements[name], N_LARGEST))
        kind, data, _ = self._element(variable.values, 0)
        if kind not in MI_NUMBERS or not variable.is_numeric:
            raise ValueError(f"{name!r} holds no real numbers")
        dtype = np.dtype(self._order + MI_NUMBERS[kind])
        if len(data) != dtype.itemsize * math.prod(variable.shape):
            raise ValueError(f"{name!r} has another size than it says")
        return np.frombuffer(data, dtype).reshape(variable.shape, order="F")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a cell, or the rows of an array of characters."""
        variable = self._variable(self._matrix(*self._elements[name], N_LARGEST))
        if variable.kind != MX_CELL:
            return self._rows(variable)
        texts: list[str] = []
        offset = 0
        while offset < len(variable.values):
            kind, body, offset = self._element(variable.values, offset)
            rows = self._rows(self._variable(body)) if kind == MI_MATRIX else ()
            if len(rows) != 1:
                raise ValueError(
                    f"{name!r} holds something else than one text per cell"
                )
            texts.extend(rows)
        return tuple(texts)

    def _rows(self, variable: Variable) -> tuple[str, ...]:
        """Return the rows of characters, without the blanks that fill them up."""
        if variable.kind != MX_CHAR or len(variable.shape) != 2:
            raise ValueError("something else than text where labels should be")
        kind, data, _ = self._element(variable.values, 0)
        if kind not in MI_TEXTS:
            raise ValueError(f"text of an unknown kind {kind}")
        codec = MI_TEXTS[kind]
        if codec == "utf-16":
            codec += "-le" if self._order == "<" else "-be"
        text = bytes(data).decode(codec)
        n_rows, n_columns = variable.shape
        if len(text) != n_rows * n_columns:
            raise ValueError("text of another length than it says")
        return tuple(text[i::n_rows].rstrip() for i in range(n_rows))

    def _matrix(self, kind: int, body: memoryview, largest: int) -> memoryview:
        """Return the body of a matrix, decompressed as far as `largest` bytes."""
        if kind == MI_MATRIX:
            return body
        try:
            data = memoryview(zlib.decompressobj().decompress(body, largest))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        kind, size = self._unpack("II", data, 0)
        if kind != MI_MATRIX or (largest == N_LARGEST and len(data) - 8 < size):
            raise ValueError("a compressed variable that ends early")
        return data[8 : 8 + size]

    def _variable(self, body: memoryview) -> Variable:
        """Parse flags, shape and name of a matrix."""
        _, flags, offset = self._element(body, 0)
        _, shape, offset = self._element(body, offset)
        _, name, offset = self._element(body, offset)
        (flag,) = self._unpack("I", flags, 0)
        sizes = self._unpack(f"{len(shape) // 4}i", shape, 0)
        if min(sizes, default=-1) < 0:
            raise ValueError("a variable of negative size")
        return Variable(
            name=bytes(name).decode("latin-1"),
            kind=flag & 0xFF,
            shape=sizes,
            is_complex=bool(flag & COMPLEX),
            values=body[offset:],
        )

    def _element(self, data: memoryview, offset: int) -> tuple[int, memoryview, int]:
        """Return type, content and end of the element at an offset."""
        kind, size = self._unpack("II", data, offset)
        if kind >> 16:  # four bytes or fewer lie within the tag
            size, kind, start, end = kind >> 16, kind & 0xFFFF, offset + 4, offset + 8
        else:
            start = offset + 8
            end = start + size
            end += 0 if kind == MI_COMPRESSED else -size % 8
        if size > len(data) - start:
            raise ValueError("a file that ends early")
        return kind, data[start : start + size], end

    def _unpack(self, form: str, data: memoryview, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, data, offset)
        except struct.error as error:
            raise ValueError("a file that ends early") from error
