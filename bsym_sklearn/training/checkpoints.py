"""Weights on disk: safetensors and JSON, written whole or not at all.

A *bundle* is a folder with the weights of a model and what is needed to use it. A
*state* is one file that a training run continues from. Neither can hold code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.files import sync, temporary_name, write_atomically
from bsym_sklearn.training.bundle_format import (
    BUNDLE_FILES,
    BUNDLE_VERSION,
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    RESERVED,
    STATE_VERSION,
    WEIGHTS_FILE,
    check_config,
    check_file,
    damaged,
    hash_file,
    parse,
    sign,
    to_json,
    upgrade,
)

STATE_KEY = "state"  # where the header of a state file keeps its metadata
MAX_LISTED = 10  # names of one kind in an error
_ODD = (torch.bool, torch.complex32, torch.complex64, torch.complex128)


def save_bundle(
    folder: str | os.PathLike[str],
    *,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: str | None = None,
) -> None:
    """Write weights and settings to a folder, as a whole or not at all.

    A bundle that is already there is replaced. Whenever the machine stops, the old
    or the new one can be read.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist, with its parents.
    tensors : mapping of str to Tensor
        Any shape, dtype and device. Shared memory is written once per name.
    config : mapping
        Anything that JSON can hold, without NaN and infinity.
    card : str or None, default=None
        Text of ``README.md``, for people.

    Raises
    ------
    CheckpointError
        If `folder` is a file, or holds anything but a bundle. A ``README.md`` that
        was edited counts as such.
    TypeError, ValueError
        If JSON cannot hold `config`.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_bundle(folder, tensors={"w": torch.ones(2)}, config={"dim": 2})
    ...     load_bundle(folder)
    ({'w': tensor([1., 1.])}, {'dim': 2})
    """
    folder = Path(folder).resolve()
    reserved = sorted(set(RESERVED) & config.keys())
    if reserved:
        raise ValueError(
            f"save_bundle needs a config without {reserved}, which it writes itself. "
            f"Got {sorted(config)}. Rename the entries."
        )
    weights = save(_plain(tensors))
    described = None if card is None else card.encode()
    files = {
        CONFIG_FILE: to_json(sign(config, weights, described)).encode(),
        WEIGHTS_FILE: weights,
    }
    if described is not None:
        files[CARD_FILE] = described
    folder.parent.mkdir(parents=True, exist_ok=True)
    _put_back(folder)
    _check_replaceable(folder)
    fresh = temporary_name(folder)
    fresh.mkdir()
    try:
        for name, content in files.items():
            write_atomically(fresh / name, content)
        _replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # gone already if all went well


def load_bundle(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_bundle` wrote, in this version or an older one.

    Parameters
    ----------
    folder : path-like
        A bundle. Nothing is read from its ``README.md``.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    config : dict
        As the newest version of the format has it.

    Raises
    ------
    CheckpointError
        If the folder or a file is missing or damaged, or was written by another
        program or a newer version.

    Examples
    --------
    >>> load_bundle("nowhere")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: load_bundle needs a folder that was ...
    """
    folder = Path(folder).resolve()
    if not folder.exists() and _aside(folder).is_dir():
        folder = _aside(folder)  # a save was stopped between its two renames
    if not folder.is_dir():
        raise CheckpointError(
            "load_bundle needs a folder that was saved before. "
            f"Got '{folder}', which is not a folder. Check the path."
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"load_bundle needs the files '{CONFIG_FILE}' and '{WEIGHTS_FILE}'. "
                f"Got '{folder}' without '{name}'. Save the model again."
            )
    config = _read_config(folder / CONFIG_FILE)
    check_file(config, "weights", folder / WEIGHTS_FILE)
    tensors, _ = _read_tensors(folder / WEIGHTS_FILE)
    return tensors, upgrade(config)


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str
) -> None:
    """Copy `tensors` into `module`, all of them or none.

    Parameters
    ----------
    module : nn.Module
        Its parameters and buffers are overwritten.
    tensors : mapping of str to Tensor
        One for every entry of ``module.state_dict()``, of the same shape.
    source : str
        Where the tensors come from, for the error.

    Raises
    ------
    CheckpointError
        If anything is missing, unexpected, not finite or of another shape or kind of
        number. Lists all of it.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(1, 1)
    >>> load_weights(layer, {"weight": torch.ones(1, 2)}, source="a dict")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: Linear needs other weights than those ...
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    mistyped = [
        f"{name} {tensors[name].dtype} instead of {own[name].dtype}"
        for name in own
        if name in tensors and _kind(tensors[name]) != _kind(own[name])
    ]
    broken = [name for name, x in tensors.items() if not x.isfinite().all()]
    problems = [
        f"{what}: {_listed(names)}."
        for what, names in (
            ("Missing", missing),
            ("Unexpected", unexpected),
            ("Of another shape", misshaped),
            ("Of another type", mistyped),
            ("Not finite", broken),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{type(module).__name__} needs other weights than those in {source}. "
            + " ".join(problems)
        )
    module.load_state_dict(dict(tensors))


def save_state(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> None:
    """Write tensors and settings to one file, as a whole or not at all.

    Parameters
    ----------
    path : path-like
        Replaced if it exists. Its folder is made if it does not.
    tensors : mapping of str to Tensor
        Any shape, dtype and device.
    metadata : mapping
        Anything that JSON can hold, without NaN and infinity.

    Raises
    ------
    TypeError, ValueError
        If JSON cannot hold `metadata`.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "last.safetensors"
    ...     save_state(path, {"w": torch.ones(2)}, {"epoch": 3})
    ...     load_state(path)
    ({'w': tensor([1., 1.])}, {'epoch': 3})
    """
    path = Path(path).resolve()
    plain = _plain(tensors)
    header = {
        "format": FORMAT,
        "format_version": STATE_VERSION,
        "name": path.name,  # of the fit: the state of another is not taken for it
        "sha256": _hash_state(plain, metadata),
        STATE_KEY: dict(metadata),
    }
    write_atomically(path, save(plain, {STATE_KEY: to_json(header)}))


def load_state(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Parameters
    ----------
    path : path-like
        A state file.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    metadata : dict

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, has another name than it was saved with, or
        was written by another program or a newer version.

    Examples
    --------
    >>> load_state("nowhere.safetensors")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: load_state needs a file that was ...
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise CheckpointError(
            "load_state needs a file that was saved before. "
            f"Got '{path}', which is not a file. Check the path."
        )
    tensors, header = _read_tensors(path)
    content = parse(header.get(STATE_KEY, "{}"), path, STATE_VERSION)
    metadata = content.get(STATE_KEY)
    if not isinstance(metadata, dict):
        raise damaged(path, "it has no metadata")
    # One that was written before there were names and hashes has none.
    if content.get("sha256") not in (None, _hash_state(tensors, metadata)):
        raise damaged(path, "its values have changed")
    if content.get("name") not in (None, path.name):
        raise CheckpointError(
            "load_state needs a file under the name that it was saved with. Got "
            f"'{path}', saved as {content['name']!r}. Copy the right file, or delete "
            "this one and start again."
        )
    return tensors, metadata


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU, none of which shares memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _hash_state(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the hash of all values of a state."""
    as_read = json.loads(to_json(metadata))  # keys have become texts
    whole = hashlib.sha256(to_json(as_read).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    """Return the settings of a bundle, of any version but whole."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, str(error)) from error
    config = parse(text, path, BUNDLE_VERSION)
    check_config(config, path)
    return config


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header entries of a safetensors file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            # Copied: an open memory map would keep the file from being replaced.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    return tensors, header


def _kind(tensor: Tensor) -> str:
    """Return what kind of numbers a tensor holds, in any precision."""
    if tensor.is_floating_point():
        return "real"
    return str(tensor.dtype) if tensor.dtype in _ODD else "whole"


def _listed(names: Iterable[str]) -> str:
    """Return at most MAX_LISTED names and how many more there are."""
    names = list(names)
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _aside(folder: Path) -> Path:
    """Return the name under which a bundle waits while its successor moves in."""
    return folder.with_name(f".{folder.name}.previous")


def _put_back(folder: Path) -> None:
    """Finish what a save that was stopped while replacing `folder` left behind."""
    aside = _aside(folder)
    if not aside.exists():
        return
    ours = aside.is_dir() and {path.name for path in aside.iterdir()} <= {*BUNDLE_FILES}
    if not (folder.exists() and ours):  # else a part: its removal was stopped
        _check_replaceable(aside)
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)


def _check_replaceable(folder: Path) -> None:
    """Raise unless `folder` is absent, empty or a bundle and nothing else."""
    if not folder.exists():
        return
    if folder.is_dir():
        names = {entry.name for entry in folder.iterdir()}
        if not names:
            return
        if names <= {*BUNDLE_FILES} and {CONFIG_FILE, WEIGHTS_FILE} <= names:
            config = _read_config(folder / CONFIG_FILE)
            if CARD_FILE not in names or _is_our_card(config, folder / CARD_FILE):
                return
    raise CheckpointError(
        "save_bundle needs a new or empty folder, or one that it has written before. "
        f"Got '{folder}', which holds something else. Choose another or empty it."
    )


def _is_our_card(config: Mapping[str, Any], path: Path) -> bool:
    """Return whether nobody has edited the card since it was written."""
    return config.get("sha256", {}).get("card") == hash_file(path)


def _replace_folder(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; what was there is deleted last."""
    aside = _aside(folder)
    if folder.exists():
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        _put_back(folder)
        raise
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
