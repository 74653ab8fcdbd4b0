"""``bsym info``: what is in a saved model or a cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bsym_sklearn.cli.command import (
    CONTEXT_SETTINGS,
    Command,
    common_options,
    option,
    put,
)
from bsym_sklearn.cli.files import Source, is_bundle
from bsym_sklearn.cli.options import with_cohort

if TYPE_CHECKING:
    import pandas as pd

# Of the settings in a bundle: shown under other names, or for the machine alone.
SHOWN = ["backbone", "class", "fitted", "history", "params", "participants"]
SHOWN += ["preprocessing", "versions"]
MAX_TEXT = 200  # characters of a line; --json has all
MAX_VALUES = 6  # of a column that are listed
MAX_PROBLEMS = 10  # that are printed; --json has all
EXAMPLES = """
bsym info cohort/
bsym info model/ --json
bsym info --derivatives xcp_d/ --atlas 4S456Parcels
"""


@click.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT_SETTINGS)
@with_cohort
@option(
    "--json/--text",
    "as_json",
    default=False,
    help="Print JSON, or lines to read.",
)
@common_options
def info(source: Source, as_json: bool) -> None:
    """Say what is in a cohort or a saved model.

    COHORT is a cohort, of which all scans are read and checked, or else the folder of a
    saved model, of which nothing is run.
    """
    if source.cohort is not None and is_bundle(source.cohort):
        facts = describe_bundle(source.cohort)
    else:
        facts = describe_cohort(source.open(), source)
    put(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _lines(facts))


def describe_bundle(folder: Path) -> dict[str, Any]:
    """Return what a saved model says of itself.

    Parameters
    ----------
    folder : Path
        Bundle.

    Returns
    -------
    dict
        What JSON can hold.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    from bsym_sklearn.training.checkpoints import load_bundle

    tensors, config = load_bundle(folder)
    fitted, history = config.get("fitted", {}), config.get("history", [])
    losses = [
        {k: epoch[k] for k in ("train_loss", "valid_loss") if k in epoch}
        for epoch in history
    ]
    participants = config.get("participants", {}).get("hashes", [])
    plain = {
        "kind": "saved model",
        "class": config.get("class"),
        "modalities": fitted.get("modalities_"),
        "regions": fitted.get("n_regions_"),
        "participants seen": len(fitted.get("participants_", participants)),
        "window (time points)": config.get("preprocessing", {}).get("window"),
        "repetition time (s)": config.get("preprocessing", {}).get("t_r"),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "size (MB)": round(_size(folder) / 1e6, 2),
        "epochs": len(history),
        "first epoch": losses[0] if losses else None,
        "last epoch": losses[-1] if losses else None,
        "parameters": config.get("params"),
        "versions": config.get("versions"),
    }
    others = {
        name.replace("_", " "): value
        for name, value in config.items()
        if name not in SHOWN and value not in (None, [], {})
    }
    return {k: v for k, v in (plain | others).items() if v is not None}


def describe_cohort(X: pd.DataFrame, source: Source) -> dict[str, Any]:
    """Return what is in a cohort, after reading all of it.

    Parameters
    ----------
    X : DataFrame
        One row per scan.
    source : Source
        Where it comes from.

    Returns
    -------
    dict
        What JSON can hold.

    Raises
    ------
    BrainDataError
        If no scan can be used.
    """
    from bsym_sklearn import BrainSymphonyEmbedder
    from bsym_sklearn.report.scans import WHO, read_scans

    try:
        scans = read_scans(X, None, BrainSymphonyEmbedder(constant_regions="mask"))
    except ValueError as error:  # no scan can be used
        raise type(error)(str(error).replace(WHO, "bsym info")) from error
    table = scans.table
    lengths = table.loc[table["fmri"], "time points"]
    regions = scans.cohort.regions
    facts: dict[str, Any] = {
        "kind": "cohort",
        "path": source.name.strip("'"),
        "scans": len(X),
        "participants": int(table["participant"].nunique()) or None,
        "regions": scans.cohort.n_regions,
        "table of regions": None if regions is None else list(map(str, regions)),
        "fmri": int(table["fmri"].sum()),
        "sc": int(table["sc"].sum()),
        "both": int((table["fmri"] & table["sc"]).sum()),
        "time points": _range(lengths),
        "minutes": _range(table["minutes"].dropna().round(2)),
        "scans with constant regions": int(table["constant regions"].gt(0).sum()),
        "scans given twice": int(table["content"].duplicated().sum()),
        "columns": {str(k): _column(v) for k, v in scans.covariates.items()},
        "scans that cannot be used": [
            {
                "scan": int(row["scan"]),
                "participant": row["participant"],
                "reason": str(row["reason"]).replace(WHO, "bsym info"),
            }
            for row in scans.refused.to_dict("records")
        ],
    }
    if "skipped" in X.attrs:
        facts["files skipped"] = X.attrs["skipped"].to_dict("records")
    return {k: v for k, v in facts.items() if v is not None}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _range(values: pd.Series) -> str | None:
    """Return one value, or the ends and the median."""
    if values.empty:
        return None
    low, high = values.min(), values.max()
    if low == high:
        return f"{low:g}"
    return f"{low:g} to {high:g}, median {values.median():g}"


def _column(values: pd.Series) -> str:
    """Return what a column holds, in a few words."""
    missing = int(values.isna().sum())
    present = values.dropna()
    distinct = present.unique().tolist()
    said = "empty"
    if present.dtype.kind in "if" and len(distinct) > MAX_VALUES:
        said = f"numbers, {_range(present)}"
    elif 0 < len(distinct) <= MAX_VALUES:
        counts = present.value_counts()
        said = ", ".join(f"{value} ({n})" for value, n in counts.items())
    elif distinct:
        said = f"{len(distinct)} different values"
    return said + (f"; {missing} missing" if missing else "")


def _lines(facts: Mapping[str, Any]) -> str:
    """Return facts as aligned lines, lists and tables below them."""
    width = max(map(len, facts))
    lines = [f"{k:{width}}  {_text(v)}" for k, v in facts.items() if not _is_long(v)]
    for name, value in facts.items():
        if not _is_long(value):
            continue
        lines += ["", f"{name}:"]
        if isinstance(value, Mapping):
            inner = max(map(len, value), default=0)
            lines += [f"  {k:{inner}}  {_text(v)}" for k, v in value.items()]
        else:
            lines += [f"  {_text(one)}" for one in value[:MAX_PROBLEMS]]
            more = len(value) - MAX_PROBLEMS
            lines += [f"  and {more} more, see --json"] if more > 0 else []
    return "\n".join(lines)


def _is_long(value: Any) -> bool:
    """Say if a value is better shown below the others."""
    if isinstance(value, Mapping):
        return len(value) > 3
    return isinstance(value, list) and any(isinstance(x, Mapping) for x in value)


def _text(value: Any) -> str:
    """Return a value in one line."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(_text, value)) or "none"
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = f"{value:,}" if type(value) is int else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."
