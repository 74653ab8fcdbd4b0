"""Cohorts from what XCP-D, fMRIPrep, QSIRecon and MRtrix write."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from bsym_sklearn.data.bids import (
    BidsFile,
    Dataset,
    Skipped,
    open_dataset,
    walk_bids_files,
)
from bsym_sklearn.data.bids_selection import (
    Entities,
    select_connectomes,
    select_series,
)
from bsym_sklearn.data.checks import check_option
from bsym_sklearn.data.connectomes import (
    Connectome,
    UnreadableFileError,
    check_labels,
    read_connectome,
)
from bsym_sklearn.data.derivative_rows import join_connectomes, make_rows, make_table
from bsym_sklearn.data.dseg import find_atlas_table, make_region_table, table_labels
from bsym_sklearn.data.folder import RegionTable
from bsym_sklearn.data.parcellated import open_series
from bsym_sklearn.data.region_matching import Labelled, OnMismatch, match_regions
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

T = TypeVar("T")


@dataclass
class _Folder:
    """One modality's folder: all files of it, and what was read of the chosen ones."""

    dataset: Dataset
    files: list[BidsFile]
    read: list[Labelled] = field(default_factory=list)


def load_derivatives(
    fmri_dir: str | os.PathLike[str] | None = None,
    sc_dir: str | os.PathLike[str] | None = None,
    *,
    atlas: str | None = None,
    measure: str | None = None,
    fmri_entities: Entities | None = None,
    sc_entities: Entities | None = None,
    sc_labels: Sequence[str] | None = None,
    on_mismatch: OnMismatch = "error",
) -> pd.DataFrame:
    r"""Read the outputs of preprocessing pipelines into a cohort DataFrame.

    Series come from XCP-D (``sub-*_atlas-*_stat-mean_timeseries.tsv``, ``seg-*`` before
    version 26) or any table of that name whose first row names the regions, and from
    CIFTI files ``sub-*.ptseries.nii``. Connectomes come from QSIRecon
    (``sub-*_connectivity.mat``) and MRtrix (``sub-*_connectome.csv`` or
    ``sub-*_connectivity.csv``), or HDF5 files with the variables of the ``.mat``
    (needs h5py). Regions are matched by label and brought into one order.

    A row is a scan: participant, session, task, run, and other entities of
    acquisition where they occur. The connectome of a participant and session stands in
    all rows of these; one without session stands in all sessions. Connectomes without
    series get rows of their own.

    Parameters
    ----------
    fmri_dir, sc_dir : path or None, default=None
        Folders that hold ``sub-*``, at any depth; at least one. ``participants.tsv``
        (the nearest) and ``sub-*_sessions.tsv`` are looked for there and in the
        datasets around them, known by ``dataset_description.json`` or a folder
        ``derivatives``. Links that lead out of these are not followed.
    atlas : str or None, default=None
        Name of the atlas, as in file names and in ``.mat`` files. None takes the only
        one of each folder.
    measure : str or None, default=None
        Measure of connection in ``.mat`` and HDF5 files, such as
        ``"sift_invnodevol_radius2_count"``. None takes the only one.
    fmri_entities, sc_entities : dict of str to (str or None), or None, default=None
        Which files to read, by BIDS entities: ``{"task": "rest"}``. None as a value
        wants names without that entity: ``{"run": None}`` reads what XCP-D's
        ``--combine-runs`` joined instead of the runs.
    sc_labels : sequence of str or None, default=None
        Labels of the rows of matrices that name no regions, as MRtrix writes them.
        None takes them from the column ``name`` or ``label`` of the atlas's
        ``*_dseg.tsv``, if there is one in the folders. Labels in a file come first.
    on_mismatch : {"error", "skip", "common"}, default="error"
        What to do when files differ in their regions, where columns of ``n/a`` (too
        few voxels in view) count as missing. Raise; skip the files that differ from
        most; or keep the regions that every file has.

    Returns
    -------
    cohort : DataFrame
        One row per scan with ``participant_id``, ``session_id``, ``task``, ``run``,
        the covariates of participants and sessions, and where there are series
        ``t_r`` (seconds, ``RepetitionTime`` of the nearest JSON sidecar, else of the
        CIFTI header) and ``mean_fd`` (mm, mean framewise displacement of all volumes,
        censored ones too). A cell of ``fmri`` is a path, opened when it is used, if
        the file is a ``.tsv`` with the regions in order, else a float32 array of shape
        (n_timepoints, n_regions); a cell of ``sc`` is a float32 array of shape
        (n_regions, n_regions). Matrices with one empty triangle are mirrored.
        ``attrs["regions"]`` has the column ``label`` and what the atlas's
        ``*_dseg.tsv`` tells; ``attrs["skipped"]`` has the columns ``file`` and
        ``reason``.

    Raises
    ------
    BrainDataError
        If a folder has no files of this kind, several atlases, measures or files of
        one scan are there and none is chosen, regions differ, matrices name no
        regions, or a table of participants names one twice.
    ImportError
        If a file is HDF5 and h5py is not installed.
    ValueError
        If neither folder is given or `on_mismatch` is unknown.

    Warns
    -----
    BrainSymphonyWarning
        If files were skipped.

    Notes
    -----
    XCP-D's mode ``linc`` removes the volumes with high motion, so that neighbouring
    time points may lie further apart than ``t_r``; its modes ``abcd`` and ``hbcd``
    interpolate them.

    References
    ----------
    .. [1] Mehta et al. (2024). XCP-D: A robust pipeline for the post-processing of
       fMRI data. Imaging Neuroscience 2.
    .. [2] Cieslak et al. (2021). QSIPrep: an integrative platform for preprocessing
       and reconstructing diffusion MRI data. Nature Methods 18.
    .. [3] Power et al. (2012). Spurious but systematic correlations in functional
       connectivity MRI networks arise from subject motion. NeuroImage 59.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bsym_sklearn.data.derivatives import load_derivatives
    >>> name = "sub-01_task-rest_space-MNI152NLin6Asym_atlas-Tian_stat-mean_timeseries"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     func = Path(folder, "sub-01", "func")
    ...     func.mkdir(parents=True)
    ...     _ = (func / f"{name}.tsv").write_text("HIP-rh\tAMY-rh\n1\t2\n2\t1\n")
    ...     _ = (func / f"{name}.json").write_text('{"RepetitionTime": 0.8}')
    ...     X = load_derivatives(folder)
    >>> X[["participant_id", "task", "t_r"]].values.tolist()
    [['sub-01', 'rest', 0.8]]
    >>> X.attrs["regions"]["label"].tolist()
    ['HIP-rh', 'AMY-rh']
    """
    check_option("on_mismatch", on_mismatch, ("error", "skip", "common"))
    if fmri_dir is None and sc_dir is None:
        raise ValueError(
            "load_derivatives needs fmri_dir, sc_dir or both. Got neither."
        )
    skipped: Skipped = []
    fmri = sc = None
    if fmri_dir is not None:
        fmri = _open_folder(fmri_dir, "fmri_dir", skipped)
        chosen = select_series(fmri.files, fmri.dataset, atlas, fmri_entities, skipped)
        opened = _read_all(chosen, open_series, "fmri", skipped)
        fmri.read = [Labelled(s.file, s.labels, s) for s in opened]
    if sc_dir is not None:
        sc = _open_folder(sc_dir, "sc_dir", skipped)
        chosen = select_connectomes(sc.files, sc.dataset, atlas, sc_entities, skipped)
        matrices = _read_all(
            chosen, lambda f: read_connectome(f, atlas, measure), "sc", skipped
        )
        files = [*sc.files, *(fmri.files if fmri else [])]
        sc.read = [
            Labelled(m.file, _labels_of(m, files, atlas, sc_labels), m.weights)
            for m in matrices
        ]
    series, connectomes, regions = match_regions(
        fmri.read if fmri else [], sc.read if sc else [], on_mismatch, skipped
    )
    folders = [folder for folder in (fmri, sc) if folder is not None]
    rows = [] if fmri is None else make_rows(series, regions, fmri.dataset, skipped)
    rows = join_connectomes(rows, connectomes, regions)
    cohort = make_table(
        rows,
        [folder.dataset for folder in folders],
        skipped,
        has_fmri=fmri is not None,
        has_sc=sc is not None,
    )
    table = find_atlas_table(
        [file for folder in folders for file in folder.files],
        atlas or folders[0].read[0].file.atlas,
    )
    cohort.attrs["regions"] = make_region_table(regions, table)
    cohort.attrs["skipped"] = RegionTable(skipped, columns=["file", "reason"])
    _warn_of_skipped(skipped)
    return cohort


