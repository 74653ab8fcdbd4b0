"""Regions of atlases as one table: labels, networks, hemispheres and centres.

Shape letters: R regions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bsym_sklearn.data.atlas_images import fetch_atlas, read_centres, read_values
from bsym_sklearn.data.folder import RegionTable
from bsym_sklearn.data.images import open_image
from bsym_sklearn.data.tsv import parse_covariate, read_tsv
from bsym_sklearn.exceptions import BrainDataError

SCHAEFER_TIAN = "schaefer+tian"
TABLES = Path(__file__).parent / "tables"
PLACES = ["x", "y", "z"]
BACKGROUND = "background"
# "7Networks_LH_Vis_1" of Schaefer et al., "LH_Vis_1" of XCP-D's copies of it.
NETWORK = re.compile(
    r"(?:(?:7|17)Networks_[LR]H_([A-Za-z]+)"
    r"|[LR]H_(Vis|SomMot|DorsAttn|SalVentAttn|Limbic|Cont|Default))_"
)
# LH, lh, Left anywhere between separators; a lone L only at an end.
LEFT = re.compile(r"(?:^|[-_ ])(?:lh|left)(?:$|[-_ ])|^l[-_ ]|[-_ ]l$", re.IGNORECASE)
RIGHT = re.compile(r"(?:^|[-_ ])(?:rh|right)(?:$|[-_ ])|^r[-_ ]|[-_ ]r$", re.IGNORECASE)
# Columns of the labels of DiFuMo, and what they are here.
DIFUMO = {
    "difumo_names": "label",
    "yeo_networks7": "network",
    "yeo_networks17": "network17",
}


@dataclass(frozen=True)
class Atlas:
    """An image of regions and the table of them, in the order of their values."""

    image: Any
    values: np.ndarray
    regions: RegionTable


def load_atlas(
    atlas: Any,
    *,
    labels: Sequence[str] | pd.DataFrame | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Return the table of an atlas's regions.

    The table is what a cohort has in ``attrs["regions"]``: `parcellate` puts it there
    itself, for other cohorts it is assigned.

    Parameters
    ----------
    atlas : str, path, image or Bunch
        ``"schaefer+tian"``, the 450 regions of the BrainSymphony paper: 50 subcortical
        ones of Tian et al. (scale III), then 400 cortical ones of Schaefer et al. in
        the order of 7 networks. A name of an atlas of nilearn: ``"aal"``,
        ``"harvard_oxford"``, ``"msdl"``, ``"difumo64"`` (or 128, 256, 512, 1024),
        ``"schaefer400"`` (100 to 1000), from nilearn's cache or downloaded. What a
        ``nilearn.datasets.fetch_atlas_...`` or ``fetch_coords_...`` returned. Or a 3-D
        image of whole numbers, or a 4-D image of one map per region.
    labels : sequence of str, DataFrame or None, default=None
        Labels in the order of the image's values, or a table with a column ``label``;
        one with a column ``index`` is matched by the image's values instead. None
        takes those of the atlas, or ``"region-1"``, ... by value.
    data_dir : path or None, default=None
        Folder of nilearn's data, for names.

    Returns
    -------
    regions : DataFrame
        One row per region: ``index`` (value in the image, or number of the map, from
        1), ``label`` (unique: of equal ones each gets its index behind it); where
        known ``network`` and ``hemisphere`` (``"left"``, ``"right"`` or empty); and
        ``x``, ``y``, ``z`` (mm), the atlas's own or the mean place of the voxels. A
        region of both hemispheres has it between them.

    Raises
    ------
    BrainDataError
        If the atlas cannot be read or downloaded, or labels do not fit its regions.

    References
    ----------
    .. [1] Schaefer et al. (2018). Local-global parcellation of the human cerebral
       cortex from intrinsic functional connectivity MRI. Cerebral Cortex 28:3095.
    .. [2] Tian et al. (2020). Topographic organization of the human subcortex unveiled
       with functional connectivity gradients. Nature Neuroscience 23:1421.
    .. [3] Dadi et al. (2020). Fine-grain atlases of functional modes for fMRI analysis.
       NeuroImage 221:117126.

    Examples
    --------
    >>> from bsym_sklearn.data.atlases import load_atlas
    >>> regions = load_atlas("schaefer+tian")
    >>> regions[["label", "network", "hemisphere"]].iloc[[0, 50]].values.tolist()
    [['HIP-head-m-rh', 'Subcortex', 'right'], ['7Networks_LH_Vis_1', 'Vis', 'left']]
    """
    if isinstance(atlas, str) and atlas == SCHAEFER_TIAN:
        table = read_tsv(TABLES / "schaefer400_tian3.tsv", caller="load_atlas")
        return RegionTable(table.apply(parse_covariate))
    if isinstance(atlas, Mapping) and "maps" not in atlas and "rois" in atlas:
        return _complete(_from_places(atlas), None)
    return open_atlas(
        atlas, labels=labels, data_dir=data_dir, caller="load_atlas"
    ).regions


