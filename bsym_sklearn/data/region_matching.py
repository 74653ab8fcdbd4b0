"""One list of regions for all files, matched by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bsym_sklearn.data.bids import BidsFile, Skipped
from bsym_sklearn.exceptions import BrainDataError

OnMismatch = Literal["error", "skip", "common"]
N_SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """What was read of a file, and the labels of its regions."""

    file: BidsFile
    labels: tuple[str, ...]
    content: Any


def match_regions(
    fmri: list[Labelled],
    sc: list[Labelled],
    on_mismatch: OnMismatch,
    skipped: Skipped,
) -> tuple[list[Labelled], list[Labelled], tuple[str, ...]]:
    """Return the files that stay, and their regions in the order of most fmri files."""
    reference = _most_common(fmri or sc)
    files = [*fmri, *sc]
    if on_mismatch == "common":
        return fmri, sc, _shared(files, reference, skipped)
    deviating = [file for file in files if set(file.labels) != set(reference)]
    if deviating and on_mismatch == "error":
        raise BrainDataError(
            "load_derivatives needs the same regions in every file. Got "
            f"{_difference(deviating[0].labels, reference)}, first in "
            f"'{deviating[0].file.path}'. Set on_mismatch='common' to keep the regions "
            "that all files have, or 'skip' to leave such files out."
        )
    skipped.extend(
        (str(file.file.path), f"has {_difference(file.labels, reference)}")
        for file in deviating
    )
    kept = [
        [file for file in some if set(file.labels) == set(reference)]
        for some in (fmri, sc)
    ]
    return kept[0], kept[1], reference


def _shared(
    files: list[Labelled], reference: tuple[str, ...], skipped: Skipped
) -> tuple[str, ...]:
    """Return the regions of all files; those that are lost are listed."""
    shared = set(reference).intersection(*(file.labels for file in files))
    if not shared:
        raise BrainDataError(
            "load_derivatives needs regions that all files have. Got none in common, "
            f"of {len(reference)} in '{files[0].file.path}'. Check that atlas= names "
            "the same atlas in both folders."
        )
    known = dict.fromkeys(label for file in files for label in file.labels)
    lost = [label for label in known if label not in shared]
    if lost:
        skipped.append(
            (f"{len(lost)} regions", f"not in every file: {', '.join(lost)}")
        )
    return tuple(label for label in reference if label in shared)


def _most_common(files: Sequence[Labelled]) -> tuple[str, ...]:
    """Return the labels of the largest group of equal files, in their usual order."""
    sets = Counter(frozenset(file.labels) for file in files)
    labels = sets.most_common(1)[0][0]
    orders = Counter(file.labels for file in files if frozenset(file.labels) == labels)
    return orders.most_common(1)[0][0]


def _difference(labels: Sequence[str], reference: Sequence[str]) -> str:
    missing = [label for label in reference if label not in set(labels)]
    unknown = [label for label in labels if label not in set(reference)]
    parts = [
        f"{len(some)} {kind} region{'s' if len(some) > 1 else ''} ({_some(some)})"
        for kind, some in (("missing", missing), ("unknown", unknown))
        if some
    ]
    return " and ".join(parts)


def _some(labels: Sequence[str]) -> str:
    text = ", ".join(labels[:N_SHOWN])
    return text if len(labels) <= N_SHOWN else f"{text}, ..."
