"""Cohorts from NIfTI images and an atlas.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from bsym_sklearn.data.atlases import Atlas, open_atlas
from bsym_sklearn.data.checks import ConstantRegions, check_option
from bsym_sklearn.data.containers import as_column
from bsym_sklearn.data.extraction import Cleaning, ResampleTo, extract
from bsym_sklearn.data.image_scans import ImageScan, collect_scans
from bsym_sklearn.data.images import open_image
from bsym_sklearn.data.nuisance import (
    CALLER,
    FMRIPREP,
    STRATEGIES,
    DenoiseStrategy,
    check_length,
    load_fmriprep,
    read_table,
)
from bsym_sklearn.data.parcellation_folder import (
    ParcellationFolder,
    describe_source,
    hash_image,
    name_scans,
)
from bsym_sklearn.exceptions import BrainDataError


def parcellate(
    images: Any,
    atlas_img: Any,
    *,
    participants: Sequence[str] | pd.DataFrame | None = None,
    column: str = "fmri",
    labels: Sequence[str] | pd.DataFrame | None = None,
    confounds: Sequence[Any] | Literal["fmriprep"] | None = None,
    denoise_strategy: DenoiseStrategy = "simple",
    sample_masks: Sequence[Any] | None = None,
    t_r: float | None = None,
    low_pass: float | None = None,
    high_pass: float | None = None,
    smoothing_fwhm: float | None = None,
    detrend: bool = True,
    resample_to: ResampleTo = "scan",
    constant_regions: ConstantRegions = "error",
    n_jobs: int | None = None,
    out_dir: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Average 4-D images over the regions of an atlas and return a cohort.

    nilearn's ``NiftiLabelsMasker`` (3-D atlas) or ``NiftiMapsMasker`` (4-D) reads,
    resamples, smooths and cleans each image. Images and atlas must lie in one space,
    such as MNI152: nothing is registered.

    Parameters
    ----------
    images : DataFrame, or sequence of paths or nibabel images
        One 4-D image per scan. In a DataFrame they are in `column`, and the other
        columns are covariates, which stay.
    atlas_img : path, image, Bunch or str
        Atlas in any form that `load_atlas` knows, with an image.
    participants : sequence of str, DataFrame or None, default=None
        Participant of each image, or a table of covariates, in the order of the
        images. None takes ``participant_id``, ``session_id``, ``task`` and ``run``
        from BIDS names, if all names have a participant.
    column : str, default="fmri"
        Column of images of a DataFrame.
    labels : sequence of str, DataFrame or None, default=None
        Labels of the regions; see `load_atlas`.
    confounds : "fmriprep", sequence or None, default=None
        What is regressed out. ``"fmriprep"`` reads what fMRIPrep wrote beside each
        image, by `denoise_strategy`. Else one table per image: a DataFrame, an array
        of shape (n_volumes, n_confounds), a path of a ``.tsv`` or ``.csv`` whose
        columns are all used, or None.
    denoise_strategy : {"simple", "scrubbing", "compcor", "ica_aroma"}, default="simple"
        With ``"fmriprep"``, nilearn's choice of columns: ``"simple"`` has slow drifts,
        24 motion parameters, white matter and CSF. ``"scrubbing"`` also leaves out
        volumes with motion.
    sample_masks : sequence of (array of int or bool, or None), or None, default=None
        Volumes to keep of each image. Beside ``"fmriprep"``, they go before its own.
    t_r : float or None, default=None
        Seconds per volume. None takes for each image the column ``t_r``, the nearest
        BIDS sidecar, or the header, in this order; NaN where none of them tells.
    low_pass, high_pass : float or None, default=None
        Cut-off frequencies in Hz.
    smoothing_fwhm : float or None, default=None
        Width of smoothing in mm.
    detrend : bool, default=True
        Whether to remove mean and linear trend of each region.
    resample_to : {"scan", "atlas"}, default="scan"
        Whose grid the other is brought to. ``"atlas"`` is for scans whose voxels are
        larger than regions, and slower.
    constant_regions : {"error", "mask"}, default="error"
        Whether a region without voxels or signal in a scan raises, or is left as
        zeros, which estimators with ``constant_regions="mask"`` hide.
    n_jobs : int or None, default=None
        Processes that read images.
    out_dir : path or None, default=None
        Cohort folder to write, which `load_cohort` reads again. Scans are written as
        they are finished; a second call with the same settings goes on where the first
        stopped, and reads only images that are new or have changed. None keeps the
        series in memory.

    Returns
    -------
    cohort : DataFrame
        One row per image: covariates, ``t_r`` (seconds), ``mean_fd`` (mm, mean
        framewise displacement, where fMRIPrep's table beside an image tells) and
        ``fmri``, float32 arrays of shape (n_timepoints, n_regions) or, with `out_dir`,
        their paths. ``attrs["regions"]`` is the table of `load_atlas`, with MNI
        coordinates.

    Raises
    ------
    BrainDataError
        If an image, an atlas or confounds cannot be used, a region has no voxels or
        no signal in a scan, `t_r` is unknown where a filter needs it, or `out_dir` was
        begun with other settings.
    TypeError, ValueError
        If a parameter cannot be used.

    Notes
    -----
    Where volumes are left out, neighbouring time points may lie further apart than
    ``t_r``. Do not combine `high_pass` with ``"fmriprep"``, whose strategies filter
    slow drifts themselves.

    References
    ----------
    .. [1] Abraham et al. (2014). Machine learning for neuroimaging with scikit-learn.
       Front. Neuroinform. 8:14.
    .. [2] Wang et al. (2024). Continuous evaluation of denoising strategies in
       resting-state fMRI connectivity using fMRIPrep and Nilearn. PLOS Comput. Biol.

    Examples
    --------
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from bsym_sklearn.data.parcellation import parcellate
    >>> rng = np.random.default_rng(0)
    >>> image = nib.Nifti1Image(rng.normal(size=(4, 4, 4, 20)), np.eye(4))
    >>> atlas = np.zeros((4, 4, 4), dtype=np.int16)
    >>> atlas[:2], atlas[2:] = 1, 2
    >>> X = parcellate(
    ...     [image],
    ...     nib.Nifti1Image(atlas, np.eye(4)),
    ...     participants=["sub-01"],
    ...     labels=["left", "right"],
    ...     t_r=2.0,
    ... )
    >>> X["fmri"][0].shape, X["t_r"][0]
    ((20, 2), np.float64(2.0))
    >>> X.attrs["regions"][["label", "x"]].values.tolist()
    [['left', 0.5], ['right', 2.5]]
    """
    _check_options(confounds, denoise_strategy, resample_to, constant_regions, t_r)
    scans, table = collect_scans(
        images,
        participants=participants,
        column=column,
        confounds=confounds,
        sample_masks=sample_masks,
        t_r=t_r,
    )
    _check_columns(table, out_dir is not None)
    cleaning = Cleaning(low_pass, high_pass, smoothing_fwhm, detrend)
    _check_filter(scans, cleaning)
    atlas = open_atlas(atlas_img, labels=labels, caller=CALLER)
    work = _Work(atlas, cleaning, denoise_strategy, resample_to, constant_regions)
    names = name_scans(scans)
    folder = None
    if out_dir is not None:
        folder = ParcellationFolder(out_dir, work.settings(confounds))
    cells = Parallel(n_jobs=n_jobs)(
        delayed(_finish)(work, scan, folder, name)
        for scan, name in zip(scans, names, strict=True)
    )
    cohort = table.assign(t_r=np.array([scan.t_r for scan in scans], dtype=float))
    motion = np.array([scan.mean_fd for scan in scans], dtype=float)
    if "mean_fd" not in cohort and np.isfinite(motion).any():
        cohort["mean_fd"] = motion
    if folder is not None:
        folder.finish(cohort, names, atlas.regions)
    cohort["fmri"] = as_column(cells, cohort.index)
    cohort.attrs["regions"] = atlas.regions
    return cohort


