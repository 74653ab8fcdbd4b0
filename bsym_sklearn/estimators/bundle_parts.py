"""The parts of a bundle: what goes into its settings, and what may come out of them.

Settings are untrusted: whatever is wrong with them ends as a CheckpointError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bsym_sklearn.estimators.preprocessing import Preprocessing
from bsym_sklearn.estimators.seen import unpack_participants
from bsym_sklearn.exceptions import CheckpointError

# How names of tensors begin.
MODULE, PREPROCESSING = "module.", "preprocessing."
# Fitted attributes with an entry of plain JSON, and what they are without one.
KEPT: dict[str, Any] = {
    "training_data": [],
    "region_table": {},
    "license": None,
    "metrics": {},
}
# What settings that do not fit can raise, wherever they are used.
UNUSABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
MAX_ARRAY = 2**26  # bytes of an array in the settings
MAX_WINDOW = 10**6  # time points that settings may ask for
# Keys of a mapping that stands for something else.
MARKS: tuple[set[str], ...] = ({"array", "dtype"}, {"items"})


def seen_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a bundle says of the scans that its weights have learned from.

    Parameters
    ----------
    config : mapping
        From :func:`~bsym_sklearn.training.checkpoints.load_bundle`.

    Returns
    -------
    dict
        ``participants`` (hashes), ``training_data`` and ``license``.

    Raises
    ------
    CheckpointError
        If the hashes cannot be read.

    Examples
    --------
    >>> seen_by({})
    {'participants': [], 'training_data': [], 'license': None}
    """
    return {
        "participants": unpack_participants(config.get("participants")),
        **{name: config.get(name, KEPT[name]) for name in ("training_data", "license")},
    }


def restore_preprocessing(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], backbone: Any
) -> Preprocessing:
    """Return the preprocessing of a bundle.

    Parameters
    ----------
    config : mapping
        From :func:`~bsym_sklearn.training.checkpoints.load_bundle`.
    tensors : mapping of str to Tensor
        From there too.
    backbone : nn.Module
        What the scans are prepared for.

    Returns
    -------
    Preprocessing

    Raises
    ------
    ValueError
        If it is not that of the backbone.
    """
    fitted = Preprocessing.restore(
        config["preprocessing"], take_prefix(tensors, PREPROCESSING)
    )
    scalers = [x for x in (fitted.fmri_scaler, fitted.sc_scaler) if x is not None]
    sizes = [scaler.n_features_in_ for scaler in scalers]
    sizes += [len(x) for x in fitted.tensors().values() if x.ndim]
    window = getattr(backbone, "window", fitted.window)  # where it has one
    asked: Any = fitted.window
    is_whole = isinstance(asked, int) and 0 < asked <= MAX_WINDOW
    wrong = {
        "scaling": any(size != backbone.config["n_regions"] for size in sizes),
        "window": fitted.window != window or not is_whole,
        "repetition time": fitted.t_r is not None and not fitted.t_r > 0,
    }
    refuse(wrong)
    return fitted


@contextmanager
def refusing(what: str, advice: str) -> Iterator[None]:
    """Turn all that unusable settings of a bundle can raise into a CheckpointError.

    Parameters
    ----------
    what : str
        Begins the error.
    advice : str
        Ends it.

    Examples
    --------
    >>> with refusing("The embedder cannot load 'saved'", "Save it again."):
    ...     {}["dim"]
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: The embedder cannot load 'saved': ...
    """
    try:
        yield
    except CheckpointError:
        raise
    except UNUSABLE as error:
        raise CheckpointError(f"{what}: {error!r}. {advice}") from error


def refuse(wrong: Mapping[str, bool]) -> None:
    """Raise if anything is wrong, and name it."""
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    if names:
        raise ValueError(f"unusable {' and '.join(names)}")


def take_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, without it.

    Examples
    --------
    >>> import torch
    >>> list(take_prefix({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, "a."))
    ['x']
    """
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def check_license(name: Any) -> str:
    """Return the short name of a licence, or raise."""
    if not isinstance(name, str) or not LICENSE.fullmatch(name):
        raise ValueError(
            "save_pretrained needs the short name of a licence, such as 'cc-by-4.0'. "
            f"Got {name!r}. Put longer terms beside the folder."
        )
    return name


def check_metrics(metrics: Any) -> dict[str, float]:
    """Return metrics as JSON can hold them, or raise."""
    if not isinstance(metrics, Mapping):
        raise TypeError(
            "save_pretrained needs metrics as a mapping of names to numbers. Got "
            f"{type(metrics).__name__}. Pass {{'accuracy': 0.7}}."
        )
    for name, value in metrics.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(
                f"save_pretrained needs finite numbers as metrics. Got {value!r} for "
                f"{name!r}. Leave it out."
            )
    return {str(name): float(value) for name, value in metrics.items()}


def copy_json(value: Any) -> Any:
    """Return a copy of plain JSON content."""
    return json.loads(json.dumps(value))


def to_json(value: Any) -> Any:
    """Return `value` as JSON can hold it, arrays with their type."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path | np.random.RandomState):
        return str(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and set(value) not in MARKS:
            return {key: to_json(x) for key, x in value.items()}
        return {"items": [[to_json(key), to_json(x)] for key, x in value.items()]}
    return [to_json(x) for x in value] if isinstance(value, list | tuple) else value


def from_json(value: Any) -> Any:
    """Undo `to_json`; lists were tuples."""
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        return _to_array(value["array"], value["dtype"])
    if isinstance(value, dict) and set(value) == {"items"}:
        return {from_json(key): from_json(x) for key, x in value["items"]}
    return tuple(value) if isinstance(value, list) else value


def _to_array(values: Any, name: Any) -> np.ndarray:
    """Return an array of numbers, truths or text, which is as large as its values."""
    if not isinstance(values, list) or not isinstance(name, str):
        raise ValueError(f"an array needs a list and a type. Got {name!r}")
    dtype = np.dtype(name)
    n_values = np.array(values, dtype=object).size
    if dtype.kind not in "biufUO" or dtype.itemsize * n_values > MAX_ARRAY:
        raise ValueError(f"an array cannot have the type {name!r}")
    return np.array(values, dtype=dtype)
