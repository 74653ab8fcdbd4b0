"""The format of a bundle: its files, its versions, and what shows that it is whole.

The settings hold the SHA-256 of the weights and of themselves, so that a bundle in
which a byte has changed is refused instead of predicting something else. They show
damage, not who wrote a bundle: whoever changes one can compute them anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bsym_sklearn.exceptions import CheckpointError

FORMAT = "bsym_sklearn"
BUNDLE_VERSION = 2
STATE_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"  # for people; nothing is read from it
BUNDLE_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
RESERVED = ("format", "format_version", "sha256")  # entries of the settings


def to_json(content: Mapping[str, Any]) -> str:
    """Return `content` as text that is the same for equal content."""
    return json.dumps(content, allow_nan=False, sort_keys=True, indent=1) + "\n"


def parse(text: str, path: Path, newest: int) -> dict[str, Any]:
    """Return the JSON object in `text` if it is of our format and version.

    Parameters
    ----------
    text : str
        Untrusted.
    path : Path
        Where it comes from, for the error.
    newest : int
        Version of the format that can be read, with all before it.

    Returns
    -------
    dict
        Without NaN and infinity.

    Raises
    ------
    CheckpointError
        If the text is anything else.

    Examples
    --------
    >>> parse('{"format": "bsym_sklearn", "format_version": 1}', Path("a"), 2)
    {'format': 'bsym_sklearn', 'format_version': 1}
    """
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"bsym_sklearn reads only what it has saved itself. Got '{path}' of "
            "another format. For the weights of the official code use "
            "`load_reference_checkpoint`."
        )
    version = content.get("format_version")
    if type(version) is not int or version < 1:
        raise damaged(path, f"it is in format {version!r}")
    if version > newest:
        raise CheckpointError(
            f"This version of bsym_sklearn reads format {newest} and older. Got "
            f"'{path}' in format {version}. Install the version that wrote it."
        )
    return content


def sign(
    config: Mapping[str, Any], weights: bytes, card: bytes | None
) -> dict[str, Any]:
    """Return the settings as they are written: with format, version and hashes.

    Parameters
    ----------
    config : mapping
        Without the entries in RESERVED.
    weights, card : bytes
        Content of the other files; None if there is no card.

    Returns
    -------
    dict

    Examples
    --------
    >>> signed = sign({"dim": 2}, b"", None)
    >>> sorted(signed), sorted(signed["sha256"])
    (['dim', 'format', 'format_version', 'sha256'], ['config', 'weights'])
    """
    content = {"format": FORMAT, "format_version": BUNDLE_VERSION, **config}
    hashes = {"weights": hashlib.sha256(weights).hexdigest()}
    if card is not None:
        hashes["card"] = hashlib.sha256(card).hexdigest()
    hashes["config"] = _hash_of({**content, "sha256": hashes})
    return {**content, "sha256": hashes}


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Raise if the settings are not those that were written.

    Parameters
    ----------
    config : mapping
        From :func:`parse`. The first version has no hashes.
    path : Path
        Where it comes from, for the error.

    Raises
    ------
    CheckpointError
    """
    hashes = config.get("sha256")
    if config["format_version"] == 1:
        if hashes is not None:
            raise damaged(path, "format 1 has no hashes")
        return
    if not isinstance(hashes, dict):
        raise damaged(path, "it has no hashes")
    others = {name: value for name, value in hashes.items() if name != "config"}
    try:
        whole = hashes.get("config") == _hash_of({**config, "sha256": others})
    except RecursionError as error:
        raise damaged(path, str(error)) from error
    if not whole:
        raise damaged(path, "its content has changed since it was written")


def check_file(config: Mapping[str, Any], name: str, path: Path) -> None:
    """Raise if a file is not the one that the settings were written with.

    Parameters
    ----------
    config : mapping
        Checked. The first version has no hashes.
    name : {"weights", "card"}
        Which file.
    path : Path
        Where it is.

    Raises
    ------
    CheckpointError
    """
    hashes = config.get("sha256")
    if hashes is not None and hashes.get(name) != hash_file(path):
        raise damaged(path, f"its SHA-256 is not that in {CONFIG_FILE}")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of the content of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a bundle of any version as the newest has them.

    Parameters
    ----------
    config : mapping
        Checked, with its format and version.

    Returns
    -------
    dict
        Without format, version and hashes.

    Examples
    --------
    >>> old = {"format_version": 1, "fitted": {"participants_": ["ab"], "seed_": 3}}
    >>> new = upgrade(old)
    >>> new["fitted"], new["participants"]["hashes"]
    ({'seed_': 3}, ['ab'])
    """
    current = {name: value for name, value in config.items() if name not in RESERVED}
    for version in range(config["format_version"], BUNDLE_VERSION):
        current = _UPGRADES[version](current)
    return current


def damaged(path: Path, reason: str) -> CheckpointError:
    """Return the error for a file that cannot be read."""
    return CheckpointError(
        f"bsym_sklearn needs an intact file. Got '{path}', which is damaged "
        f"({reason}). Save or copy it again."
    )


def _to_version_2(config: Mapping[str, Any]) -> dict[str, Any]:
    """Move the participants, hashed without salt, out of the fitted attributes."""
    fitted = config.get("fitted")
    if not isinstance(fitted, dict):
        return dict(config)
    kept = {name: value for name, value in fitted.items() if name != "participants_"}
    hashes = fitted.get("participants_", [])
    participants = {"method": "sha256", "salt": None, "hashes": hashes}
    return {**config, "fitted": kept, "participants": participants}


_UPGRADES: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _to_version_2}


def _hash_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of content, however it is laid out as text."""
    text = json.dumps(content, allow_nan=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse(constant: str) -> float:
    """Raise for NaN and infinities, which JSON does not have."""
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    """Return a number, unless it is too large for one."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large")
    return number
