"""Scans as a model wants them, whole or in windows, kept while there is room.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from bsym_sklearn.data.checks import find_constant_regions
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.resampling import crop, resample
from bsym_sklearn.data.scaling import ConnectomeScaler, RegionScaler, standardize

Arrays = dict[str, np.ndarray]
Statistics = tuple[np.ndarray, np.ndarray] | None  # center and scale; None: not scaled
# Of all processes of one loader together, whatever the number of scans:
CACHE_BYTES = 1 << 30  # scaled scans kept
STATISTICS_BYTES = 1 << 30  # statistics kept; of 450 regions, those of 149,000 scans


@dataclass
class ScanReader:
    """Read scans of a cohort as the model wants them: resampled and scaled.

    What is read is kept while there is room. Of a series that is not, later windows are
    read alone (if the file is a ``.npy`` or a shard) and scaled by statistics of the
    whole scan, which are kept while there is room: 2 R numbers. The values are the same
    to the bit. Processes of one loader share out the room.

    Parameters
    ----------
    cohort : Cohort
        Validated scans.
    fmri_scaler : RegionScaler or None
        Fitted on the training rows.
    sc_scaler : ConnectomeScaler or None
        Fitted on the training rows.
    modalities : tuple of {"fmri", "sc"}
        Those that the model reads.
    t_r : ndarray of shape (n_scans,) or None
        Repetition time of each scan, in seconds.
    model_t_r : float or None
        Repetition time to resample to, in seconds.
    dtype : numpy dtype, default=float32
        Of what is read.
    prepare_sc : callable or None, default=None
        From a scaled connectome (R, R) to further arrays by name, which must have the
        same shape for every scan. Called once per scan while there is room. Reading
        processes may pickle it, so that it has to be a function of a module.
    cache_bytes : int, default=1 GiB
        Room for scans, in the processes of one loader together.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort
    >>> cohort = check_cohort(np.random.default_rng(0).standard_normal((2, 9, 3)))
    >>> reader = ScanReader(cohort, None, None, ("fmri",))
    >>> reader.fmri(0).shape, reader.window(0, 4, 3).shape, reader.sc(0)
    ((9, 3), (3, 3), None)
    """

    cohort: Cohort
    fmri_scaler: RegionScaler | None
    sc_scaler: ConnectomeScaler | None
    modalities: tuple[str, ...]
    t_r: np.ndarray | None = None
    model_t_r: float | None = None
    dtype: Any = np.float32
    prepare_sc: Callable[[np.ndarray], Arrays] | None = None
    cache_bytes: int = CACHE_BYTES
    _cache: dict[tuple[str, int], Arrays] = field(default_factory=dict, repr=False)
    _cached: int = 0
    # Of series without room in the cache. A scan of 200 time points is 50 times larger.
    _statistics: dict[int, Statistics] = field(default_factory=dict, repr=False)
    _constant: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.cohort)

    @property
    def lengths(self) -> np.ndarray:
        """Time points of each scan as the model sees them; 0 without fMRI."""
        lengths = np.asarray(self.cohort.n_timepoints)
        if "fmri" not in self.modalities:
            return np.zeros_like(lengths)
        if self.t_r is None or self.model_t_r is None:
            return lengths
        return np.rint(lengths * self.t_r / self.model_t_r).astype(int)

    def has(self, modality: str, i: int) -> bool:
        """Say if the model reads a modality and scan `i` has it."""
        recordings = self.cohort.sc if modality == "sc" else self.cohort.fmri
        return modality in self.modalities and recordings[i] is not None

    def fmri(self, i: int) -> np.ndarray | None:
        """Return the scaled series (T, R) of scan `i`, or None."""
        return self._series(i) if self.has("fmri", i) else None

    def window(self, i: int, start: int, n_timepoints: int) -> np.ndarray | None:
        """Return up to `n_timepoints` of the series of scan `i`, or None."""
        if not self.has("fmri", i):
            return None
        if (
            i not in self._statistics
        ):  # kept whole, read for the first time or resampled
            return crop(self._series(i), start, n_timepoints)
        part = slice(start, start + n_timepoints)
        x = self.cohort.read_fmri(i, np.float64, part)
        return self._scaled(x, self._statistics[i])

    def constant_regions(self, i: int) -> np.ndarray:
        """Return the regions (R,) that never change in the series of scan `i`."""
        if i not in self._constant:
            self._constant[i] = find_constant_regions(self._series(i))
        return self._constant[i]

    def sc(self, i: int) -> np.ndarray | None:
        """Return the scaled connectome (R, R) of scan `i`, or None."""
        arrays = self.connectome(i)
        return None if arrays is None else arrays["sc"]

    def connectome(self, i: int) -> Arrays | None:
        """Return the connectome ``"sc"`` and what `prepare_sc` makes of it, or None."""
        if not self.has("sc", i):
            return None
        if ("sc", i) in self._cache:
            return self._cache["sc", i]
        x = self.cohort.read_sc(i, dtype=np.float64)
        if self.sc_scaler is not None:
            x = self.sc_scaler.scale(x)
        arrays = {"sc": np.ascontiguousarray(x, dtype=self.dtype)}
        if self.prepare_sc is not None:
            arrays |= self.prepare_sc(arrays["sc"])
        self._keep(("sc", i), arrays)
        return arrays

    def _series(self, i: int) -> np.ndarray:
        """Return the scaled series of scan `i`, and keep it or its statistics."""
        if ("fmri", i) in self._cache:
            return self._cache["fmri", i]["fmri"]
        # Scaled in float64: a mean over 1200 float32 values is not exact.
        x = self.cohort.read_fmri(i, dtype=np.float64)
        resampled = False
        if self.t_r is not None and self.model_t_r not in (None, self.t_r[i]):
            x = resample(x, self.t_r[i], self.model_t_r)
            resampled = True
        scaler = self.fmri_scaler
        statistics = None if scaler is None else scaler.statistics(x)
        x = self._scaled(x, statistics)
        if self.cohort.constant_regions == "mask":
            self._constant[i] = find_constant_regions(x)
        kept = self._keep(("fmri", i), {"fmri": x})
        if not (kept or resampled) and self._has_room_for_statistics():
            self._statistics[i] = statistics
        return x

    def _scaled(self, x: np.ndarray, statistics: Statistics) -> np.ndarray:
        """Scale a series or a part of one."""
        if statistics is not None:
            x = standardize(x, *statistics)
        return np.ascontiguousarray(x, dtype=self.dtype)

    def _keep(self, key: tuple[str, int], arrays: Arrays) -> bool:
        """Keep arrays if there is room, and say so."""
        size = sum(array.nbytes for array in arrays.values())
        if self._cached + size > _share(self.cache_bytes):
            return False
        self._cache[key] = arrays
        self._cached += size
        return True

    def _has_room_for_statistics(self) -> bool:
        """Say if one more scan's center and scale, in float64, can be kept."""
        size = 2 * 8 * self.cohort.n_regions
        return (len(self._statistics) + 1) * size <= _share(STATISTICS_BYTES)

    def __getstate__(self) -> dict[str, Any]:
        # What was read stays here: forked processes share it, others read it anew.
        empty: dict[str, Any] = {name: {} for name in _KEPT}
        return {**self.__dict__, **empty, "_cached": 0}


def _share(n_bytes: int) -> int:
    """Return the share of this process, which may be one of several that read."""
    worker = get_worker_info()
    return n_bytes if worker is None else n_bytes // worker.num_workers


_KEPT = ("_cache", "_statistics", "_constant")