@dataclass(frozen=True)
class _Work:
    """What is done to every scan alike."""

    atlas: Atlas
    cleaning: Cleaning
    strategy: DenoiseStrategy
    resample_to: ResampleTo
    constant_regions: ConstantRegions

    def settings(self, confounds: Any) -> dict[str, Any]:
        """Return what must stay the same for all scans of a folder; JSON."""
        return {
            "atlas": hash_image(self.atlas.image),
            "labels": self.atlas.regions["label"].tolist(),
            "denoise_strategy": self.strategy if isinstance(confounds, str) else None,
            **asdict(self.cleaning),
            "resample_to": self.resample_to,
            "constant_regions": self.constant_regions,
        }

    def read(self, scan: ImageScan) -> np.ndarray:
        """Return the series of a scan, (T, R)."""
        image = open_image(scan.image, caller=CALLER, what=scan.label, n_dims=(4,))
        keep, confounds = scan.keep, None
        if isinstance(scan.confounds, str) and scan.confounds == FMRIPREP:
            confounds, own = load_fmriprep(scan.image, self.strategy, scan.label)
            keep = own if keep is None else keep
        elif scan.confounds is not None:
            confounds = read_table(scan.confounds, scan.label)
        check_length(confounds, image.shape[3], scan.label)
        if keep is not None and len(keep) < 2:
            raise BrainDataError(
                f"{CALLER} needs at least two volumes to keep. Got {len(keep)} of "
                f"{image.shape[3]}, first in {scan.label}. Leave the scan out."
            )
        return extract(
            image,
            self.atlas,
            self.cleaning,
            resample_to=self.resample_to,
            constant_regions=self.constant_regions,
            t_r=scan.t_r,
            confounds=confounds,
            keep=keep,
            label=scan.label,
        )


