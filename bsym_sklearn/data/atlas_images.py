"""Images of atlases: fetched by name, their values, the centres of their regions.

Shape letters: R regions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.ndimage import center_of_mass

from bsym_sklearn.data.images import READ_ERRORS
from bsym_sklearn.exceptions import BrainDataError

NAMES = "'aal', 'difumo64', 'harvard_oxford', 'msdl', 'schaefer400'"
SIZED = re.compile(r"(schaefer|difumo)(\d+)")


def fetch_atlas(
    atlas: Any, data_dir: str | os.PathLike[str] | None, caller: str
) -> Mapping[str, Any]:
    """Return a Bunch: the atlas itself, one that nilearn fetches, or of an image."""
    if isinstance(atlas, Mapping):
        return atlas
    fetch = _fetcher(atlas) if isinstance(atlas, str) else None
    if fetch is None:
        return {"maps": atlas}
    name, options = fetch
    from nilearn import datasets

    try:
        bunch: Mapping[str, Any] = getattr(datasets, name)(
            **options, data_dir=data_dir, verbose=0
        )
    except (OSError, ValueError) as error:
        raise no_data_error(caller, f"the atlas {atlas!r}", error) from error
    return bunch


def no_data_error(caller: str, what: str, error: Exception) -> BrainDataError:
    """Return the error of a fetcher that has neither a cache nor a network."""
    return BrainDataError(
        f"{caller} needs {what} in nilearn's cache, or a network to download it. Got "
        f"{type(error).__name__}: {error}. Call it once where there is a network, and "
        "copy the cache; data_dir= or the variable NILEARN_DATA says where it is."
    )


def read_values(image: Any, caller: str) -> tuple[Any, np.ndarray]:
    """Return a 3-D atlas as whole numbers, and the value of each region; (R,).

    An atlas of maps comes back as it is, with the number of each map.
    """
    if image.ndim == 4:
        return image, np.arange(1, image.shape[3] + 1)
    from nibabel import Nifti1Image

    data = _read(image, caller)
    values = np.unique(data)
    values = values[values != 0]
    if len(values) < 2 or (values != np.rint(values)).any():
        raise BrainDataError(
            f"{caller} needs whole numbers, one per region and 0 elsewhere, in a 3-D "
            f"atlas. Got {len(values)} values other than 0, such as "
            f"{values[:3].tolist()}. Pass an atlas of at least two regions, not a map."
        )
    # scipy averages over whole numbers five times faster than over floats
    return Nifti1Image(data.astype(np.int32), image.affine), values.astype(int)


def read_centres(image: Any, values: np.ndarray) -> np.ndarray:
    """Return the mean place of each region's voxels in mm; (R, 3).

    Voxels of a map count with the size of their weight.
    """
    from nibabel.affines import apply_affine

    data = _read(image, "load_atlas")
    if image.ndim == 3:
        centres = center_of_mass(data != 0, labels=data, index=values)
    else:
        centres = [center_of_mass(np.abs(data[..., i - 1])) for i in values]
    return apply_affine(image.affine, np.array(centres)).round(2)


def _read(image: Any, caller: str) -> np.ndarray:
    try:
        return np.nan_to_num(np.asanyarray(image.dataobj))
    except READ_ERRORS as error:
        raise BrainDataError(
            f"{caller} needs an atlas whose values can be read. Got "
            f"'{image.get_filename()}' ({error}). Download it again."
        ) from error


def _fetcher(name: str) -> tuple[str, dict[str, Any]] | None:
    """Return nilearn's function for a name and its options, None for a path."""
    if name == "harvard_oxford":
        return "fetch_atlas_harvard_oxford", {"atlas_name": "cort-maxprob-thr25-2mm"}
    if name in ("aal", "msdl"):
        return f"fetch_atlas_{name}", {}
    sized = SIZED.fullmatch(name)
    if sized is None:
        return None
    if sized[1] == "difumo":
        return "fetch_atlas_difumo", {"dimension": int(sized[2]), "resolution_mm": 3}
    return "fetch_atlas_schaefer_2018", {"n_rois": int(sized[2]), "resolution_mm": 2}
