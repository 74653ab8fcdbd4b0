"""Results that survive a kill: one file each, named after all that they depend on."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bsym_sklearn.analysis.identity import hash_of
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.files import write_atomically

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
