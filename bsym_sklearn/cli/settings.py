"""Configs: the same names as the flags, in TOML or JSON."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from bsym_sklearn.version import __version__


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a hint at the nearest name, or the names.

    Parameters
    ----------
    name : str
        Unknown.
    known : sequence of str
        What there is.

    Returns
    -------
    str
        One sentence.

    Examples
    --------
    >>> did_you_mean("tangnet", ["dummy", "tangent"])
    "Did you mean 'tangent'?"
    >>> did_you_mean("age", ["sex", "site"])
    "There are 'sex', 'site'."
    """
    near = get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"There are {', '.join(map(repr, known))}." if known else "There are none."


def read_settings(
    path: Path, is_list: Mapping[str, bool], is_flag: Mapping[str, bool]
) -> dict[str, Any]:
    """Return what a config says, as text that the command line would have.

    Parameters
    ----------
    path : Path
        TOML, or JSON if its name ends so.
    is_list, is_flag : mapping of str to bool
        For each name, whether it takes several values, or true and false.

    Returns
    -------
    dict
        Text, lists of text, and bools.

    Raises
    ------
    click.UsageError
        If the file cannot be read, or holds an unknown name or a wrong kind of value.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "run.toml")
    ...     _ = path.write_text("batch-size = 8")
    ...     read_settings(path, {"batch_size": False}, {"batch_size": False})
    {'batch_size': '8'}
    """
    parse = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        content = parse(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # no TOML, no JSON, or no text
        raise click.UsageError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise click.UsageError(f"'{path}' needs names and values, as the flags have.")
    settings: dict[str, Any] = {}
    for name, value in content.items():
        key = name.replace("-", "_")
        if key not in is_list:
            hint = did_you_mean(key, list(is_list))
            raise click.UsageError(f"'{path}' has an unknown name {name!r}. {hint}")
        if value is not None:
            settings[key] = _as_flag(path, name, value, is_list[key], is_flag[key])
    return settings


def write_settings(path: Path, values: Mapping[str, Any], *, command: str) -> None:
    """Write settings as TOML, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    values : mapping
        Texts, paths, numbers, bools and sequences of them; None is left out.
    command : str
        Of ``bsym``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "run.toml")
    ...     write_settings(path, {"epochs": 3, "window": None}, command="pretrain")
    ...     print(path.read_text().splitlines()[-1])
    epochs = 3
    """
    from bsym_sklearn.files import write_atomically

    lines = [
        f"# bsym {command} of bsym_sklearn {__version__}, to be repeated with:",
        f"#   bsym {command} --config THIS_FILE",
    ]
    lines += [
        f"{name} = {_as_toml(value)}"
        for name, value in values.items()
        if value is not None and value != ()
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def _as_flag(path: Path, name: str, value: Any, is_list: bool, is_flag: bool) -> Any:
    """Return a value as the command line has it."""
    kind = "true or false" if is_flag else "a list" if is_list else "one value"
    fits = {
        "true or false": isinstance(value, bool),
        "a list": isinstance(value, list) and all(map(_is_plain, value)),
        "one value": _is_plain(value),
    }
    if not fits[kind]:
        raise click.UsageError(f"'{path}' needs {kind} for {name!r}. Got {value!r}.")
    if is_flag:
        return value
    return [str(x) for x in value] if is_list else str(value)


def _is_plain(value: Any) -> bool:
    """Say if a value is a text or a number."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _as_toml(value: Any) -> str:
    """Return a value as TOML; its texts, numbers and lists are those of JSON."""
    plain = [str(x) if isinstance(x, Path) else x for x in _as_list(value)]
    text = json.dumps(
        plain if isinstance(value, list | tuple) else plain[0], ensure_ascii=False
    )
    return text.replace("\x7f", "\\u007F")  # TOML wants it escaped


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