def open_atlas(
    atlas: Any,
    *,
    labels: Sequence[str] | pd.DataFrame | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    caller: str,
) -> Atlas:
    """Return the image of an atlas with the table of its regions, or raise."""
    if isinstance(atlas, str) and atlas == SCHAEFER_TIAN:
        raise BrainDataError(
            f"{caller} needs the image of an atlas. Got {SCHAEFER_TIAN!r}, of which "
            "only the table is at hand. Pass the path of the image of "
            "github.com/yetianmed/subcortex, and labels=load_atlas('schaefer+tian')."
        )
    bunch = fetch_atlas(atlas, data_dir, caller)
    if "maps" not in bunch:
        raise BrainDataError(
            f"{caller} needs an atlas with an image under 'maps'. Got "
            f"{sorted(bunch)}. Pass what nilearn.datasets.fetch_atlas_... returns."
        )
    image = open_image(bunch["maps"], caller=caller, what="an atlas", n_dims=(3, 4))
    image, values = read_values(image, caller)
    table = _describe(bunch, labels, values, caller)
    return Atlas(image, values, _complete(table, image))


def region_labels(table: Any, name: str, caller: str) -> tuple[str, ...]:
    """Return unique labels of a sequence or of a table of regions, or raise."""
    if isinstance(table, pd.DataFrame):
        table = _label_column(table, name, caller)
    if table is None or isinstance(table, str):
        raise BrainDataError(
            f"{caller} needs labels of regions in {name}. Got {table!r}. Pass a "
            "sequence of texts or a table of regions."
        )
    labels = tuple(str(label) for label in table)
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise BrainDataError(
                f"{caller} needs every label once in {name}. Got {label!r} twice. "
                "Give the regions different names."
            )
        seen.add(label)
    return labels


def _label_column(table: pd.DataFrame, name: str, caller: str) -> pd.Series:
    if "label" not in table:
        raise BrainDataError(
            f"{caller} needs a column 'label' in {name}. Got {list(table)}. Rename the "
            "column that names the regions."
        )
    return table["label"]


def _describe(
    bunch: Mapping[str, Any],
    labels: Sequence[str] | pd.DataFrame | None,
    values: np.ndarray,
    caller: str,
) -> pd.DataFrame:
    """Return a table with the columns index and label, one row per value."""
    known = bunch.get("labels")
    if labels is not None:
        table = _as_table(labels, caller)
    elif bunch.get("lut") is not None:
        table = bunch["lut"].rename(columns={"name": "label"})
        table = table.drop(columns="color", errors="ignore")
    elif known is not None:
        table = _as_table(known, caller)
        if bunch.get("networks") is not None:
            table["network"] = list(bunch["networks"])
        if bunch.get("region_coords") is not None:
            table[PLACES] = np.asarray(bunch["region_coords"], dtype=float)
    else:
        table = pd.DataFrame({"label": [f"region-{value}" for value in values]})
    if "index" in table:
        return _by_value(table, values, caller)
    return _by_position(table, values, caller)


