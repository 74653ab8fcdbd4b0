"""Time, as functions of one scan: resampling, cropping, padding, windows.

Shape letters: T time points, R regions.
"""

from __future__ import annotations

from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from bsym_sklearn.data.checks import check_count
from bsym_sklearn.exceptions import BrainDataError

# Ratios of repetition times are fractions such as 0.72 / 2.0 = 9 / 25; with 1000 the
# last of 10,000 time points is misplaced by less than 1 % of a time point.
LARGEST_DENOMINATOR = 1000


def window_starts(
    n_timepoints: int,
    window: int,
    n_windows: int | None = None,
    stride: int | None = None,
) -> np.ndarray:
    """Return where the windows over a scan start.

    The first window starts at 0 and the last ends with the scan; the others lie evenly
    between.

    Parameters
    ----------
    n_timepoints : int
        Length of the scan, at least 1.
    window : int
        Length of a window, at least 1.
    n_windows : int or None, default=None
        Number of windows, at least 1; None takes the fewest that cover the scan,
        ``ceil(n_timepoints / window)``. One window over a longer scan lies in the
        middle; more windows than there are places are fewer.
    stride : int or None, default=None
        Distance between starts, at least 1, instead of `n_windows`; the last distance
        may be smaller.

    Returns
    -------
    starts : ndarray of int of shape (n_windows,)
        Increasing; [0] if the scan is not longer than the window.

    Raises
    ------
    ValueError
        If a number is below 1, or both `n_windows` and `stride` are given.

    Examples
    --------
    >>> from bsym_sklearn.data import window_starts
    >>> window_starts(500, 200), window_starts(500, 200, stride=200)
    (array([  0, 150, 300]), array([  0, 200, 300]))
    """
    check_count("n_timepoints", n_timepoints)
    check_count("window", window)
    if n_windows is not None and stride is not None:
        raise ValueError("Only one of n_windows and stride can be given. Got both.")
    last = n_timepoints - window
    if last <= 0:
        return np.zeros(1, dtype=int)
    if stride is not None:
        check_count("stride", stride)
        return np.unique(np.append(np.arange(0, last, stride), last))
    n_windows = -(-n_timepoints // window) if n_windows is None else n_windows
    check_count("n_windows", n_windows)
    if n_windows == 1:
        return np.array([last // 2])
    # floor and not round: no distance then exceeds the window where they cover the scan
    return np.unique(np.arange(n_windows) * last // (n_windows - 1))


def crop(x: np.ndarray, start: int, window: int) -> np.ndarray:
    """Return up to `window` time points from `start` on.

    Parameters
    ----------
    x : ndarray of shape (n_timepoints, ...)
        One scan.
    start : int
        First time point, in [0, n_timepoints).
    window : int
        Number of time points, at least 1.

    Returns
    -------
    cropped : ndarray of shape (min(window, n_timepoints - start), ...)
        A view of `x`.

    Raises
    ------
    ValueError
        If `start` or `window` is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import crop
    >>> crop(np.arange(10)[:, None], 3, 4).ravel()
    array([3, 4, 5, 6])
    """
    check_count("window", window)
    if not 0 <= start < len(x):
        raise ValueError(f"start must be in [0, {len(x)}). Got {start!r}.")
    return x[start : start + window]


def pad(x: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Add zeros at the end of a scan that is shorter than the window.

    Parameters
    ----------
    x : ndarray of shape (n_timepoints, n_regions)
        One scan, at most `window` time points long.
    window : int
        Length to reach.

    Returns
    -------
    padded : ndarray of shape (window, n_regions)
        The scan, then zeros.
    padding : ndarray of bool of shape (window,)
        True where a time point was added.

    Raises
    ------
    ValueError
        If the scan is longer than the window.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import pad
    >>> padded, padding = pad(np.ones((2, 3)), 4)
    >>> padded.shape, padding
    ((4, 3), array([False, False,  True,  True]))
    """
    if len(x) > window:
        raise ValueError(
            f"pad needs a scan of at most {window} time points. Got {len(x)}. Crop it."
        )
    padded = np.zeros((window, *x.shape[1:]), dtype=x.dtype)
    padded[: len(x)] = x
    return padded, np.arange(window) >= len(x)


def resample(x: np.ndarray, t_r: float, new_t_r: float) -> np.ndarray:
    """Resample a scan to another repetition time.

    The series is low-pass filtered below the lower of the two Nyquist frequencies
    (zero-phase FIR with a Kaiser window; what is 1.2 times faster is removed).
    Constants and linear trends are kept exactly and slow changes up to the ends: the
    line from the first to the last time point is taken out and put back, and the rest
    is continued beyond each end as its own point reflection. So the first time point
    keeps its value, unfiltered. It also keeps its place in time. The last one may lie
    up to half a new time point beyond the end of `x`.

    Parameters
    ----------
    x : ndarray of shape (n_timepoints, n_regions)
        One scan, at least two time points.
    t_r : float
        Repetition time of `x`, in seconds.
    new_t_r : float
        Repetition time of the result, in seconds.

    Returns
    -------
    resampled : ndarray of shape (round(n_timepoints * t_r / new_t_r), n_regions)
        The scan at `new_t_r`; float64 if the values need it, else float32. A copy of
        `x` if the two times are equal.

    Raises
    ------
    ValueError
        If a repetition time is not positive and finite.
    BrainDataError
        If `x` is not 2-D, or too short for one time point of the result.

    References
    ----------
    `scipy.signal.resample_poly`; the ratio of the times is rounded to a fraction with
    a denominator of at most 1000.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import resample
    >>> ramp = np.linspace(0, 1, 100)[:, None]
    >>> slower = resample(ramp, t_r=0.72, new_t_r=2.0)
    >>> slower.shape, bool(np.allclose(np.diff(slower[:, 0]), 2.0 / 0.72 / 99))
    ((36, 1), True)
    """
    for name, value in (("t_r", t_r), ("new_t_r", new_t_r)):
        if not is_repetition_time(value):
            raise ValueError(f"{name} must be positive seconds. Got {value!r}.")
    if x.ndim != 2 or len(x) < 2:
        raise BrainDataError(
            "resample needs one scan of at least two time points as a 2-D array. Got "
            f"shape {x.shape}. Pass (n_timepoints, n_regions)."
        )
    dtype = np.result_type(x.dtype, np.float32)
    ratio = Fraction(t_r / new_t_r).limit_denominator(LARGEST_DENOMINATOR)
    n_new = round(len(x) * t_r / new_t_r)
    if n_new < 1 or ratio == 0:
        raise BrainDataError(
            f"resample needs a scan longer than half a new time point of {new_t_r} s. "
            f"Got {len(x)} time points of {t_r} s. Leave the scan out."
        )
    if ratio == 1:  # but for a point or two of a long scan, repeated or cut
        last = np.minimum(np.arange(n_new), len(x) - 1)
        return x[last].astype(dtype)
    up, down = ratio.numerator, ratio.denominator
    first = x[0].astype(np.float64)
    slope = (x[-1] - first) / (len(x) - 1)
    residual = x - (first + slope * np.arange(len(x))[:, None])
    residual = resample_poly(residual, up, down, axis=0, padtype="antireflect")
    times = np.arange(n_new)[:, None] * (down / up)
    return (_fit_length(residual, n_new) + first + slope * times).astype(dtype)


def is_repetition_time(value: Any) -> bool:
    """Say if a value is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return 0 < float(value) < np.inf


def _fit_length(x: np.ndarray, n_timepoints: int) -> np.ndarray:
    """Cut or lengthen by zeros what rounding of the ratio left too long or short."""
    return x[:n_timepoints] if len(x) >= n_timepoints else pad(x, n_timepoints)[0]
