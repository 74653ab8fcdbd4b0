"""Cohort DataFrames: read from a folder, or made from arrays."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from bsym_sklearn.data.containers import as_column
from bsym_sklearn.data.shardfile import cohort_of, is_member
from bsym_sklearn.data.tsv import parse_covariate, read_tsv, with_none
from bsym_sklearn.exceptions import BrainDataError

LAYOUT = (
    "A cohort folder holds participants.tsv, with one row per scan and a column 'fmri' "
    "and/or 'sc' of file names such as fmri/sub-01.npy, beside those files; "
    "regions.tsv, with one row per region, is optional"
)


class RegionTable(pd.DataFrame):
    """A table of regions that can lie in `DataFrame.attrs`.

    pandas compares the `attrs` of the frames that it joins and needs one truth value;
    a plain DataFrame there makes ``pandas.concat`` and ``merge`` raise.
    """

    @property
    def _constructor(self) -> type[RegionTable]:
        return RegionTable

    def __eq__(self, other: object) -> Any:
        if isinstance(other, RegionTable):
            return bool(self.equals(other))
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


def load_cohort(
    folder: str | os.PathLike[str], *, fmri: str = "fmri", sc: str = "sc"
) -> pd.DataFrame:
    r"""Read a cohort folder into a DataFrame whose cells are paths.

    No scan is opened; `check_cohort`, which every estimator calls, does that.
    Covariates whose values are all numbers become numbers, unless they are written
    with leading zeros; ``participant_id`` stays text.

    Parameters
    ----------
    folder : path
        Folder with ``participants.tsv`` (one row per scan, tab separated, ``n/a`` for
        missing), the files it names, and optionally ``regions.tsv``; or what
        `save_shards` wrote, whose cells name members of shards.
    fmri, sc : str, default="fmri", "sc"
        Columns of ``participants.tsv`` that name the files, relative to the folder.

    Returns
    -------
    cohort : DataFrame
        One row per scan: ``fmri`` and ``sc`` hold absolute paths or None, the other
        columns are covariates. ``cohort.attrs["regions"]`` has the table of regions.

    Raises
    ------
    BrainDataError
        If the layout is another, a file is missing or lies outside the folder, the
        same fmri file is named twice, or shards are of different cohorts.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from bsym_sklearn.data import check_cohort, load_cohort
    >>> table = "participant_id\tage\tfmri\n01\t31\ta.npy\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "a.npy"), np.random.default_rng(0).normal(size=(9, 3)))
    ...     _ = Path(folder, "participants.tsv").write_text(table)
    ...     X = load_cohort(folder)
    ...     check_cohort(X).n_timepoints, X["participant_id"][0], X["age"][0] + 1
    (array([9]), '01', np.int64(32))
    """
    root = Path(folder).resolve()
    table = _read_participants(root / "participants.tsv")
    columns = {"fmri": fmri, "sc": sc}
    present = {kind: name for kind, name in columns.items() if name in table.columns}
    if not present:
        raise BrainDataError(
            f"load_cohort needs a column {fmri!r} or {sc!r} in participants.tsv. Got "
            f"the columns {list(table.columns)}. {LAYOUT}."
        )
    for kind, name in present.items():
        if name != kind and kind in table.columns:
            raise BrainDataError(
                f"load_cohort needs one column {kind!r}. Got {name!r} for it, and one "
                f"of that name in participants.tsv. Rename {kind!r}."
            )
    paths = {
        kind: [
            None if cell is None else _resolve(root, cell, f"row {i}, column {name!r}")
            for i, cell in enumerate(with_none(table[name]))
        ]
        for kind, name in present.items()
    }
    _check_files_differ(paths.get("fmri", []))
    _check_shards_agree(cell for cells in paths.values() for cell in cells)
    cohort = table.drop(columns=list(present.values())).apply(parse_covariate)
    cohort = pd.DataFrame(cohort, index=table.index)  # apply loses an empty index
    for kind, cells in paths.items():
        cohort[kind] = as_column(cells, cohort.index)
    if (root / "regions.tsv").is_file():
        cohort.attrs["regions"] = _read_regions(root / "regions.tsv")
    return cohort


def make_cohort_frame(
    fmri: Sequence[Any] | Mapping[Hashable, Any] | None = None,
    sc: Sequence[Any] | Mapping[Hashable, Any] | None = None,
    *,
    ids: Sequence[Hashable] | None = None,
    regions: pd.DataFrame | None = None,
    **covariates: Any,
) -> pd.DataFrame:
    """Put arrays or paths and covariates into a cohort DataFrame.

    Sequences are taken in row order. Dicts keyed by participant are joined by their
    keys, whatever their order: who lacks a modality gets None, and nobody gets the
    scan of another.

    Parameters
    ----------
    fmri : sequence or dict of (n_timepoints, n_regions) arrays or paths, or None
        Series.
    sc : sequence or dict of (n_regions, n_regions) arrays or paths, or None
        Connectomes. A dict if `fmri` is a dict.
    ids : sequence of unique values or None, default=None
        Participants; become the text column ``participant_id``. With dicts, the rows
        wanted and their order; None takes all keys. For several scans of one
        participant pass ``participant_id=[...]`` as a covariate instead.
    regions : DataFrame or None, default=None
        Table of the regions, one row each, kept in ``attrs["regions"]``.
    **covariates : sequence of length n_scans, or dict keyed by participant
        Further columns.

    Returns
    -------
    cohort : DataFrame
        Columns ``participant_id`` (if known), the covariates, and the modalities given.

    Raises
    ------
    BrainDataError
        If lengths differ, an id occurs twice or is unknown, or sequences and dicts
        are mixed.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn.data import make_cohort_frame
    >>> rng = np.random.default_rng(0)
    >>> X = make_cohort_frame(
    ...     fmri={"a": rng.normal(size=(9, 3)), "b": rng.normal(size=(8, 3))},
    ...     sc={"b": np.ones((3, 3))},
    ...     age={"b": 40, "a": 30},
    ... )
    >>> X[["participant_id", "age"]].to_numpy().tolist(), X["sc"][0] is None
    ([['a', 30], ['b', 40]], True)
    """
    given = {k: v for k, v in (("fmri", fmri), ("sc", sc)) if v is not None}
    keyed = [isinstance(values, Mapping) for values in given.values()]
    if not given or any(keyed) != all(keyed):
        raise BrainDataError(
            "make_cohort_frame needs fmri, sc or both, all as sequences or all as "
            f"dicts. Got {[type(v).__name__ for v in given.values()] or 'neither'}. "
            "Key both by participant, or bring both into row order."
        )
    if ids is not None and "participant_id" in covariates:
        raise BrainDataError(
            "make_cohort_frame needs participants once. Got ids= and participant_id=. "
            "Keep one of them."
        )
    names = None if ids is None else _unique_texts(ids, "ids")
    if all(keyed):
        n_rows, given, covariates, names = _join(given, covariates, names)
    else:
        n_rows = len(next(iter(given.values())))
    _check_lengths({**given, "ids": names, **covariates}, n_rows)
    cohort = pd.DataFrame(index=pd.RangeIndex(n_rows))
    if names is not None:
        cohort["participant_id"] = names
    for name, values in covariates.items():
        cohort[name] = list(values)
    for name, cells in given.items():
        cohort[name] = as_column(list(cells), cohort.index)
    if regions is not None:
        cohort.attrs["regions"] = RegionTable(regions)
    return cohort


def _read_participants(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BrainDataError(
            f"load_cohort needs a file participants.tsv. Got no '{path}'. {LAYOUT}."
        )
    return read_tsv(path, caller="load_cohort")


def _read_regions(path: Path) -> RegionTable:
    return RegionTable(read_tsv(path, caller="load_cohort").apply(parse_covariate))


def _resolve(root: Path, cell: str, where: str) -> str:
    """Return the absolute path of a cell, which must lie in the folder."""
    windows = PureWindowsPath(cell)
    outside = Path(cell).is_absolute() or windows.drive or ".." in windows.parts
    path = root / cell
    file = path.parent if is_member(path) else path  # a member has no file of its own
    if outside or not Path(os.path.realpath(file)).is_relative_to(root):
        raise BrainDataError(
            f"load_cohort needs files inside the cohort folder. Got {cell!r}, first in "
            f"{where} of participants.tsv. Use paths relative to the folder, without "
            "'..' and without links that lead out of it."
        )
    try:
        is_there = file.is_file()
    except OSError:  # a name that no file can have
        is_there = False
    if not is_there:
        raise BrainDataError(
            f"load_cohort needs every file that participants.tsv names. Got no file "
            f"{cell!r}, first in {where}. Put it there, or write n/a in the cell."
        )
    return str(path)


def _check_files_differ(cells: Iterable[str | None]) -> None:
    rows: dict[str, int] = {}
    for i, cell in enumerate(cells):
        if cell is None:
            continue
        path = os.path.realpath(cell)
        if path in rows:
            raise BrainDataError(
                "load_cohort needs a different fmri file in every row. Got "
                f"{Path(path).name!r} in rows {rows[path]} and {i} of "
                "participants.tsv. Remove one of the rows."
            )
        rows[path] = i


def _check_shards_agree(cells: Iterable[str | None]) -> None:
    """Raise if a shard was swapped with that of another cohort."""
    folders = {Path(cell).parent for cell in cells if cell is not None}
    shards = sorted(folder for folder in folders if folder.suffix == ".tar")
    first: dict[str, Path] = {}
    for shard in shards:
        cohort = cohort_of(shard)
        if cohort is not None:  # who reads from a damaged one is told
            first.setdefault(cohort, shard)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise BrainDataError(
            "load_cohort needs shards of one cohort. Got "
            f"'{one.name}' and '{other.name}' of different ones. Copy them again, or "
            "write all of them again with save_shards."
        )


def _join(
    given: dict[str, Any], covariates: dict[str, Any], names: list[str] | None
) -> tuple[int, dict[str, Any], dict[str, Any], list[str]]:
    """Bring dicts into the order of the names."""
    keyed = {
        name: dict(
            zip(_unique_texts(d, f"the keys of {name}"), d.values(), strict=True)
        )
        for name, d in {**given, **covariates}.items()
        if isinstance(d, Mapping)
    }
    known = list(dict.fromkeys(key for name in given for key in keyed[name]))
    if names is None and len(keyed) < len(given) + len(covariates):
        raise BrainDataError(
            "make_cohort_frame needs covariates keyed by participant beside dicts. Got "
            "a sequence, whose order nothing tells. Pass a dict, or ids= in its order."
        )
    names = known if names is None else names
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        raise BrainDataError(
            f"make_cohort_frame needs a scan for every participant. Got none for "
            f"{unknown[:3]}. Leave them out of ids=."
        )
    joined = {k: [d.get(name) for name in names] for k, d in keyed.items()}
    return (
        len(names),
        {k: joined[k] for k in given},
        {k: joined.get(k, v) for k, v in covariates.items()},
        names,
    )


def _unique_texts(values: Iterable[Hashable], what: str) -> list[str]:
    texts = [str(value) for value in values]
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise BrainDataError(
                f"make_cohort_frame needs every participant once. Got {text!r} twice "
                f"in {what}. For several scans of one participant pass sequences and "
                "participant_id=[...]."
            )
        seen.add(text)
    return texts


def _check_lengths(columns: dict[str, Any], n_rows: int) -> None:
    for name, values in columns.items():
        if values is None:
            continue
        if isinstance(values, str | Mapping) or len(values) != n_rows:
            raise BrainDataError(
                f"make_cohort_frame needs {n_rows} values in {name!r}, one per scan. "
                f"Got {type(values).__name__} of length {len(values)}. Bring all "
                "columns to the same length and order."
            )
