"""Names for what a result depends on: an estimator, its parameters, its code."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import cache, partial, singledispatch
from pathlib import Path
from site import getsitepackages, getusersitepackages
from sysconfig import get_path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator
from torch import nn

KEY_LENGTH = 32  # hexadecimal digits
OWN = __name__.partition(".")[0]


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

    Parameters count by their value: nested estimators by theirs, frozen ones by what
    they have learned, arrays and tables by their content, folders of weights
    (parameters called ``pretrained``) by the files in them. Functions count by their
    code and the values that it reads from outside. Classes count by their name, those
    of no installed package by the code of their methods too.

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
    return _describe(value, ())


def describe_folder(folder: str | Path) -> list[list[str]]:
    """Return the names of the files in a folder, each with a hash of its content.

    Parameters
    ----------
    folder : str or Path
        Of weights.

    Returns
    -------
    list of [str, str]

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     describe_folder(folder)
    []
    """
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    return [[file.name, _hash_of_file(file)] for file in files]


def _hash_of_file(path: Path) -> str:
    """Return a hash of what is in a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@singledispatch
def _describe(value: Any, above: tuple[Any, ...]) -> Any:
    """Describe a value; `above` are the functions and classes that led to it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__code__"):
        return _describe_function(value, above)
    if hasattr(value, "_score_func"):  # a scorer, whose text has the name only
        parts = [value._score_func, value._kwargs, repr(value)]
        return _describe(parts, above)
    if hasattr(value, "get_params"):
        params = value.get_params(deep=False)
        found = {k: _describe_parameter(k, x, above) for k, x in params.items()}
        return {"class": _describe(type(value), above), **found}
    if is_dataclass(value):
        parts = [type(value), {x.name: getattr(value, x.name) for x in fields(value)}]
        return _describe(parts, above)
    if hasattr(value, "__array__"):
        return str(joblib.hash(np.asarray(value)))
    text = repr(value)
    return str(joblib.hash(value)) if " at 0x" in text else text  # a place in memory


@_describe.register(list | tuple)
def _(value: Any, above: tuple[Any, ...]) -> Any:
    return [_describe(item, above) for item in value]


@_describe.register
def _(value: Mapping, above: tuple[Any, ...]) -> Any:
    return _describe(list(value.items()), above)


@_describe.register
def _(value: Set, above: tuple[Any, ...]) -> Any:
    return sorted(json.dumps(_describe(item, above)) for item in value)


@_describe.register
def _(value: pd.DataFrame, above: tuple[Any, ...]) -> Any:
    return _describe(dict(value.items()), above)


@_describe.register
def _(value: pd.Series, above: tuple[Any, ...]) -> Any:
    return _describe([value.index.to_numpy(), value.to_numpy()], above)


@_describe.register
def _(value: partial, above: tuple[Any, ...]) -> Any:
    return _describe([value.func, value.args, value.keywords], above)


@_describe.register
def _(value: nn.Module, above: tuple[Any, ...]) -> Any:
    state = {k: x.double().numpy(force=True) for k, x in value.state_dict().items()}
    return _describe([type(value), state], above)


@_describe.register
def _(value: FrozenEstimator, above: tuple[Any, ...]) -> Any:
    return _describe(["frozen", _learned(value.estimator)], above)


@_describe.register
def _(value: type, above: tuple[Any, ...]) -> Any:
    """Name a class, with the code that no version stands for."""
    name = [value.__module__, value.__qualname__]
    if value in above or _is_installed(value.__module__):
        return name
    code = {key: _function_of(x) for key, x in sorted(vars(value).items())}
    own = {
        key: x
        for key, x in code.items()
        if hasattr(x, "__code__") or (_is_data(x) and not key.startswith("__"))
    }
    return [*name, _describe([value.__bases__, own], (*above, value))]


def _learned(value: Any) -> Any:
    """Return all that fitted estimators hold, in place of what was set."""
    if isinstance(value, list | tuple):
        return [_learned(x) for x in value]
    if isinstance(value, Mapping):
        return {name: _learned(x) for name, x in value.items()}
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return value
    if hasattr(value, "module_"):  # a net
        return value.module_
    held = {name: x for name, x in vars(value).items() if not name.startswith("_")}
    return [type(value), _learned(held)]


def _describe_parameter(name: str, value: Any, above: tuple[Any, ...]) -> Any:
    """Return the description of a parameter, of weights by what is in the files."""
    if name == "pretrained" and isinstance(value, str | Path):
        if Path(value).is_dir():
            return describe_folder(value)
        if Path(value).is_file():
            return _hash_of_file(Path(value))
    return _describe(value, above)


def _function_of(value: Any) -> Any:
    """Return the function of a method or property, and anything else as it is."""
    if isinstance(value, property):
        return value.fget
    return getattr(value, "__func__", value)


def _describe_function(function: Any, above: tuple[Any, ...]) -> list[Any]:
    """Return the name of a function, what it was made with, and what it does."""
    name = [function.__module__, function.__qualname__]
    if function in above:
        return name
    closure = getattr(function, "__closure__", None) or ()
    parts = [
        getattr(function, "__defaults__", None),
        getattr(function, "__kwdefaults__", None),
        getattr(function, "__self__", None),  # of a method
        [cell.cell_contents for cell in closure],
    ]
    if not _is_installed(function.__module__):
        name += _describe_code(function.__code__)
        parts.append(dict(_read_from_outside(function)))
    return [*name, *_describe(parts, (*above, function))]


def _describe_code(code: CodeType) -> list[Any]:
    """Return instructions, the names that they read, and their constants."""
    constants = [
        _describe_code(x) if isinstance(x, CodeType) else _constant(x)
        for x in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _constant(value: Any) -> str:
    """Return a constant of some code as text, with sets in order."""
    if isinstance(value, frozenset):
        return repr(sorted(map(_constant, value)))
    if isinstance(value, tuple):
        return repr([_constant(x) for x in value])
    return repr(value)


def _read_from_outside(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the values of a module that a function reads: data, and its own code."""
    around = getattr(function, "__globals__", {})
    for name in sorted(set(_names(function.__code__))):
        if name not in around or isinstance(around[name], ModuleType):
            continue
        value = around[name]
        runs = isinstance(value, type) or hasattr(value, "__code__")
        if runs or _is_data(value) or hasattr(value, "get_params"):
            yield name, value


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that some code, and the functions within it, may read."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_data(value: Any) -> bool:
    """Say whether a value is data."""
    kinds = (str, bool, int, float, np.generic, np.ndarray, pd.DataFrame, pd.Series)
    return value is None or isinstance(value, (*kinds, Mapping, Set, list, tuple))


@cache
def _is_installed(module: str | None) -> bool:
    """Say whether a module is Python's, or of a package that was installed.

    A package that is installed in place, to be edited, is not.
    """
    if module is None or module == "__main__":
        return False
    if module.partition(".")[0] == OWN:  # its code is beside each result
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # built in
        return module in sys.modules
    places = [get_path("stdlib"), *getsitepackages(), getusersitepackages()]
    return any(Path(file).resolve().is_relative_to(Path(p).resolve()) for p in places)
