"""Which files of a dataset are read: one per scan, of one atlas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from bsym_sklearn.data.bids import BidsFile, Dataset, Skipped
from bsym_sklearn.data.connectomes import CONNECTOME_EXTENSIONS, CONNECTOME_SUFFIXES
from bsym_sklearn.data.parcellated import CIFTI, TSV
from bsym_sklearn.exceptions import BrainDataError

Entities = Mapping[str, str | None]
SERIES_NAMES = "sub-*_atlas-*_timeseries.tsv (or seg-*), sub-*.ptseries.nii"
CONNECTOME_NAMES = "sub-*_connectivity.mat, .csv or .h5, or sub-*_connectome.csv"


def is_series(file: BidsFile) -> bool:
    """Say if a file holds mean series of regions, rather than confounds or coverage."""
    if "sub" not in file.entities or file.entities.get("stat", "mean") != "mean":
        return False
    if file.extension == CIFTI:
        return file.suffix in ("timeseries", "bold")
    return file.extension == TSV and file.suffix == "timeseries" and file.atlas != ""


def is_connectome(file: BidsFile) -> bool:
    """Say if a file holds a participant's connectomes."""
    return (
        "sub" in file.entities
        and file.suffix in CONNECTOME_SUFFIXES
        and file.extension in CONNECTOME_EXTENSIONS
    )


def select_series(
    files: Sequence[BidsFile],
    dataset: Dataset,
    atlas: str | None,
    entities: Entities | None,
    skipped: Skipped,
) -> list[BidsFile]:
    """Return one file per scan: .tsv before .ptseries.nii, runs before their sum."""
    series = _select([f for f in files if is_series(f)], atlas, entities, "fmri")
    if not series:
        raise _nothing_found(dataset.folder, SERIES_NAMES, atlas, entities, "fmri")
    tables = {file.source for file in series if file.extension == TSV}
    series = [f for f in series if f.extension == TSV or f.source not in tables]
    _check_once(series, lambda file: file.source, "fmri_entities")
    return _without_refused(_without_joined(series, skipped), dataset, skipped)


def select_connectomes(
    files: Sequence[BidsFile],
    dataset: Dataset,
    atlas: str | None,
    entities: Entities | None,
    skipped: Skipped,
) -> list[BidsFile]:
    """Return one file per participant and session."""
    found = _select([f for f in files if is_connectome(f)], atlas, entities, "sc")
    if not found:
        raise _nothing_found(dataset.folder, CONNECTOME_NAMES, atlas, entities, "sc")
    _check_once(found, lambda file: (file.participant, file.session), "sc_entities")
    return _without_refused(found, dataset, skipped)


def _select(
    files: list[BidsFile], atlas: str | None, entities: Entities | None, name: str
) -> list[BidsFile]:
    """Return the files of the wanted entities and of one atlas."""
    wanted = dict(entities or {})
    files = [f for f in files if all(f.entities.get(k) == v for k, v in wanted.items())]
    atlases = sorted({file.atlas for file in files})
    named = [found for found in atlases if found]
    if atlas is None and len(atlases) > 1:
        others = " and files that name none" if len(named) < len(atlases) else ""
        raise BrainDataError(
            f"load_derivatives needs one atlas in {name}. Got {', '.join(named)}"
            f"{others}, first in '{files[0].path}'. Choose one, as "
            f"atlas={named[0]!r}."
        )
    if named and atlas is not None and atlas not in atlases and "" not in atlases:
        raise BrainDataError(
            f"load_derivatives needs files of the atlas {atlas!r} in {name}. Got "
            f"{', '.join(named)}, first in '{files[0].path}'. Choose one of these."
        )
    return [file for file in files if atlas is None or file.atlas in (atlas, "")]


def _nothing_found(
    folder: Path, names: str, atlas: str | None, entities: Entities | None, kind: str
) -> BrainDataError:
    limits = "" if not entities else f" with {kind}_entities={dict(entities)}"
    limits += "" if atlas is None else f" of the atlas {atlas!r}"
    return BrainDataError(
        f"load_derivatives needs {kind} files in {kind}_dir. Got none{limits} in "
        f"'{folder}'. Pass the folder of the pipeline, whose files are named {names}."
    )


def _check_once(
    files: list[BidsFile], key: Callable[[BidsFile], Hashable], parameter: str
) -> None:
    """Raise if two files are of the same scan."""
    seen: dict[Hashable, BidsFile] = {}
    for file in files:
        first = seen.setdefault(key(file), file)
        if first is file:
            continue
        both = {**first.entities, **file.entities}
        differ = [k for k in both if first.entities.get(k) != file.entities.get(k)]
        advice = "Pass the folder of one pipeline"
        if differ:
            choice = {differ[0]: first.entities.get(differ[0])}
            advice += f", or choose, as {parameter}={choice}"
        raise BrainDataError(
            f"load_derivatives needs one file per scan. Got '{first.path}' and "
            f"'{file.path}', both of {first.participant}. {advice}."
        )


def _without_joined(files: list[BidsFile], skipped: Skipped) -> list[BidsFile]:
    """Drop what XCP-D's --combine-runs joined across runs and directions."""
    parts: dict[frozenset[tuple[str, str]], list[BidsFile]] = defaultdict(list)
    for file in files:
        pairs = [pair for pair in file.source if pair[0] not in ("run", "dir")]
        parts[frozenset(pairs)].append(file)
    kept = []
    for file in files:
        others = parts.get(file.source, [])
        if len(others) > 1:
            reason = "joins runs that are read one by one; to read it instead, pass "
            skipped.append((str(file.path), reason + "fmri_entities={'run': None}"))
        else:
            kept.append(file)
    return kept


def _without_refused(
    files: list[BidsFile], dataset: Dataset, skipped: Skipped
) -> list[BidsFile]:
    kept = []
    for file in files:
        reason = dataset.refuse(file.path)
        if reason is None:
            kept.append(file)
        else:
            skipped.append((str(file.path), reason))
    return kept
