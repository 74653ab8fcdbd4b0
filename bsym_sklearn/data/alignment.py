"""Regions of a cohort brought into another order, by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from bsym_sklearn.data.atlases import region_labels
from bsym_sklearn.data.checks import ScanChecks, check_option
from bsym_sklearn.data.containers import MODALITIES, replace_cells, unpack
from bsym_sklearn.data.folder import RegionTable
from bsym_sklearn.data.recording import make_recording
from bsym_sklearn.exceptions import BrainDataError

CALLER = "align_regions"
N_SHOWN = 3


def align_regions(
    X: Any,
    from_labels: Sequence[str] | pd.DataFrame | None,
    to_labels: Sequence[str] | pd.DataFrame,
    *,
    missing: Literal["raise", "nan"] = "raise",
) -> Any:
    """Select and re-order the regions of a cohort by label.

    Use it to bring cohorts of one atlas into one order, e.g. before a model that was
    trained elsewhere is applied.

    Parameters
    ----------
    X : DataFrame, list, tuple, Series, ndarray, Tensor or SliceDict
        Scans in any form that `check_cohort` accepts, except a 2-D table. Cells of
        ``sc`` get their rows and columns in the new order.
    from_labels : sequence of str, DataFrame or None
        Labels of the regions of X, or a table with a column ``label``. None takes
        ``X.attrs["regions"]``.
    to_labels : sequence of str or DataFrame
        Labels wanted, in their order; those of X that are not among them are left
        out. A table becomes the new ``attrs["regions"]``.
    missing : {"raise", "nan"}, default="raise"
        What to do with wanted labels that X lacks: raise, or put NaN there. Estimators
        refuse NaN: nothing is filled in silently.

    Returns
    -------
    aligned : as X
        A new cohort. Cells are arrays, also where X has paths; if the labels are
        already in order, X itself comes back and paths stay unopened.

    Raises
    ------
    BrainDataError
        If a label is wanted that X lacks, a label occurs twice, or a scan has another
        number of regions than `from_labels`.
    ValueError
        If `missing` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data.alignment import align_regions
    >>> X = [np.array([[1, 2, 3], [4, 5, 6]])]
    >>> align_regions(X, ["a", "b", "c"], ["c", "a"])[0].tolist()
    [[3.0, 1.0], [6.0, 4.0]]
    """
    check_option("missing", missing, ("raise", "nan"))
    attrs = X.attrs if isinstance(X, pd.DataFrame) else {}
    given = attrs.get("regions") if from_labels is None else from_labels
    source = region_labels(given, "from_labels", CALLER)
    target = region_labels(to_labels, "to_labels", CALLER)
    if source == target:
        return X
    places = {label: i for i, label in enumerate(source)}
    absent = [label for label in target if label not in places]
    if absent and (missing == "raise" or len(absent) == len(target)):
        raise BrainDataError(
            f"{CALLER} needs every wanted region in X. Got none of the label "
            f"{', '.join(map(repr, absent[:N_SHOWN]))} ({len(absent)} of {len(target)} "
            "are missing). Leave them out of to_labels, or check that both are labels "
            "of one atlas."
        )
    order = np.array([places.get(label, -1) for label in target])
    columns = unpack(X, caller=CALLER)
    aligned = X
    for modality in MODALITIES:
        cells = getattr(columns, modality)
        if any(cell is not None for cell in cells):
            moved = [
                _move(cell, modality, f"scan {i}", order, len(source))
                for i, cell in enumerate(cells)
            ]
            aligned = replace_cells(aligned, moved, column=modality)
    if isinstance(aligned, pd.DataFrame):
        aligned.attrs = {**attrs, "regions": _move_table(given, source, to_labels)}
    return aligned


def _move(
    cell: Any, modality: str, label: str, order: np.ndarray, n_regions: int
) -> np.ndarray | None:
    """Return the values with regions in the new order, NaN where order is -1."""
    checks = ScanChecks(CALLER, constant_regions="mask", symmetric_sc="allow")
    recording = make_recording(cell, modality, label, checks)
    if recording is None:
        return None
    if recording.shape[1] != n_regions:
        raise BrainDataError(
            f"{CALLER} needs one label per region in from_labels. Got {n_regions} "
            f"labels for {recording.shape[1]} regions in {modality!r}, first in "
            f"{label}. Pass the labels of the atlas that X has."
        )
    values = recording.read(None)
    moved = values[:, order]
    moved[:, order < 0] = np.nan
    if modality == "sc":
        moved = moved[order]
        moved[order < 0] = np.nan
    return moved


def _move_table(given: Any, source: tuple[str, ...], wanted: Any) -> RegionTable:
    """Return the table of the regions wanted: theirs, or the rows that X has."""
    if isinstance(wanted, pd.DataFrame):
        return RegionTable(wanted)
    if not isinstance(given, pd.DataFrame):
        return RegionTable({"label": list(wanted)})
    rows = given.set_axis(list(source), axis=0).reindex(list(wanted))
    return RegionTable(rows.assign(label=list(wanted)).reset_index(drop=True))