def _as_table(labels: Any, caller: str) -> pd.DataFrame:
    """Return labels, or a table of them such as DiFuMo's, with a column label."""
    if not isinstance(labels, pd.DataFrame):
        return pd.DataFrame({"label": [str(label) for label in labels]})
    if "difumo_names" in labels:
        return labels[list(DIFUMO)].rename(columns=DIFUMO).reset_index(drop=True)
    _label_column(labels, "labels", caller)
    return labels.reset_index(drop=True)


def _by_position(table: pd.DataFrame, values: np.ndarray, caller: str) -> pd.DataFrame:
    first = str(table["label"].iloc[0]).lower() if len(table) else ""
    if len(table) == len(values) + 1 and first == BACKGROUND:
        table = table.iloc[1:].reset_index(drop=True)
    if len(table) != len(values):
        raise BrainDataError(
            f"{caller} needs one label per region of the atlas. Got {len(table)} "
            f"labels for {len(values)} regions. Leave out the label of the background, "
            "or pass a table with the columns 'index' (values in the image) and "
            "'label'."
        )
    return table.assign(index=values)


def _by_value(table: pd.DataFrame, values: np.ndarray, caller: str) -> pd.DataFrame:
    numbers = pd.to_numeric(table["index"], errors="coerce")
    table = table.assign(index=numbers).drop_duplicates("index").set_index("index")
    unknown = [value for value in values.tolist() if value not in table.index]
    if unknown:
        raise BrainDataError(
            f"{caller} needs a label for every value of the atlas's image. Got none "
            f"for {len(unknown)} of {len(values)} values, first {unknown[0]}. Complete "
            "the column 'index' of the table of labels."
        )
    return table.loc[values].rename_axis("index").reset_index()


def _from_places(bunch: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of an atlas that is a list of places, such as Power's."""
    places = pd.DataFrame(bunch["rois"]).reset_index(drop=True)
    table = pd.DataFrame({"index": np.arange(1, len(places) + 1)})
    names = bunch.get("labels")
    table["label"] = [f"region-{i}" for i in table["index"]] if names is None else names
    if bunch.get("networks") is not None:
        table["network"] = list(bunch["networks"])
    table[PLACES] = places[PLACES].astype(float)
    return table


def _complete(table: pd.DataFrame, image: Any) -> RegionTable:
    """Make labels unique; add networks, hemispheres and centres where they lack."""
    labels = table["label"].astype(str)
    twice = labels.duplicated(keep=False)
    labels = labels.where(~twice, labels + " " + table["index"].astype(str))
    columns: dict[str, Any] = {"index": table["index"].astype(int), "label": labels}
    networks = [_network(label) for label in labels]
    if "network" in table:
        columns["network"] = table["network"]
    elif any(networks):
        columns["network"] = networks
    hemispheres = [_hemisphere(label) for label in labels]
    if "hemisphere" in table:
        columns["hemisphere"] = table["hemisphere"]
    elif any(hemispheres):
        columns["hemisphere"] = hemispheres
    if not set(PLACES) <= set(table):
        centres = read_centres(image, table["index"].to_numpy())
        columns.update(zip(PLACES, centres.T, strict=True))
    others = {name: table[name] for name in table if name not in columns}
    return RegionTable({**columns, **others}, index=range(len(table)))


def _network(label: str) -> str:
    found = NETWORK.match(label)
    return "" if found is None else found[1] or found[2]


def _hemisphere(label: str) -> str:
    is_left, is_right = LEFT.search(label), RIGHT.search(label)
    if bool(is_left) == bool(is_right):
        return ""
    return "left" if is_left else "right"
