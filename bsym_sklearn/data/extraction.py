"""Series of regions out of one image, by nilearn's maskers.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bsym_sklearn.data.atlases import Atlas
from bsym_sklearn.data.checks import ConstantRegions, find_constant_regions
from bsym_sklearn.data.images import READ_ERRORS
from bsym_sklearn.data.nuisance import CALLER
from bsym_sklearn.exceptions import BrainDataError

ResampleTo = Literal["scan", "atlas"]
N_SHOWN = 3


@dataclass(frozen=True)
class Cleaning:
    """What nilearn does to the values beside averaging them."""

    low_pass: float | None
    high_pass: float | None
    smoothing_fwhm: float | None
    detrend: bool


def extract(
    image: Any,
    atlas: Atlas,
    cleaning: Cleaning,
    *,
    resample_to: ResampleTo,
    constant_regions: ConstantRegions,
    t_r: float | None,
    confounds: np.ndarray | None,
    keep: np.ndarray | None,
    label: str,
) -> np.ndarray:
    """Return the series (T, R) of a scan, one column per region of the atlas."""
    masker = _make_masker(atlas, resample_to, t_r, cleaning)
    try:
        with warnings.catch_warnings():
            # what was resampled is what was asked for; lost regions are handled below
            warnings.filterwarnings("ignore", "(?i).*resampl", UserWarning)
            masker.fit(image)
            here = _find_regions(masker, atlas)
            found = masker.transform(image, confounds=confounds, sample_mask=keep)
    except (*READ_ERRORS, IndexError) as error:
        raise BrainDataError(
            f"{CALLER} needs images whose values can be read and cleaned. Got "
            f"{type(error).__name__} ({error}), first in {label}. Check the image and "
            "its confounds."
        ) from error
    series = np.zeros((len(found), len(atlas.values)), dtype=np.float32)
    series[:, here] = found
    constant = find_constant_regions(series)
    if constant_regions == "error" and constant.any():
        raise _no_signal_error(atlas, here, constant, image, label)
    series[:, constant] = 0  # exactly, where cleaning left rounding noise
    return series


def _make_masker(
    atlas: Atlas, resample_to: ResampleTo, t_r: float | None, cleaning: Cleaning
) -> Any:
    from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker

    options = {**asdict(cleaning), "t_r": t_r, "standardize": None, "reports": False}
    is_scan = resample_to == "scan"
    if atlas.image.ndim == 3:
        target = "data" if is_scan else "labels"
        return NiftiLabelsMasker(atlas.image, resampling_target=target, **options)
    target = "data" if is_scan else "maps"
    return NiftiMapsMasker(atlas.image, resampling_target=target, **options)


def _find_regions(masker: Any, atlas: Atlas) -> np.ndarray:
    """Say which regions have voxels on the grid of the fitted masker; (R,) bool."""
    if atlas.image.ndim == 4:  # a map without voxels keeps its column
        return np.ones(len(atlas.values), dtype=bool)
    return np.isin(atlas.values, np.asanyarray(masker.labels_img_.dataobj))


def _no_signal_error(
    atlas: Atlas, here: np.ndarray, constant: np.ndarray, image: Any, label: str
) -> BrainDataError:
    lost = constant & ~here
    what, shown = ("voxels", lost) if lost.any() else ("signal", constant)
    names = atlas.regions["label"][shown].tolist()
    some = ", ".join(map(repr, names[:N_SHOWN]))
    size = " x ".join(f"{zoom:g}" for zoom in image.header.get_zooms()[:3])
    remedy = "Leave the region out of the atlas or the scan out of the cohort"
    if lost.any():
        remedy = f"Set resample_to='atlas', if voxels of {size} mm are too large for it"
    return BrainDataError(
        f"{CALLER} needs {what} of every region in every scan. Got none of {some} "
        f"({len(names)} of {len(atlas.values)} regions), first in {label}. {remedy}; "
        "or keep zeros there with constant_regions='mask', here and in the model."
    )
