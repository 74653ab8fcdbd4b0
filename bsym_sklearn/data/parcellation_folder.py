"""A cohort folder in the making: finished scans stay, and settings may not change."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from bsym_sklearn.data.image_scans import ImageScan
from bsym_sklearn.data.nuisance import CALLER
from bsym_sklearn.data.recording import is_path
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.files import replacing, write_atomically, write_table

SETTINGS = "parcellation.json"
NIFTI = (".nii.gz", ".nii")


class ParcellationFolder:
    """Writes scans whole, and finds those that an earlier call has finished.

    Beside ``fmri/<name>.npy`` lies ``<name>.json``, written after it: what the scan was
    made of. A scan of anything else, or without it, is made again.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any]
    ) -> None:
        # absolute: a worker process may have another working directory
        self.folder = Path(folder).resolve()
        self._check(dict(settings))
        (self.folder / "fmri").mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where a scan lies."""
        return self.folder / "fmri" / f"{name}.npy"

    def has(self, name: str, source: Mapping[str, Any]) -> bool:
        """Say if a scan is finished and was made of this source."""
        path = self.path(name)
        try:
            known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return bool(known == source)

    def write(self, name: str, series: np.ndarray, source: Mapping[str, Any]) -> None:
        """Write a scan, then what it was made of."""
        path = self.path(name)
        with replacing(path) as fresh, fresh.open("wb") as file:
            np.save(file, series)
        _write_json(path.with_suffix(".json"), source)

    def finish(
        self, table: pd.DataFrame, names: Sequence[str], regions: pd.DataFrame
    ) -> None:
        """Write the tables that `load_cohort` reads."""
        files = [f"fmri/{name}.npy" for name in names]
        write_table(self.folder / "regions.tsv", regions)
        write_table(self.folder / "participants.tsv", table.assign(fmri=files))

    def _check(self, settings: dict[str, Any]) -> None:
        """Begin a folder, or raise if it was begun otherwise."""
        path = self.folder / SETTINGS
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise BrainDataError(
                    f"{CALLER} needs an out_dir that is empty or that it began. Got "
                    f"'{self.folder}', which holds other files. Choose a new folder."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_json(path, settings)
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BrainDataError(
                f"{CALLER} needs the settings of an earlier call in '{path}'. Got a "
                f"file that cannot be read ({error}). Choose a new folder."
            ) from error
        now = json.loads(json.dumps(settings))
        known = known if isinstance(known, dict) else {}
        changed = [name for name in now if known.get(name) != now[name]]
        if changed:
            name = changed[0]
            raise BrainDataError(
                f"{CALLER} needs the settings that '{self.folder}' was begun with. Got "
                f"{name}={now[name]!r} instead of {known.get(name)!r}. Choose a new "
                "out_dir, or the old settings."
            )


def name_scans(scans: Sequence[ImageScan]) -> list[str]:
    """Return a file name per scan: the image's own where all differ, else numbers."""
    stems = [_stem(scan.image) for scan in scans]
    is_unique = max(Counter(stems).values()) == 1 and all(stems)
    return stems if is_unique else [f"scan-{i:05d}" for i in range(len(scans))]


def describe_source(scan: ImageScan) -> dict[str, Any]:
    """Return what tells if a scan would be made of the same again; JSON."""
    return {
        "image": _describe(scan.image),
        "confounds": _describe(scan.confounds),
        "sample_mask": _describe(scan.keep),
        "t_r": scan.t_r,
    }


def hash_image(image: Any) -> str:
    """Return a hash of the values and places of the voxels."""
    return str(joblib.hash((np.asanyarray(image.dataobj), image.affine)))


def _describe(value: Any) -> Any:
    if value is None:
        return None
    if is_path(value):
        if not Path(value).is_file():  # "fmriprep", or an error when it is read
            return str(value)
        status = Path(value).stat()
        return [Path(value).name, status.st_size, status.st_mtime_ns]
    return hash_image(value) if hasattr(value, "dataobj") else joblib.hash(value)


def _stem(image: Any) -> str:
    if not is_path(image):
        return ""
    name = Path(image).name
    extension = next((end for end in NIFTI if name.endswith(end)), "")
    return name.removesuffix(extension)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1))