def _open_folder(
    folder: str | os.PathLike[str], name: str, skipped: Skipped
) -> _Folder:
    dataset = open_dataset(folder, name)
    return _Folder(dataset, list(walk_bids_files(dataset, skipped)))


def _read_all(
    files: Sequence[BidsFile],
    read: Callable[[BidsFile], T],
    kind: str,
    skipped: Skipped,
) -> list[T]:
    """Read what can be read; raise if that is nothing."""
    results = []
    for file in files:
        try:
            results.append(read(file))
        except UnreadableFileError as error:
            skipped.append((str(file.path), str(error)))
    if not results:
        path, reason = skipped[-1]
        raise BrainDataError(
            f"load_derivatives needs {kind} files that it can use. Got none, the last "
            f"'{path}' ({reason}). Repair the files, or choose others with atlas=, "
            f"measure= or {kind}_entities=."
        )
    return results


def _labels_of(
    matrix: Connectome,
    files: Sequence[BidsFile],
    atlas: str | None,
    given: Sequence[str] | None,
) -> tuple[str, ...]:
    """Return the labels in the file, else those given, else those of the atlas."""
    if matrix.labels is not None:
        return matrix.labels
    if given is not None:
        labels: tuple[str, ...] | None = tuple(given)
    else:
        labels = table_labels(find_atlas_table(files, atlas or matrix.file.atlas))
    if labels is None:
        raise BrainDataError(
            "load_derivatives needs labels of the regions of every connectome. Got "
            f"none in '{matrix.file.path}'. Pass those of its rows as sc_labels=[...], "
            "or put the atlas's *_atlas-<name>_dseg.tsv into sc_dir."
        )
    try:
        check_labels(labels, len(matrix.weights))
    except UnreadableFileError as error:
        raise BrainDataError(
            f"load_derivatives needs one label per row of a connectome. Got one that "
            f"{error}, '{matrix.file.path}'. Pass the labels of this atlas as "
            "sc_labels=[...]."
        ) from error
    return labels


def _warn_of_skipped(skipped: Skipped) -> None:
    if skipped:
        file, reason = skipped[0]
        warnings.warn(
            f"load_derivatives skipped {len(skipped)} "
            f"file{'s' if len(skipped) > 1 else ''}, first '{file}' ({reason}). "
            "X.attrs['skipped'] lists them all.",
            BrainSymphonyWarning,
            stacklevel=3,
        )
