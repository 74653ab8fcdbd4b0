"""How a model was set, without the folders of the machine that it was fitted on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pandas as pd

PLACES = ("pretrained", "checkpoint_dir", "store")  # parameters that name a folder
MAX_TEXT = 200  # characters of a value
NO_LIMIT = 10**6  # characters of scikit-learn's text of an estimator


def parameter_table(estimator: Any) -> pd.DataFrame:
    """Return the parameters of an estimator and of those in it.

    Parameters
    ----------
    estimator : estimator
        Any.

    Returns
    -------
    DataFrame
        ``parameter``, ``value`` and ``set`` ("here" or "default").

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> parameter_table(Ridge(alpha=2.0)).iloc[0].tolist()
    ['alpha', '2.0', 'here']
    """
    rows = []
    for name, value in sorted(estimator.get_params(deep=True).items()):
        owner, _, last = name.rpartition("__")
        holder = estimator.get_params(deep=True)[owner] if owner else estimator
        is_default = _is_default(holder, last, value)
        text = _as_text(last, value)
        rows.append((name, text, "default" if is_default else "here"))
    rows.sort(key=lambda row: row[2], reverse=True)  # those set here first
    return pd.DataFrame(rows, columns=["parameter", "value", "set"])


def estimator_code(estimator: Any) -> str:
    """Return the call that makes an estimator like this one, folders by their name.

    Parameters
    ----------
    estimator : estimator
        Any.

    Returns
    -------
    str

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> estimator_code(BrainSymphonyEmbedder(dim=8, pretrained="models/weights"))
    "BrainSymphonyEmbedder(dim=8, pretrained='weights')"
    """
    try:
        text = estimator.__repr__(N_CHAR_MAX=NO_LIMIT)
    except TypeError:  # not scikit-learn's
        text = repr(estimator)
    for name, value in estimator.get_params(deep=True).items():
        if _is_place(name.rpartition("__")[2], value):
            text = text.replace(repr(value), repr(Path(value).name))
    return text


def _as_text(name: str, value: Any) -> str:
    """Return a value as text: estimators by their class, folders by their name."""
    if hasattr(value, "get_params"):
        return type(value).__name__
    if isinstance(value, list | tuple) and any(_holds_estimator(x) for x in value):
        return f"{len(value)} estimators"
    text = repr(Path(value).name if _is_place(name, value) else value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


def _holds_estimator(value: Any) -> bool:
    """Say whether a value is a named estimator of a pipeline or blend."""
    return isinstance(value, tuple) and any(hasattr(x, "get_params") for x in value)


def _is_place(name: str, value: Any) -> bool:
    """Say whether a parameter names a folder."""
    return isinstance(value, Path) or (isinstance(value, str) and name in PLACES)


def _is_default(holder: Any, name: str, value: Any) -> bool:
    """Say whether a parameter has the value of its class."""
    known = inspect.signature(type(holder).__init__).parameters
    if name not in known:  # a member of a pipeline or blend
        return False
    default = known[name].default
    return type(value) is type(default) and repr(value) == repr(default)
