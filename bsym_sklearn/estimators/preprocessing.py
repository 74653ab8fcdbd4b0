"""What is fitted on training scans before a model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.positions import GradientCoordinates
from bsym_sklearn.data.scaling import ConnectomeScaler, RegionScaler
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.training.scans import ScanReader

MAX_WINDOW = 200  # time points; the published window
STANDARDIZE: dict[str, tuple[Any, Any]] = {  # method and reach of RegionScaler
    "zscore": ("zscore", "scan"),
    "robust": ("robust", "scan"),
    "cohort_zscore": ("zscore", "cohort"),
    "cohort_robust": ("robust", "cohort"),
}
SC_SCALING = ("log", "linear")


@dataclass
class Preprocessing:
    """Window, repetition time and scalers, as fitted on the training scans.

    Parameters
    ----------
    modalities : tuple of {"fmri", "sc"}
        What the model reads.
    window : int
        Time points T that the model sees at once.
    t_r : float or None
        Repetition time of the model, in seconds, if known.
    fmri_scaler, sc_scaler : transformer or None
        Fitted.
    coordinates : ndarray of shape (n_regions, n_gradients) or None
        Fitted gradients.
    """

    modalities: tuple[str, ...]
    window: int
    t_r: float | None = None
    fmri_scaler: RegionScaler | None = None
    sc_scaler: ConnectomeScaler | None = None
    coordinates: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def fit(
        cls,
        cohort: Cohort,
        *,
        modalities: tuple[str, ...],
        window: int | None,
        t_r: float | str | None,
        standardize: str | None,
        sc_scaling: str | None,
        n_gradients: int | None,
    ) -> Preprocessing:
        """Fit on the scans of `cohort`, the training scans only.

        Parameters
        ----------
        cohort : Cohort
            Training scans.
        modalities : tuple of {"fmri", "sc"}
            What the model reads.
        window : int or None
            None takes the longest scan, at most 200 time points.
        t_r : float, str or None
            Repetition time in seconds, or the column that holds it. The model's
            own is the median; other scans are resampled to it.
        standardize : {"zscore", "robust", "cohort_zscore", "cohort_robust"} or None
            Scaling of the series.
        sc_scaling : {"log", "linear"} or None
            Scaling of the connectomes.
        n_gradients : int or None
            Gradients to fit, None for none.

        Returns
        -------
        Preprocessing
        """
        has_fmri, has_sc = "fmri" in modalities, "sc" in modalities
        fitted = cls(modalities, window=1)
        scan_t_r = repetition_times(cohort, t_r)
        if has_fmri and scan_t_r is not None:
            known = scan_t_r[cohort.n_timepoints > 0]
            fitted.t_r = float(np.median(known)) if len(known) else None
        if has_fmri and standardize is not None:
            method, per = STANDARDIZE[standardize]
            if cohort.is_table:  # one time point has no spread of its own
                per = "cohort"
            fitted.fmri_scaler = RegionScaler(
                method=method, per=per, constant_regions=cohort.constant_regions
            ).fit(cohort)
        if has_sc and sc_scaling is not None:
            scaler = ConnectomeScaler(method=cast(Any, sc_scaling))
            fitted.sc_scaler = scaler.fit(cohort)
        if has_fmri and n_gradients is not None:
            gradients = GradientCoordinates(n_components=n_gradients).fit(cohort)
            fitted.coordinates = gradients.coordinates_
        lengths = fitted.reader(cohort, scan_t_r).lengths
        longest = max(int(lengths.max()), 1)
        fitted.window = min(longest, MAX_WINDOW) if window is None else window
        return fitted

    def reader(
        self, cohort: Cohort, t_r: np.ndarray | None, dtype: Any = np.float32
    ) -> ScanReader:
        """Return a reader of the scaled scans of `cohort`."""
        return ScanReader(
            cohort,
            self.fmri_scaler,
            self.sc_scaler,
            self.modalities,
            t_r=None if self.t_r is None else t_r,
            model_t_r=self.t_r,
            dtype=dtype,
        )

    def config(self) -> dict[str, Any]:
        """Return what JSON can hold, for :meth:`restore`."""
        return {
            "modalities": list(self.modalities),
            "window": self.window,
            "t_r": self.t_r,
            "fmri_scaler": _scaler_config(self.fmri_scaler),
            "sc_scaler": _scaler_config(self.sc_scaler),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays, for :meth:`restore`."""
        arrays: dict[str, Any] = {"coordinates": self.coordinates}
        for name in ("fmri_scaler", "sc_scaler"):
            scaler = getattr(self, name)
            for key, value in _fitted(scaler).items():
                arrays[f"{name}.{key}"] = value
        return {
            key: torch.from_numpy(np.array(value, dtype=np.float64))
            for key, value in arrays.items()
            if value is not None
        }

    @classmethod
    def restore(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Preprocessing:
        """Rebuild from :meth:`config` and :meth:`tensors`."""
        arrays = {name: value.numpy() for name, value in tensors.items()}
        scalers: dict[str, Any] = {}
        for name, kind in (
            ("fmri_scaler", RegionScaler),
            ("sc_scaler", ConnectomeScaler),
        ):
            scalers[name] = None
            if config[name] is not None:
                scaler = kind(**config[name]["params"])
                scaler.n_features_in_ = config[name]["n_features_in"]
                for key, value in arrays.items():
                    if key.startswith(f"{name}."):
                        fitted = value if value.ndim else float(value)
                        setattr(scaler, key.partition(".")[2], fitted)
                scalers[name] = scaler
        return cls(
            modalities=tuple(config["modalities"]),
            window=config["window"],
            t_r=config["t_r"],
            coordinates=arrays.get("coordinates"),
            **scalers,
        )


def repetition_times(cohort: Cohort, t_r: float | str | None) -> np.ndarray | None:
    """Return the repetition time of each scan, in seconds, or None.

    Parameters
    ----------
    cohort : Cohort
        Scans.
    t_r : float, str or None
        One for all, or the column of covariates that holds it.

    Returns
    -------
    ndarray of shape (n_scans,) or None

    Raises
    ------
    BrainDataError
        If the column is missing or holds anything but positive numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort
    >>> rng = np.random.default_rng(0)
    >>> repetition_times(check_cohort(rng.standard_normal((2, 9, 3))), 2.0)
    array([2., 2.])
    """
    if t_r is None:
        return None
    if not isinstance(t_r, str):
        return np.full(len(cohort), float(t_r))
    if cohort.covariates is None or t_r not in cohort.covariates:
        raise BrainDataError(
            f"`t_r={t_r!r}` needs a column of that name, in seconds. Got "
            f"{[] if cohort.covariates is None else list(cohort.covariates)}. Add the "
            "column or pass a number."
        )
    seconds = pd.to_numeric(cohort.covariates[t_r], errors="coerce").to_numpy(float)
    bad = ~(seconds > 0) & (cohort.n_timepoints > 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise BrainDataError(
            f"Column {t_r!r} needs repetition times in seconds, above 0. Got "
            f"{cohort.covariates[t_r].iloc[first]}, first in scan {first}. Correct "
            "it or leave the scan out."
        )
    return np.where(seconds > 0, seconds, 1.0)  # rows without fmri need none


def _fitted(scaler: Any) -> dict[str, Any]:
    """Return the fitted numbers of a scaler but its size."""
    if scaler is None:
        return {}
    return {
        name: value
        for name, value in vars(scaler).items()
        if name.endswith("_") and name != "n_features_in_" and value is not None
    }


def _scaler_config(scaler: Any) -> dict[str, Any] | None:
    """Return a scaler's parameters and size."""
    if scaler is None:
        return None
    return {
        "params": scaler.get_params(deep=False),
        "n_features_in": int(scaler.n_features_in_),
    }
