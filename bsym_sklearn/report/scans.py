"""The scans of a page: read once, counted and hashed; the unusable ones set aside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing, indexable

from bsym_sklearn.analysis.fitted import parts_of
from bsym_sklearn.data.checks import find_constant_regions
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.estimators.covariates import covariates
from bsym_sklearn.exceptions import BrainDataError

WHO = "make_report"
GROUP_COLUMN = "participant_id"
SITE_COLUMNS = ("site", "scanner", "center", "centre", "source")
MOTION_COLUMNS = ("mean_fd", "fd_mean", "mean_framewise_displacement", "motion")


@dataclass(frozen=True)
class Scans:
    """The scans that a model can use, and why it cannot use the others.

    Attributes
    ----------
    X : cohort of n scans
        As the user gave it, without the refused rows.
    y : ndarray of shape (n,) or None
        Their targets.
    cohort : Cohort
        The same scans, validated.
    table : DataFrame of shape (n, ...)
        Per scan: ``scan`` (row number), ``participant`` (or None), ``time points``,
        ``minutes`` (NaN if the repetition time is not known), ``fmri`` and ``sc``
        (whether there), ``constant regions``, ``content`` (hash of the values).
    covariates : DataFrame of shape (n, ...)
        All columns beside the scans.
    refused : DataFrame
        ``scan``, ``participant`` and ``reason`` of the rows left out.
    """

    X: Any
    y: np.ndarray | None
    cohort: Cohort
    table: pd.DataFrame
    covariates: pd.DataFrame
    refused: pd.DataFrame

    def __len__(self) -> int:
        return len(self.cohort)

    @property
    def content(self) -> str:
        """SHA-256 of the values of all scans, in their order."""
        return hashlib.sha256("".join(self.table["content"]).encode()).hexdigest()

    @property
    def site_column(self) -> str | None:
        """The column of the site, if one of the usual names is there."""
        return next((name for name in SITE_COLUMNS if name in self.covariates), None)

    @property
    def motion_column(self) -> str | None:
        """The column of the motion (mm), if one of the usual names is there."""
        return next((name for name in MOTION_COLUMNS if name in self.covariates), None)

    def names(self) -> list[str]:
        """Return what to call each scan: its number, and its participant if known."""
        pairs = zip(self.table["scan"], self.table["participant"], strict=True)
        return [f"{i}" if who is None else f"{i} ({who})" for i, who in pairs]

    def take(self, rows: np.ndarray) -> Any:
        """Return rows of X, in the form that the user gave it."""
        return take_rows(self.X, rows)


def read_scans(X: Any, y: ArrayLike | None, estimator: Any) -> Scans:
    """Read all scans, and set those aside that the model cannot use.

    Parameters
    ----------
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    y : array-like of shape (n,) or None
        Targets.
    estimator : estimator
        Fitted; its `constant_regions`, `t_r` and `group_column` count, if it has them.

    Returns
    -------
    Scans

    Raises
    ------
    BrainDataError
        If no scan can be used, or `y` has another length.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=4, n_regions=3, missing_sc=0.5)
    >>> scans = read_scans(cohort.data, cohort.target, FeatureClassifier())
    >>> len(scans), int(scans.table["sc"].sum()), scans.site_column
    (4, 2, 'site')
    """
    rows, reasons = _usable_rows(X)
    cohort = check_cohort(take_rows(X, rows), caller=WHO, constant_regions="mask")
    n = len(rows) + len(reasons)
    targets = None if y is None else np.asarray(y)
    if targets is not None and targets.shape != (n,):
        raise BrainDataError(
            f"{WHO} needs one target per scan. Got y of shape {targets.shape} for {n} "
            "scans. Select the same rows of both."
        )
    refuses = "error" in set(_settings(estimator, "constant_regions"))
    found: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        try:
            found.append({"scan": row, **_read(cohort, i, refuses)})
        except BrainDataError as error:
            reasons[int(row)] = str(error)
    if not found:
        raise BrainDataError(next(iter(reasons.values())))
    used = np.array([one["scan"] for one in found])
    kept = cohort.take(np.isin(rows, used))
    beside = covariates(kept).reset_index(drop=True)
    table = pd.DataFrame(found)
    table.insert(1, "participant", _participants(beside, len(used), estimator))
    seconds = _repetition_times(beside, estimator, len(used))
    table.insert(3, "minutes", table["time points"] * seconds / 60)
    everyone = _participants(covariates(X), n, estimator)
    refused = [
        {"scan": row, "participant": everyone[row], "reason": reasons[row]}
        for row in sorted(reasons)
    ]
    return Scans(
        X=take_rows(X, used),
        y=None if targets is None else targets[used],
        cohort=kept,
        table=table,
        covariates=beside,
        refused=pd.DataFrame(refused, columns=["scan", "participant", "reason"]),
    )


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Return rows of a cohort in any form.

    Examples
    --------
    >>> take_rows([10, 11, 12], np.array([2, 0]))
    [12, 10]
    """
    if isinstance(X, Cohort):
        return X.take(rows)
    return _safe_indexing(*indexable(X), rows)


