"""One map per participant, checked, and the cells of it that can be tested."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bsym_sklearn.exceptions import BrainDataError

Groups = tuple[ArrayLike, ArrayLike]
SYMMETRY = 1e-6  # of the largest value: maps of float32 differ by their rounding
CONSTANT = 1e-12  # of the largest value


def units(
    a: np.ndarray,
    b: np.ndarray,
    groups: Groups | None,
    paired: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return one map per participant; in pairs, the same participant in each row."""
    if a.ndim not in (2, 3) or a.shape[1:] != b.shape[1:]:
        raise BrainDataError(
            "contrast needs maps of one shape, (n, R) or (n, R, R). Got shapes "
            f"{a.shape} and {b.shape}. Use the same regions for A and B."
        )
    _check_values(a, b)
    if groups is not None:
        a, people_a = _average(a, groups[0], "A")
        b, people_b = _average(b, groups[1], "B")
        shared = np.intersect1d(people_a, people_b)
        if paired and not np.array_equal(people_a, people_b):
            odd = np.setxor1d(people_a, people_b).tolist()[0]
            raise ValueError(
                "contrast needs the same participants in A and B. Got one in only one "
                f"of them, first {odd!r}. Leave it out or pass `paired=False`."
            )
        if not paired and len(shared):
            raise ValueError(
                "contrast needs different people in two groups. Got participant "
                f"{shared.tolist()[0]!r} in both. Pass `paired=True`."
            )
    if (paired and len(a) != len(b)) or min(len(a), len(b)) < 2:
        raise ValueError(
            "contrast needs two pairs or more, or two people or more in each group. "
            f"Got {len(a)} rows of A and {len(b)} of B. Match pairs with `groups`."
        )
    return a, b


def _average(
    maps: np.ndarray, groups: ArrayLike, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean map of each participant, and the participants, sorted."""
    groups = np.asarray(groups)
    if groups.shape != (len(maps),):
        raise ValueError(
            f"contrast needs a participant for each row of {name}. Got shape "
            f"{groups.shape} for {len(maps)} rows. Pass a list for A and one for B."
        )
    people, code = np.unique(groups, return_inverse=True)
    means = np.stack([maps[code == i].mean(axis=0) for i in range(len(people))])
    return means, people


def _check_values(a: np.ndarray, b: np.ndarray) -> None:
    """Refuse cells that are missing in some scans, and what is infinite."""
    never = np.isnan(a).all(axis=0) & np.isnan(b).all(axis=0)
    for name, maps in (("A", a), ("B", b)):
        bad = np.argwhere(~np.isfinite(maps) & ~never)
        if len(bad):
            scan, *cell = bad[0].tolist()
            raise BrainDataError(
                f"contrast needs finite maps. Got {maps[tuple(bad[0])]} in {name} at "
                f"{cell}, first in scan {scan}. Leave out scans without the modality; "
                "a cell that is NaN in all scans is not tested."
            )


def cells_to_test(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the mask of cells that vary, and whether the maps are symmetric."""
    both = np.concatenate([a, b])
    scale = np.nanmax(np.abs(both), initial=0.0)
    is_symmetric = both.ndim == 3 and both.shape[1] == both.shape[2]
    if is_symmetric:
        turned = both.swapaxes(1, 2)
        is_symmetric = np.allclose(
            both, turned, rtol=0, atol=SYMMETRY * scale, equal_nan=True
        )
    varies = np.ptp(both, axis=0) > CONSTANT * scale  # False where NaN
    if not varies.any():
        raise BrainDataError(
            f"contrast needs maps that vary. Got {len(both)} that are all the same. "
            "Check which maps these are."
        )
    return np.triu(varies) if is_symmetric else varies, is_symmetric
