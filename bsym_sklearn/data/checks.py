"""What the values and the shapes of a cohort must satisfy, and the errors that say so.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import check_array, column_or_1d

from bsym_sklearn.exceptions import BrainDataError

ConstantRegions = Literal["error", "mask"]
SymmetricSC = Literal["require", "allow"]

# A region that moves less than this share of the largest value of its scan is
# rounding noise around a constant (a demeaned constant is not exactly 0).
CONSTANT_TOLERANCE = 1e-9
# Largest difference between the halves of an SC matrix, relative to its largest weight.
SYMMETRY_TOLERANCE = 1e-5
N_SHOWN = 5


@dataclass(frozen=True)
class ScanChecks:
    """The policies under which the values of a scan are accepted."""

    caller: str
    constant_regions: ConstantRegions = "error"
    symmetric_sc: SymmetricSC = "require"


@dataclass(frozen=True)
class ScanShape:
    """One scan's shape in one modality, and the words that name the scan."""

    modality: str
    shape: tuple[int, ...]
    label: str
    regions: tuple[str, ...] | None = None  # as the columns are called, if they are


def check_option(name: str, value: object, options: tuple[object, ...]) -> None:
    """Raise if a parameter is none of its options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {options}. Got {value!r}.")


def check_count(name: str, value: Any, *, lowest: int = 1) -> int:
    """Return a whole number, or raise if it is none or too small."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise ValueError(f"{name} must be a whole number >= {lowest}. Got {value!r}.")
    return int(value)


def find_constant_regions(values: np.ndarray) -> np.ndarray:
    """Say which regions never change within a scan.

    A region is constant when its range is at most 1e-9 of the largest absolute
    value of the scan. Nothing is constant in a scan of one time point.

    Parameters
    ----------
    values : ndarray of shape (n_timepoints, n_regions)
        One scan.

    Returns
    -------
    constant : ndarray of bool of shape (n_regions,)
        True where the region is constant.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import find_constant_regions
    >>> find_constant_regions(np.array([[1.0, 5.0], [2.0, 5.0], [0.0, 5.0]]))
    array([False,  True])
    """
    if values.shape[0] < 2:
        return np.zeros(values.shape[1], dtype=bool)
    # Only the extremes are converted: float16 and integers overflow when subtracted.
    highest = values.max(axis=0).astype(np.float64)
    lowest = values.min(axis=0).astype(np.float64)
    largest = max(np.abs(highest).max(), np.abs(lowest).max())
    return (highest - lowest) <= CONSTANT_TOLERANCE * largest


def as_real_array(
    cell: Any, *, caller: str, modality: str, label: str, n_dims: int = 2
) -> np.ndarray:
    """Return a cell as an array of real numbers, without copying where possible."""
    try:
        values = np.asarray(cell)
        if values.dtype == object:
            values = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BrainDataError(
            f"{caller} needs a {n_dims}-D array of numbers in every {modality!r} cell. "
            f"Got {type(cell).__name__} that cannot be read as numbers ({error}), "
            f"first in {label}. Pass an array, a path to a file or None."
        ) from error
    if values.dtype.kind not in "biuf":
        raise BrainDataError(
            f"{caller} needs real numbers in {modality!r}. Got dtype {values.dtype}, "
            f"first in {label}. Convert the values to float first."
        )
    if values.ndim != n_dims:
        raise BrainDataError(
            f"{caller} needs a {n_dims}-D array in every {modality!r} cell. Got shape "
            f"{values.shape}, first in {label}. {_expected_layout(modality)}"
        )
    return values


def check_values(
    values: np.ndarray, modality: str, label: str, checks: ScanChecks
) -> None:
    """Raise if the values of one scan cannot be used (shapes are checked before)."""
    _check_finite(values, modality, label, checks.caller)
    if modality == "sc":
        _check_connectome(values, label, checks)
    elif checks.constant_regions == "error":
        _check_varies(values, label, checks.caller)


