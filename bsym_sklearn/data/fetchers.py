"""Public cohorts with labels, fetched by nilearn into its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from bsym_sklearn.data.atlas_images import fetch_atlas, no_data_error
from bsym_sklearn.data.checks import ConstantRegions, check_count, check_option
from bsym_sklearn.data.folder import RegionTable, make_cohort_frame
from bsym_sklearn.data.parcellation import parcellate
from bsym_sklearn.exceptions import BrainDataError

PIPELINES = ("ccs", "cpac", "dparsf", "niak")
ABIDE_ATLASES = ("aal", "cc200", "cc400", "dosenbach160", "ez", "ho", "tt")
ABIDE_FOLDER = "ABIDE_pcp"
ABIDE_MISSING = -9999
# Seconds, from the sites' protocols; Leuven's is rounded. Numbered samples of a site
# have the same.
ABIDE_T_R = {
    **dict.fromkeys(("CALTECH", "CMU", "NYU", "SDSU", "STANFORD"), 2.0),
    **dict.fromkeys(("TRINITY", "UM", "USM", "YALE"), 2.0),
    **dict.fromkeys(("KKI", "OHSU"), 2.5),
    **dict.fromkeys(("MAX_MUN", "UCLA"), 3.0),
    **dict.fromkeys(("OLIN", "PITT"), 1.5),
    "LEUVEN": 1.667,
    "SBL": 2.2,
}
DEVELOPMENT_T_R = 2.0
DEVELOPMENT_AGE_GROUPS = ("adult", "both", "child")

ABIDE_NOTE = """

Here: one row per participant. dx, age (years), sex and site are those of the phenotypic
file, mean_fd (mm) is its func_mean_fd. The file has no repetition times; t_r (seconds)
is that of the site's protocol, NaN for unknown sites.
"""
DEVELOPMENT_NOTE = """

