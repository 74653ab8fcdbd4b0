"""What a model keeps of the scans that it learned from: hashes and counts, no scan."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.exceptions import CheckpointError

# In memory a participant is the SHA-256 of a name, which costs nothing; in a bundle
# it is "salt:hash", slow to compute, so that names cannot be looked up in a table.
ITERATIONS = 5_000  # about a millisecond
SALTED = f"pbkdf2-sha256-{ITERATIONS}"
UNSALTED = "sha256"
N_BYTES = 16  # of a salt and of a salted hash
SALTED_PATTERN = re.compile(r"[0-9a-f]{32}")
UNSALTED_PATTERN = re.compile(r"[0-9a-f]{64}")
WHOLE_NUMBER = re.compile(r"0*([0-9]+)(\.0)?")
PLACE = re.compile(r"~|([A-Za-z]:)?[/\\]")  # how a path begins


def person(name: object) -> str:
    """Return who a participant is, however a table writes it.

    Parameters
    ----------
    name : object
        ``sub-01`` of BIDS, ``1`` of a column of numbers, ``1.0`` of one with gaps.

    Returns
    -------
    str

    Examples
    --------
    >>> [person(name) for name in ("sub-01", "01", 1, 1.0, "NYU_01")]
    ['1', '1', '1', '1', 'NYU_01']
    """
    bare = str(name).removeprefix("sub-")
    number = WHOLE_NUMBER.fullmatch(bare)
    return number[1] if number else bare


def participant_hashes(names: Iterable[object]) -> set[str]:
    """Return what a fitted model keeps of the participants that it has seen."""
    return {_hash(person(name)) for name in set(names)}


def _hash(text: str) -> str:
    """Return the fast hash of a name."""
    return hashlib.sha256(text.encode()).hexdigest()


def add_participants(seen: Iterable[str], names: Iterable[object]) -> list[str]:
    """Return hashes of those seen before and of these, each participant once.

    Parameters
    ----------
    seen : iterable of str
        Hashes. If they are salted, the new ones get the same salt.
    names : iterable
        Of participants, each any number of times.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> seen = add_participants([], ["sub-1", "sub-2"])
    >>> len(add_participants(seen, ["sub-2", "sub-3"]))
    3
    """
    seen, names = set(seen), set(names)
    salts = sorted(_salts(seen) - {""})
    known = shared_participants(names, seen) if seen else ()  # maybe written otherwise
    new = participant_hashes(name for name in names if str(name) not in known)
    return sorted(seen | ({_salted(x, salts[0]) for x in new} if salts else new))


def shared_participants(names: Iterable[object], seen: Iterable[str]) -> set[str]:
    """Return those of the names whose hashes are among those seen.

    Parameters
    ----------
    names : iterable
        Of participants, see :func:`person`.
    seen : iterable of str
        Hashes, salted or not, of any number of models.

    Returns
    -------
    set of str

    Examples
    --------
    >>> seen = add_participants([], ["sub-1", "sub-2"])
    >>> shared_participants(["sub-2", "sub-3"], seen)
    {'sub-2'}
    """
    seen = set(seen)
    salts = _salts(seen)
    shared = set()
    for name in {str(name) for name in names}:
        bare = name.removeprefix("sub-")
        # bundles of older versions have hashes of names as they were written
        hashes = {_hash(text) for text in (person(name), bare, f"sub-{bare}")}
        pairs = product(hashes, salts)
        if any((_salted(x, salt) if salt else x) in seen for x, salt in pairs):
            shared.add(name)
    return shared


def pack_participants(seen: Iterable[str]) -> dict[str, Any]:
    """Return what a bundle holds of these participants: salted hashes.

    Parameters
    ----------
    seen : iterable of str
        Hashes. Those without a salt get that of the others, or a random one.

    Returns
    -------
    dict
        For :func:`unpack_participants`.

    Examples
    --------
    >>> packed = pack_participants(add_participants([], ["sub-1"]))
    >>> shared_participants(["sub-1", "sub-2"], unpack_participants(packed))
    {'sub-1'}
    """
    seen = set(seen)
    salts = sorted(_salts(seen) - {""}) or [secrets.token_hex(N_BYTES)]
    salted = [x if ":" in x else _salted(x, salts[0]) for x in seen]
    hashes = sorted(x.partition(":")[2] for x in salted)
    return {"method": SALTED, "salt": salts[0] if hashes else None, "hashes": hashes}


def unpack_participants(packed: Any) -> list[str]:
    """Return the hashes that a bundle holds, each with its salt.

    Parameters
    ----------
    packed : mapping or None
        From :func:`pack_participants`; None for a bundle that knows none.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    CheckpointError
        If they are of another form.

    Examples
    --------
    >>> unpack_participants(None)
    []
    """
    if packed is None:
        return []
    if not isinstance(packed, Mapping) or not isinstance(packed.get("hashes"), list):
        raise _unreadable("no list")
    method, salt, hashes = (packed.get(x) for x in ("method", "salt", "hashes"))
    if not hashes:
        return []
    patterns = {SALTED: SALTED_PATTERN, UNSALTED: UNSALTED_PATTERN}
    if method not in patterns:
        raise _unreadable(f"the method {method!r}")
    if (method == SALTED) != _matches(SALTED_PATTERN, salt):
        raise _unreadable(f"the salt {salt!r}")
    if not all(_matches(patterns[method], x) for x in hashes):
        raise _unreadable("hashes of another length")
    return sorted(x if method == UNSALTED else f"{salt}:{x}" for x in hashes)


def describe_scans(
    cohort: Cohort,
    modalities: Iterable[str],
    t_r: np.ndarray | None,
    n_participants: int | None,
) -> dict[str, Any]:
    """Return the numbers that say what scans a model was fitted on.

    Parameters
    ----------
    cohort : Cohort
        The scans.
    modalities : iterable of {"fmri", "sc"}
        What the model reads.
    t_r : ndarray of shape (n_scans,) or None
        Repetition times, in seconds, if known.
    n_participants : int or None
        If known.

    Returns
    -------
    dict
        ``n_scans``, ``n_participants``, ``modalities``, ``n_missing`` by modality,
        ``n_timepoints`` (min, median, max) and ``t_r`` (each value once, rounded to
        a millisecond); the last two are None where they are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort
    >>> cohort = check_cohort(np.random.default_rng(0).normal(size=(3, 9, 2)))
    >>> described = describe_scans(cohort, ["fmri"], np.full(3, 0.72), None)
    >>> described["n_timepoints"], described["t_r"]
    ({'min': 9, 'median': 9.0, 'max': 9}, [0.72])
    """
    modalities = list(modalities)
    scans = {"fmri": cohort.fmri, "sc": cohort.sc}
    lengths = cohort.n_timepoints[cohort.n_timepoints > 0]
    has_fmri = "fmri" in modalities and len(lengths) > 0
    seconds = None
    if has_fmri and t_r is not None:
        known = np.round(t_r[cohort.n_timepoints > 0], 3)
        seconds = np.unique(known).tolist()
    return {
        "n_scans": len(cohort),
        "n_participants": n_participants,
        "modalities": modalities,
        "n_missing": {m: sum(x is None for x in scans[m]) for m in modalities},
        "n_timepoints": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        }
        if has_fmri
        else None,
        "t_r": seconds,
    }


def describe_regions(regions: pd.DataFrame | None) -> dict[str, list[Any]]:
    """Return a table of regions as text and numbers, for JSON.

    Parameters
    ----------
    regions : DataFrame with one row per region, or None
        Labels, coordinates, networks.

    Returns
    -------
    dict of str to list
        By column; None where a cell is missing. Columns that hold anything but text
        and numbers, or paths, are left out.

    Examples
    --------
    >>> describe_regions(pd.DataFrame({"label": ["a", "b"], "x": [1.0, None]}))
    {'label': ['a', 'b'], 'x': [1.0, None]}
    """
    if regions is None:
        return {}
    columns = {str(name): _plain(values) for name, values in regions.items()}
    return {name: values for name, values in columns.items() if values is not None}


def _plain(column: pd.Series) -> list[Any] | None:
    """Return text and finite numbers, None for a column that holds other things."""
    cells: list[Any] = []
    for cell in column.tolist():
        if isinstance(cell, str | bool | int | float):
            finite = not isinstance(cell, float) or np.isfinite(cell)
            cells.append(cell if finite else None)
        elif cell is None or cell is pd.NA or cell is pd.NaT:
            cells.append(None)
        else:
            return None
    if any(isinstance(cell, str) and PLACE.match(cell) for cell in cells):
        return None
    return cells


@lru_cache(maxsize=2**17)
def _salted(plain: str, salt: str) -> str:
    """Return the slow hash of a fast one, after its salt."""
    key = hashlib.pbkdf2_hmac(
        "sha256", bytes.fromhex(plain), bytes.fromhex(salt), ITERATIONS, N_BYTES
    )
    return f"{salt}:{key.hex()}"


def _salts(seen: Iterable[str]) -> set[str]:
    """Return the salts of these hashes; that of an unsalted one is empty."""
    return {x.rpartition(":")[0] for x in seen}


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    """Return whether `value` is text of this form."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _unreadable(what: str) -> CheckpointError:
    """Return the error for hashes of participants that cannot be used."""
    return CheckpointError(
        "A bundle needs hashes of participants that this version can read. Got "
        f"{what}. Save the model again."
    )