def check_shapes(
    scans: Sequence[ScanShape],
    *,
    caller: str,
    min_timepoints: int,
    n_regions: int | None,
) -> int:
    """Return the number of regions that all scans share, or raise."""
    _check_square(scans, caller)
    expected = n_regions if n_regions is not None else _common_n_regions(scans)
    _check_orientation(scans, caller, expected, fitted=n_regions is not None)
    for scan in scans:
        if scan.shape[1] != expected:
            raise BrainDataError(_region_count_text(scan, scans, caller, n_regions))
    for scan in scans:
        if scan.modality == "fmri" and scan.shape[0] < min_timepoints:
            raise BrainDataError(
                f"{caller} needs at least {min_timepoints} time points in every scan. "
                f"Got {scan.shape[0]}, first in {scan.label}. Leave the scan out."
            )
    if expected == 0:
        raise BrainDataError(
            f"{caller} needs at least one region. Got shape {scans[0].shape}, first in "
            f"{scans[0].label}. Check how the regions were extracted."
        )
    return expected


def check_region_order(
    scans: Sequence[ScanShape], regions: pd.DataFrame | None, caller: str
) -> None:
    """Raise if the names of the same regions come in another order."""
    named = [(scan, scan.regions) for scan in scans if scan.regions is not None]
    if not named:
        return
    known = named[0][1]
    if regions is not None and "label" in regions:
        known = tuple(regions["label"].astype(str))
    for scan, names in named:
        if names != known and sorted(names) == sorted(known):
            place = [a == b for a, b in zip(names, known, strict=True)].index(False)
            raise BrainDataError(
                f"{caller} needs the regions in the same order in every scan. Got "
                f"{names[place]!r} instead of {known[place]!r} as region "
                f"{place} of {scan.modality!r}, first in {scan.label}. Bring them into "
                "one order with align_regions."
            )


def _expected_layout(modality: str) -> str:
    if modality == "sc":
        return "Pass one (n_regions, n_regions) matrix per scan."
    return "Pass one (n_timepoints, n_regions) array per scan."