def group_column(estimator: Any) -> str:
    """Return the column that names the participant.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> group_column(DummyClassifier())
    'participant_id'
    """
    return next(iter(_settings(estimator, "group_column")), GROUP_COLUMN)


def _usable_rows(X: Any) -> tuple[np.ndarray, dict[int, str]]:
    """Return the rows that can be checked, and what is wrong with the others."""
    try:
        cohort = check_cohort(X, caller=WHO, constant_regions="mask")
    except BrainDataError as error:
        whole = error
    else:
        return np.arange(len(cohort)), {}
    rows: list[int] = []
    reasons: dict[int, str] = {}
    for i in range(len(indexable(X)[0])):
        try:
            check_cohort(
                take_rows(X, np.array([i])), caller=WHO, constant_regions="mask"
            )
        except BrainDataError as error:
            reasons[i] = str(error).replace("first in scan 0", f"in scan {i}")
        else:
            rows.append(i)
    if not rows or not reasons:  # nothing is left, or the scans do not fit together
        raise whole
    return np.array(rows), reasons


def _read(cohort: Cohort, i: int, refuses_constant: bool) -> dict[str, Any]:
    """Return what is known of a scan once its values are read."""
    digest = hashlib.sha256()
    n_constant = 0
    if cohort.fmri[i] is not None:
        series = cohort.read_fmri(i, None)
        n_constant = int(find_constant_regions(series).sum())
        _update(digest, series)
    if refuses_constant and n_constant:
        raise BrainDataError(
            f"{n_constant} of {cohort.n_regions} regions never change, which this "
            "model refuses (constant_regions='error')."
        )
    if cohort.sc[i] is not None:
        _update(digest, cohort.read_sc(i, None))
    return {
        "time points": int(cohort.n_timepoints[i]),
        "fmri": cohort.fmri[i] is not None,
        "sc": cohort.sc[i] is not None,
        "constant regions": n_constant,
        "content": digest.hexdigest(),
    }


def _update(digest: Any, values: np.ndarray) -> None:
    """Add an array to a hash, by shape, type and values."""
    digest.update(f"{values.shape}{values.dtype.str}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())


def _participants(table: pd.DataFrame, n: int, estimator: Any) -> list[str | None]:
    """Return the participant of each scan, None where it is not known."""
    column = group_column(estimator)
    if column not in table:
        return [None] * n
    return [None if pd.isna(name) else str(name) for name in table[column]]


def _repetition_times(table: pd.DataFrame, estimator: Any, n: int) -> np.ndarray:
    """Return seconds between time points, NaN where not known."""
    given = next((x for x in _settings(estimator, "t_r") if x is not None), "t_r")
    if not isinstance(given, str):
        return np.full(n, float(given))
    if given not in table:
        return np.full(n, np.nan)
    return pd.to_numeric(table[given], errors="coerce").to_numpy(float)


def _settings(estimator: Any, name: str) -> list[Any]:
    """Return a parameter of all parts of a model that have it."""
    return [getattr(part, name) for part in parts_of(estimator) if hasattr(part, name)]
