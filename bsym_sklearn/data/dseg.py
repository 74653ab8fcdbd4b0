"""Tables of an atlas's regions, ``*_dseg.tsv``, as XCP-D and QSIRecon copy them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bsym_sklearn.data.bids import BidsFile
from bsym_sklearn.data.folder import RegionTable
from bsym_sklearn.data.tsv import parse_covariate, read_tsv

# XCP-D and QSIRecon take their labels from "name"; XCP-D before 0.7 from "label".
LABEL_COLUMNS = ("name", "label")


def find_atlas_table(files: Sequence[BidsFile], atlas: str) -> pd.DataFrame | None:
    """Return the table of an atlas in the order of its values, without background."""
    tables = [
        file
        for file in files
        if atlas and file.atlas == atlas and file.suffix == "dseg"
        if file.extension == ".tsv"
    ]
    tables.sort(key=lambda file: "sub" in file.entities)  # the template's own first
    if not tables:
        return None
    table = read_tsv(tables[0].path, caller="load_derivatives")
    if "index" in table.columns:
        values = pd.to_numeric(table["index"], errors="coerce")
        table = table.loc[values.sort_values().index]
        table = table[values.loc[table.index] > 0]
    return table.reset_index(drop=True)


def table_labels(table: pd.DataFrame | None) -> tuple[str, ...] | None:
    """Return the labels of all regions of an atlas, None if it has none."""
    if table is None:
        return None
    column = next((name for name in LABEL_COLUMNS if name in table.columns), None)
    return None if column is None else tuple(table[column].str.strip())


def make_region_table(
    regions: Sequence[str], table: pd.DataFrame | None
) -> RegionTable:
    """Return one row per region: its label, and what the atlas tells of it."""
    labels = RegionTable({"label": list(regions)})
    if table is None:
        return labels
    for column in LABEL_COLUMNS:
        if column not in table.columns or not table[column].is_unique:
            continue
        if set(regions) <= set(table[column]):
            rows = table.set_index(column).loc[list(regions)].reset_index(drop=True)
            rows = rows.drop(columns="label", errors="ignore").apply(parse_covariate)
            return RegionTable(pd.concat([labels, rows], axis=1))
    return labels