def _finish(
    work: _Work, scan: ImageScan, folder: ParcellationFolder | None, name: str
) -> np.ndarray | str:
    """Return the series, or the path of the file that holds it."""
    if folder is None:
        return work.read(scan)
    source = describe_source(scan)
    if not folder.has(name, source):
        folder.write(name, work.read(scan), source)
    return str(folder.path(name))


def _check_options(
    confounds: Any,
    strategy: str,
    resample_to: str,
    constant_regions: str,
    t_r: Any,
) -> None:
    if isinstance(confounds, str):
        check_option("confounds", confounds, (FMRIPREP,))
    check_option("denoise_strategy", strategy, STRATEGIES)
    check_option("resample_to", resample_to, ("scan", "atlas"))
    check_option("constant_regions", constant_regions, ("error", "mask"))
    if t_r is not None and not (isinstance(t_r, int | float) and 0 < t_r < np.inf):
        raise ValueError(f"t_r must be a number of seconds above 0. Got {t_r!r}.")


def _check_columns(table: pd.DataFrame, is_written: bool) -> None:
    if "fmri" in table:
        raise BrainDataError(
            f"{CALLER} needs the name 'fmri' for its own column. Got a covariate of "
            "that name. Rename it, or name it with column= if it holds the images."
        )
    if is_written and "sc" in table:
        raise BrainDataError(
            f"{CALLER} needs a table without 'sc' to write a cohort folder. Got a "
            "column 'sc'. Drop it, and assign it to the cohort that comes back."
        )


def _check_filter(scans: Sequence[ImageScan], cleaning: Cleaning) -> None:
    if cleaning.low_pass is None and cleaning.high_pass is None:
        return
    unknown = [scan.label for scan in scans if scan.t_r is None]
    if unknown:
        raise BrainDataError(
            f"{CALLER} needs the seconds between volumes to filter. Got none from the "
            f"sidecar or the header, first in {unknown[0]}. Pass t_r=."
        )
