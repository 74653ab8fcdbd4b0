"""NIfTI images: opened with a clear error, and the seconds that their header tells."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from bsym_sklearn.data.recording import is_path
from bsym_sklearn.exceptions import BrainDataError

# Seconds per unit. An unknown unit has none: nibabel writes 1.0 of it by default.
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def open_image(image: Any, *, caller: str, what: str, n_dims: Sequence[int]) -> Any:
    """Return a nibabel image whose values are not read yet, or raise.

    `what` names the image in an error, as in "an image of 4 dimensions in scan 3".
    """
    import nibabel as nib

    if is_path(image):
        try:
            image = nib.load(image)
        except (OSError, nib.filebasedimages.ImageFileError) as error:
            raise BrainDataError(
                f"{caller} needs a readable NIfTI image as {what}. Got '{image}' "
                f"({error}). Check the path, or write the image again."
            ) from error
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise BrainDataError(
            f"{caller} needs a path or a nibabel image as {what}. Got "
            f"{type(image).__name__}. Pass the path of a .nii or .nii.gz file."
        )
    if image.ndim not in n_dims:
        wanted = " or ".join(f"{n}-D" for n in n_dims)
        raise BrainDataError(
            f"{caller} needs a {wanted} image as {what}. Got one of shape "
            f"{image.shape}. Check that this is the right file."
        )
    return image


def header_t_r(image: Any) -> float | None:
    """Return seconds per volume, or None if the header does not tell."""
    zooms = image.header.get_zooms()
    if len(zooms) < 4 or not hasattr(image.header, "get_xyzt_units"):
        return None
    seconds = float(zooms[3]) * SECONDS.get(image.header.get_xyzt_units()[1], 0.0)
    return round(seconds, 6) if seconds > 0 else None


# What numpy, nibabel and gzip raise when the values of an image cannot be read.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