Here: averaged over the regions of an atlas by bsym_sklearn.data.parcellate. group is
child or adult, age is in years, mean_fd (mm) is the mean framewise displacement.
"""


def fetch_abide(
    *,
    atlas: str = "cc200",
    pipeline: str = "cpac",
    band_pass_filtering: bool = False,
    global_signal_regression: bool = False,
    quality_checked: bool = True,
    n_subjects: int | None = None,
    regions: pd.DataFrame | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> Bunch:
    """Fetch resting-state series of ABIDE I, with diagnosis and phenotype.

    Wraps ``nilearn.datasets.fetch_abide_pcp``: what is in nilearn's cache is read
    without a network, the rest is downloaded from the Preprocessed Connectomes
    Project, one small file per participant.

    Parameters
    ----------
    atlas : {"aal", "cc200", "cc400", "dosenbach160", "ez", "ho", "tt"}, default="cc200"
        Atlas whose series are read, there called ``rois_cc200`` etc.
    pipeline : {"ccs", "cpac", "dparsf", "niak"}, default="cpac"
        Who preprocessed them.
    band_pass_filtering : bool, default=False
        Whether to read series between 0.01 and 0.1 Hz.
    global_signal_regression : bool, default=False
        Whether to read series without the global signal.
    quality_checked : bool, default=True
        Whether to keep only participants whose scans all raters accepted (871 of 1112).
    n_subjects : int or None, default=None
        Number of participants, from the first on; None takes all.
    regions : DataFrame or None, default=None
        Table of the atlas with columns ``index`` and ``label``, as `load_atlas` gives
        of it. It is matched by the numbers in the files, so that
        ``load_atlas(fetch_atlas_aal("SPM5"))`` names those of ``"aal"``.
    data_dir : path or None, default=None
        Folder of nilearn's data; None is nilearn's own choice.
    verbose : int, default=1
        Whether nilearn says what it downloads.

    Returns
    -------
    cohort : Bunch
        ``data`` : DataFrame with ``participant_id``, ``site``, ``dx`` (``"autism"`` or
        ``"control"``), ``age`` (years), ``sex`` (``"M"`` or ``"F"``), ``mean_fd`` (mm),
        ``t_r`` (seconds, by site) and ``fmri``, float32 arrays of shape
        (n_timepoints, n_regions) ; ``target`` : ndarray of the diagnoses ;
        ``regions`` : DataFrame with ``index`` (number in the files) and ``label``,
        ``"cc200-1"`` etc. where `regions` is None ; ``DESCR`` : str.

    Raises
    ------
    BrainDataError
        If files are neither in the cache nor to be had, or `regions` lacks one of the
        numbers.
    ValueError
        If an option is unknown.

    Notes
    -----
    Some scans have regions outside their view, which are constant: pass
    ``constant_regions="mask"`` to estimators. The two samples of a site (``UM_1``,
    ``UM_2``) are different values of ``site``. The data are for non-commercial
    research.

    References
    ----------
    .. [1] Di Martino et al. (2014). The autism brain imaging data exchange. Molecular
       Psychiatry 19:659.
    .. [2] Craddock et al. (2013). The Neuro Bureau Preprocessing Initiative. Front.
       Neuroinform. Conference Abstract: Neuroinformatics 2013.

    Examples
    --------
    >>> from bsym_sklearn.data.fetchers import fetch_abide
    >>> abide = fetch_abide(atlas="cc200", n_subjects=10)  # doctest: +SKIP
    >>> abide.data["fmri"][0].shape  # doctest: +SKIP
    (196, 200)
    """
    check_option("atlas", atlas, ABIDE_ATLASES)
    check_option("pipeline", pipeline, PIPELINES)
    if n_subjects is not None:
        check_count("n_subjects", n_subjects)
    from nilearn.datasets import fetch_abide_pcp

    derivative = f"rois_{atlas}"
    try:
        fetched = fetch_abide_pcp(
            data_dir=data_dir,
            n_subjects=n_subjects,
            pipeline=pipeline,
            band_pass_filtering=band_pass_filtering,
            global_signal_regression=global_signal_regression,
            derivatives=[derivative],
            quality_checked=quality_checked,
            verbose=verbose,
        )
    except (OSError, ValueError) as error:
        raise no_data_error("fetch_abide", "the files of ABIDE", error) from error
    table = fetched.phenotypic.reset_index(drop=True)
    series = [np.asarray(one, dtype=np.float32) for one in fetched[derivative]]
    strategy = "_".join(
        prefix + name
        for prefix, name in (
            ("" if band_pass_filtering else "no", "filt"),
            ("" if global_signal_regression else "no", "global"),
        )
    )
    first = Path(pipeline, strategy, f"{table['FILE_ID'][0]}_{derivative}.1D")
    numbers = _read_numbers(_find(first, data_dir), series[0].shape[1])
    dx = table["DX_GROUP"].map({1: "autism", 2: "control"})
    known = _abide_regions(numbers, atlas, regions)
    data = make_cohort_frame(
        series,
        ids=table["FILE_ID"].tolist(),
        regions=known,
        site=table["SITE_ID"],
        dx=dx,
        age=_numbers(table["AGE_AT_SCAN"]),
        sex=table["SEX"].map({1: "M", 2: "F"}),
        mean_fd=_numbers(table["func_mean_fd"]),
        t_r=[_abide_t_r(site) for site in table["SITE_ID"]],
    )
    return Bunch(
        data=data,
        target=dx.to_numpy(dtype=object),
        regions=known,
        DESCR=fetched.description + ABIDE_NOTE,
    )


def fetch_development_fmri(
    atlas_img: Any = "msdl",
    *,
    n_subjects: int | None = None,
    age_group: Literal["adult", "both", "child"] = "both",
    labels: Sequence[str] | pd.DataFrame | None = None,
    confounds: bool = True,
    low_pass: float | None = None,
    high_pass: float | None = None,
    smoothing_fwhm: float | None = None,
    detrend: bool = True,
    constant_regions: ConstantRegions = "error",
    n_jobs: int | None = None,
    out_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> Bunch:
    """Fetch fMRI of 155 children and adults who watched a film, by region.

    Wraps ``nilearn.datasets.fetch_development_fmri`` (4 mm voxels in MNI space) and
    `parcellate`. What is in nilearn's cache is read without a network.

    Parameters
    ----------
    atlas_img : str, path, image or Bunch, default="msdl"
        Atlas in any form that `load_atlas` knows, with an image. Regions must not be
        small against 4 mm: of finer ones some have no voxels.
    n_subjects : int or None, default=None
        Number of participants, children and adults in the share of all; None takes all.
    age_group : {"adult", "both", "child"}, default="both"
        Who.
    labels : sequence of str, DataFrame or None, default=None
        Labels of the regions; see `load_atlas`.
    confounds : bool, default=True
        Whether to regress out nilearn's selection of confounds: six motion parameters,
        framewise displacement, white matter, CSF and six components of aCompCor.
    low_pass, high_pass, smoothing_fwhm, detrend, constant_regions, n_jobs, out_dir
        See `parcellate`.
    data_dir : path or None, default=None
        Folder of nilearn's data; None is nilearn's own choice.
    verbose : int, default=1
        Whether nilearn says what it downloads.

    Returns
    -------
    cohort : Bunch
        ``data`` : DataFrame with ``participant_id``, ``age`` (years), ``age_group``
        (such as ``"4yo"``), ``group`` (``"child"`` or ``"adult"``), ``sex``,
        ``handedness``, ``t_r`` (2 s), ``mean_fd`` (mm) and ``fmri`` ; ``target`` :
        ndarray of ``group`` ; ``regions`` : DataFrame ; ``DESCR`` : str.

    Raises
    ------
    BrainDataError
        If files are neither in the cache nor to be had, or see `parcellate`.
    ValueError
        If an option is unknown.

    References
    ----------
    .. [1] Richardson et al. (2018). Development of the social brain from age three to
       twelve years. Nature Communications 9:1027.

    Examples
    --------
    >>> from bsym_sklearn.data.fetchers import fetch_development_fmri
    >>> movie = fetch_development_fmri("msdl", n_subjects=10)  # doctest: +SKIP
    >>> movie.data["fmri"][0].shape  # doctest: +SKIP
    (168, 39)
    """
    check_option("age_group", age_group, DEVELOPMENT_AGE_GROUPS)
    if n_subjects is not None:
        check_count("n_subjects", n_subjects)
    from nilearn import datasets

    caller = "fetch_development_fmri"
    try:
        fetched = datasets.fetch_development_fmri(
            n_subjects=n_subjects,
            data_dir=data_dir,
            age_group=age_group,
            verbose=verbose,
        )
    except (OSError, ValueError) as error:
        raise no_data_error(caller, "its files", error) from error
    table = fetched.phenotypic.reset_index(drop=True).rename(
        columns={
            "Age": "age",
            "AgeGroup": "age_group",
            "Child_Adult": "group",
            "Gender": "sex",
            "Handedness": "handedness",
        }
    )
    data = parcellate(
        fetched.func,
        fetch_atlas(atlas_img, data_dir, caller),
        participants=table,
        labels=labels,
        confounds=fetched.confounds if confounds else None,
        t_r=DEVELOPMENT_T_R,
        low_pass=low_pass,
        high_pass=high_pass,
        smoothing_fwhm=smoothing_fwhm,
        detrend=detrend,
        constant_regions=constant_regions,
        n_jobs=n_jobs,
        out_dir=out_dir,
    )
    return Bunch(
        data=data,
        target=table["group"].to_numpy(dtype=object),
        regions=data.attrs["regions"],
        DESCR=fetched.description + DEVELOPMENT_NOTE,
    )


def _find(file: Path, data_dir: str | os.PathLike[str] | None) -> Path:
    """Return a file of ABIDE where nilearn found it: in the first folder there is."""
    from nilearn.datasets import get_data_dirs

    folders = [Path(folder, ABIDE_FOLDER) for folder in get_data_dirs(data_dir)]
    return next(folder for folder in folders if folder.is_dir()) / file


def _read_numbers(path: Path, n_regions: int) -> list[int]:
    """Return the number of each column, by the header "#2001 #2002 ..." if it fits."""
    with path.open(encoding="utf-8", errors="replace") as file:
        numbers = [int(number) for number in re.findall(r"#\s*(\d+)", file.readline())]
    fits = len(set(numbers)) == len(numbers) == n_regions
    return numbers if fits else list(range(1, n_regions + 1))


def _abide_regions(
    numbers: list[int], atlas: str, regions: pd.DataFrame | None
) -> RegionTable:
    if regions is None:
        labels = [f"{atlas}-{number}" for number in numbers]
        return RegionTable({"index": numbers, "label": labels})
    if not {"index", "label"} <= set(regions):
        raise BrainDataError(
            "fetch_abide needs the columns 'index' and 'label' in regions. Got "
            f"{list(regions)}. Pass what load_atlas returns."
        )
    table = regions.drop_duplicates("index").set_index("index")
    unknown = [number for number in numbers if number not in table.index]
    if unknown:
        raise BrainDataError(
            f"fetch_abide needs a row of regions for every region of the files. Got "
            f"none for the numbers {unknown[:3]} ({len(unknown)} of {len(numbers)} are "
            f"missing). Pass the table of {atlas!r}, or regions=None."
        )
    return RegionTable(table.loc[numbers].rename_axis("index").reset_index())


def _abide_t_r(site: str) -> float:
    return ABIDE_T_R.get(re.sub(r"_\d+$", "", str(site).upper()), np.nan)


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.where(numbers != ABIDE_MISSING)
