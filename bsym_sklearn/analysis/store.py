"""Results that survive a kill: one file each, named after all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import joblib
import numpy as np

from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.files import write_atomically

KEY_LENGTH = 32  # hexadecimal digits
CHECK = "check"  # name of the hash of all else in a record


class CellStore:
    """Keep one JSON file per finished cell, and a folder per pretrained model.

    A file is written whole or not at all, whenever the machine stops. Nothing is
    pickled.

    Parameters
    ----------
    folder : str or Path
        Made if needed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CellStore(folder)
    ...     before = store.read("ab12")
    ...     store.write("ab12", {"auroc": 0.5})
    ...     before, store.read("ab12")
    (None, {'auroc': 0.5, 'key': 'ab12'})
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).resolve()

    def path(self, key: str) -> Path:
        """Return the file of a cell."""
        return self.folder / "cells" / f"{key}.json"

    def weights(self, key: str) -> Path:
        """Return the folder of the model that a pretraining cell makes."""
        return self.folder / "pretrained" / key

    def errors(self, key: str) -> Path:
        """Return the file that says why a cell failed."""
        return self.folder / "failed" / f"{key}.txt"

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the record of a finished cell.

        Parameters
        ----------
        key : str
            Name of the cell.

        Returns
        -------
        dict or None
            None if the cell is not finished.

        Warns
        -----
        BrainSymphonyWarning
            If the file is damaged, which also counts as not finished.
        """
        path = self.path(key)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # no JSON, or no text
            record = None
        if not _is_whole(record, key):
            warnings.warn(
                f"CellStore needs whole files. Got a damaged '{path.name}'. It is "
                "computed again.",
                BrainSymphonyWarning,
                stacklevel=2,
            )
            return None
        return {name: value for name, value in record.items() if name != CHECK}

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep the record of a finished cell.

        Parameters
        ----------
        key : str
            Name of the cell.
        record : mapping
            What JSON can hold, and numbers of NumPy.
        """
        content = json.loads(json.dumps({**record, "key": key}, default=_as_json))
        text = json.dumps({**content, CHECK: hash_of(content)})
        write_atomically(self.path(key), text)
        self.errors(key).unlink(missing_ok=True)

    def write_error(self, key: str, text: str) -> None:
        """Keep the reason why a cell failed."""
        write_atomically(self.errors(key), text)


def hash_of(parts: Any) -> str:
    """Return a name for what JSON can hold, the same in every process.

    Parameters
    ----------
    parts : JSON-like
        E.g. what :func:`describe` returns.

    Returns
    -------
    str
        32 hexadecimal digits.

    Examples
    --------
    >>> hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def describe(value: Any) -> Any:
    """Return all that can be set about an estimator, as JSON can hold it.

    Classes count by their name and parameters by their value: nested estimators by
    theirs, arrays by their content, folders of weights (parameters called
    ``pretrained``) by the files in them.

    Parameters
    ----------
    value : estimator or any parameter of one
        What to describe.

    Returns
    -------
    JSON-like

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> describe(PCA(3))["n_components"]
    3
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return [[describe(name), describe(item)] for name, item in value.items()]
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return [describe(x) for x in (value.func, value.args, value.keywords)]
    if isinstance(value, type) or hasattr(value, "__code__"):
        return _describe_code(value)
    if hasattr(value, "_score_func"):  # a scorer, whose text has the name only
        return [describe(x) for x in (value._score_func, value._kwargs, repr(value))]
    if hasattr(value, "get_params"):
        params = value.get_params(deep=False)
        found = {name: _describe_parameter(name, x) for name, x in params.items()}
        return {"class": _describe_code(type(value)), **found}
    if hasattr(value, "__array__"):
        return str(joblib.hash(np.asarray(value)))
    text = repr(value)
    return str(joblib.hash(value)) if " at 0x" in text else text  # a place in memory


def _describe_parameter(name: str, value: Any) -> Any:
    """Return the description of a parameter, of a folder by what is in it."""
    is_path = isinstance(value, str | Path)
    if name == "pretrained" and is_path and Path(value).is_dir():
        files = sorted(file for file in Path(value).rglob("*") if file.is_file())
        return [
            [file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files
        ]
    return describe(value)


def _describe_code(value: type | Callable[..., Any]) -> list[str]:
    """Return the name of a class or function, with the code that has no other name."""
    parts = [value.__module__, value.__qualname__]
    code = getattr(value, "__code__", None)
    if code is not None:
        plain = [x for x in code.co_consts if isinstance(x, str | int | float)]
        parts += [code.co_code.hex(), repr(plain), repr(code.co_names)]
        parts += [part for part in _bound(value) if part]
    return parts


def _bound(function: Any) -> Iterator[str]:
    """Yield what a function does beside its own code, empty where there is nothing."""
    for name in ("__defaults__", "__kwdefaults__"):
        given = getattr(function, name, None)
        yield json.dumps(describe(given)) if given else ""
    owner = getattr(function, "__self__", None)  # of a method
    yield json.dumps(describe(owner)) if owner is not None else ""
    inner = getattr(function, "__closure__", None) or ()
    for cell in inner:
        if cell.cell_contents is not function:  # which may call itself
            yield json.dumps(describe(cell.cell_contents))
    for constant in function.__code__.co_consts:
        if isinstance(constant, tuple):
            yield repr(constant)
        elif isinstance(constant, CodeType):  # a function within
            yield constant.co_code.hex() + repr(constant.co_names)


def _is_whole(record: Any, key: str) -> bool:
    """Say whether a record is that of `key` and has not changed since."""
    if not isinstance(record, dict) or record.get("key") != key:
        return False
    content = {name: value for name, value in record.items() if name != CHECK}
    # one that was written before there were checks has none
    return record.get(CHECK) in (None, hash_of(content))


def _as_json(value: Any) -> Any:
    """Return a number of NumPy as Python's, and anything else as text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return repr(value)