def _check_finite(values: np.ndarray, modality: str, label: str, caller: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        row, region = np.argwhere(~finite)[0]
        where = "region" if modality == "sc" else "time point"
        raise BrainDataError(
            f"{caller} needs finite values in {modality!r}. Got NaN or infinity at "
            f"{where} {row}, region {region}, first in {label}. Interpolate or leave "
            "out what is missing."
        )
    largest = np.finfo(np.float32).max
    if values.dtype.kind == "f" and values.size and np.abs(values).max() > largest:
        raise BrainDataError(
            f"{caller} needs values that fit into float32 in {modality!r}. Got "
            f"{np.abs(values).max():.3g}, first in {label}. Rescale the data."
        )


def _check_varies(values: np.ndarray, label: str, caller: str) -> None:
    constant = np.flatnonzero(find_constant_regions(values))
    if len(constant):
        raise BrainDataError(
            f"{caller} needs regions that vary over time. Got constant region"
            f"{'s' if len(constant) > 1 else ''} {_some(constant)}, first in {label}. "
            "Leave out the regions or the scan, or set constant_regions='mask'."
        )


def _check_connectome(values: np.ndarray, label: str, checks: ScanChecks) -> None:
    weights = values.astype(np.float64)
    largest = np.abs(weights).max()
    difference = np.abs(weights - weights.T)
    is_symmetric = difference.max() <= SYMMETRY_TOLERANCE * largest
    if checks.symmetric_sc == "require" and not is_symmetric:
        row, column = np.unravel_index(difference.argmax(), difference.shape)
        raise BrainDataError(
            f"{checks.caller} needs symmetric matrices in 'sc'. Got "
            f"{weights[row, column]:.6g} at ({row}, {column}) and "
            f"{weights[column, row]:.6g} at ({column}, {row}), first in {label}. "
            "Symmetrise them with ConnectomeScaler(symmetrize='mean')."
        )
    connections = weights - np.diag(np.diag(weights)) if len(weights) > 1 else weights
    if not connections.any():
        raise BrainDataError(
            f"{checks.caller} needs at least one connection in every 'sc' matrix. Got "
            f"zeros only, first in {label}. Set the cell to None if the connectome is "
            "missing."
        )


def _common_n_regions(scans: Sequence[ScanShape]) -> int:
    """Return the most frequent number of regions; connectomes, if any, decide."""
    sizes = [s.shape[1] for s in scans if s.modality == "sc"]
    sizes = sizes or [s.shape[1] for s in scans]
    return Counter(sizes).most_common(1)[0][0]


def _check_orientation(
    scans: Sequence[ScanShape], caller: str, n_regions: int, *, fitted: bool
) -> None:
    """Raise if one scan, or all of them, are (n_regions, n_timepoints)."""
    fmri = [s for s in scans if s.modality == "fmri"]
    nothing_tells = not fitted and len(fmri) == len(scans)
    all_transposed = nothing_tells and _look_transposed([s.shape for s in fmri])
    for scan in fmri:
        one_transposed = scan.shape[0] == n_regions and scan.shape[1] != n_regions
        if one_transposed or all_transposed:
            raise BrainDataError(
                f"{caller} needs (n_timepoints, n_regions) arrays in 'fmri'. Got shape "
                f"{scan.shape}, which looks transposed, first in {scan.label}. Pass "
                "the transpose (x.T)."
            )


def _look_transposed(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Say if the short side is the same in all scans and the long one is not.

    The number of regions is what scans of one atlas share. That there are more
    regions than time points says nothing: 450 regions and 200 time points are usual.
    """
    n_rows = {rows for rows, _ in shapes}
    n_columns = {columns for _, columns in shapes}
    return len(n_rows) == 1 and len(n_columns) > 1 and 1 < max(n_rows) < min(n_columns)


def _check_square(scans: Sequence[ScanShape], caller: str) -> None:
    for scan in scans:
        if scan.modality == "sc" and scan.shape[0] != scan.shape[1]:
            raise BrainDataError(
                f"{caller} needs square matrices in 'sc'. Got shape {scan.shape}, "
                f"first in {scan.label}. {_expected_layout('sc')}"
            )


def _region_count_text(
    scan: ScanShape, scans: Sequence[ScanShape], caller: str, n_regions: int | None
) -> str:
    got = f"Got {scan.shape[1]} regions in {scan.modality!r}"
    advice = "Use one atlas for all scans and both modalities."
    if n_regions is not None:
        return (
            f"{caller} needs scans of {n_regions} regions, as in fit. {got}, first in "
            f"{scan.label}. {advice}"
        )
    other = next(s for s in scans if s.shape[1] != scan.shape[1])
    return (
        f"{caller} needs the same number of regions in every scan. {got} and "
        f"{other.shape[1]} in {other.modality!r} of {other.label}, first in "
        f"{scan.label}. {advice}"
    )


def _some(numbers: np.ndarray) -> str:
    """Write the first few numbers."""
    text = ", ".join(str(number) for number in numbers[:N_SHOWN])
    return text if len(numbers) <= N_SHOWN else f"{text} and {len(numbers)} in all"


def check_target(y: Any, n_scans: int, estimator: Any) -> np.ndarray:
    """Return `y` as one finite value per scan.

    Parameters
    ----------
    y : array-like of shape (n_scans,)
        Class labels or numbers.
    n_scans : int
        Scans that it belongs to.
    estimator : estimator
        Who asks, for the messages.

    Returns
    -------
    ndarray of shape (n_scans,)

    Raises
    ------
    ValueError
        If `y` is None or cannot be a target.
    BrainDataError
        If a scan has no target, or there is another number of them.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> check_target(["a", "b"], 2, DummyClassifier()).tolist()
    ['a', 'b']
    """
    who = type(estimator).__name__
    if y is None:
        raise ValueError(
            f"{who} requires y to be passed, but the target y is None. Pass one target "
            "per scan."
        )
    values = np.asarray(y)
    if values.dtype == object and pd.isna(values).any():  # check_array finds other NaN
        raise BrainDataError(
            f"{who} needs a target for every scan. Got none, first in scan "
            f"{int(pd.isna(values).argmax())}. Leave the scan out."
        )
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y", estimator=estimator)
    y = column_or_1d(y, warn=True)
    if len(y) != n_scans:
        raise BrainDataError(
            f"{who} needs one target per scan. Got inconsistent numbers: {n_scans} "
            f"scans and {len(y)} targets. Select the same rows of both."
        )
    return y
