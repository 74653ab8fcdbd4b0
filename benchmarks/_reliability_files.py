"""Files of every kind that the package reads, and the reading of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from _reliability_models import (
    compare_models,
    digest,
    fitted,
    pretrain_uncounted,
    scans,
)
from scipy.io import savemat
from torch.optim.optimizer import register_optimizer_step_post_hook

import bsym_sklearn
from bsym_sklearn.data import check_cohort, load_cohort, save_shards
from bsym_sklearn.data.derivatives import load_derivatives

LABELS = [f"R{i}" for i in range(5)]
N_STEPS_OF_STATE = 7  # of 15: a state in the middle of training


class Kind(NamedTuple):
    """Files of one kind: `write` two independent folders of them, `read` one.

    `has_check` tells that a change of any value must be noticed. Formats of others,
    such as .npy, have no check, and other numbers in them are other data.
    """

    name: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], str]
    pattern: str
    has_check: bool


def write_bundle(folder: Path, seed: int) -> None:
    fitted(seed).save_pretrained(folder / "model")


def read_bundle(folder: Path) -> str:
    model = bsym_sklearn.BrainSymphonyEmbedder.from_pretrained(folder / "model")
    return digest(model.transform(scans()[0]))


class _StoppedError(BaseException):
    """The machine stops."""


def write_state(folder: Path, seed: int) -> None:
    """Leave the state of a fit that was stopped in the middle."""
    n_left = N_STEPS_OF_STATE

    def stop(*_: object) -> None:
        nonlocal n_left
        n_left -= 1
        if n_left == 0:
            raise _StoppedError

    handle = register_optimizer_step_post_hook(stop)
    try:
        pretrain_uncounted(folder, seed)
    except _StoppedError:
        return
    finally:
        handle.remove()


def write_store(folder: Path, seed: int) -> None:
    """Leave a comparison of which a cell is not there, but the weights it needs."""
    compare_models(folder, n_seeds=1 + seed)
    for path in (folder / "store" / "cells").iterdir():
        if json.loads(path.read_text())["name"] == "pretrained, fold 1, seed 0":
            path.unlink()


def write_cohort(folder: Path, seed: int) -> None:
    """Write scans in each of the formats that a cohort may name."""
    rng = np.random.default_rng(seed)
    lines = ["participant_id\tage\tfmri\tsc"]
    for i, ending in enumerate((".npy", ".npy", ".tsv", ".csv", ".1D")):
        series = rng.normal(size=(30, len(LABELS)))
        weights = np.triu(rng.uniform(1, 2, (len(LABELS), len(LABELS))), 1)
        (folder / "fmri").mkdir(exist_ok=True, parents=True)
        (folder / "sc").mkdir(exist_ok=True)
        path = folder / "fmri" / f"{i}{ending}"
        if ending == ".npy":
            np.save(path, series.astype(np.float32 if i else np.float64))
        elif ending == ".1D":
            np.savetxt(path, series)
        else:
            table = pd.DataFrame(series, columns=LABELS)
            table.to_csv(path, sep="\t" if ending == ".tsv" else ",", index=False)
        np.save(folder / "sc" / f"{i}.npy", weights + weights.T)
        lines.append(f"{i:02}\t{20 + i}\tfmri/{path.name}\tsc/{i}.npy")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    regions = "\n".join(f"{label}\tVis\t{i}\t2\t3" for i, label in enumerate(LABELS))
    (folder / "regions.tsv").write_text(f"label\tnetwork\tx\ty\tz\n{regions}\n")


def read_cohort(folder: Path) -> str:
    return cohort_digest(load_cohort(folder))


def write_shards(folder: Path, seed: int) -> None:
    with TemporaryDirectory(prefix="reliability-") as name:
        write_cohort(Path(name), seed)
        save_shards(load_cohort(name), folder, scans_per_shard=2)


def write_derivatives(folder: Path, seed: int) -> None:
    """Write what pipelines write of four people, connectomes in three formats."""
    rng = np.random.default_rng(seed)
    for i, ending in enumerate((".mat", ".h5", ".csv", ".mat")):
        person = folder / f"sub-{i}"
        for name in ("func", "dwi"):
            (person / name).mkdir(parents=True)
        series = rng.normal(size=(20, len(LABELS)))
        name = f"sub-{i}_task-rest_atlas-Made"
        if i:
            table = pd.DataFrame(series, columns=LABELS)
            path = person / "func" / f"{name}_stat-mean_timeseries.tsv"
            table.to_csv(path, sep="\t", index=False)
            sidecar = json.dumps({"RepetitionTime": 0.8})
            path.with_suffix(".json").write_text(sidecar)
        else:
            _write_cifti(person / "func" / f"{name}_bold.ptseries.nii", series)
        half = np.triu(rng.uniform(1, 2, (len(LABELS), len(LABELS))), 1)
        path = person / "dwi" / f"sub-{i}_atlas-Made_connectivity{ending}"
        _write_connectome(path, half + half.T)
    lines = [f"sub-{i}\t{30 + i}" for i in range(4)]
    text = "\n".join(["participant_id\tage", *lines])
    (folder / "participants.tsv").write_text(text + "\n")
    (folder / "dataset_description.json").write_text("{}")


def _write_cifti(path: Path, series: np.ndarray) -> None:
    voxels = np.eye(len(LABELS), dtype=bool)[:, :, None, None]  # one per region
    parts = [
        nib.cifti2.BrainModelAxis.from_mask(mask, affine=np.eye(4)) for mask in voxels
    ]
    named = list(zip(LABELS, parts, strict=True))
    parcels = nib.cifti2.ParcelsAxis.from_brain_models(named)
    steps = nib.cifti2.SeriesAxis(0, 0.8, len(series))
    nib.Cifti2Image(series.astype(np.float32), (steps, parcels)).to_filename(path)


def _write_connectome(path: Path, weights: np.ndarray) -> None:
    content = {
        "atlas_Made_count_connectivity": weights,
        "atlas_Made_region_labels": np.array(LABELS, dtype=object),
    }
    if path.suffix == ".mat":
        savemat(path, content, do_compression="3" in path.name, long_field_names=True)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["atlas_Made_count_connectivity"] = weights
            file["atlas_Made_region_labels"] = LABELS
    else:
        pd.DataFrame(weights, index=LABELS, columns=LABELS).to_csv(path)


def read_derivatives(folder: Path) -> str:
    X = load_derivatives(folder, folder, atlas="Made")
    X.attrs["skipped"]["file"] = ""  # places that differ
    return cohort_digest(X)


def cohort_digest(X: pd.DataFrame) -> str:
    """Return the hash of all values of a cohort."""
    cohort = check_cohort(X, caller="The campaign")
    recordings = [r for r in (*cohort.fmri, *cohort.sc) if r is not None]
    table = X.drop(columns=["fmri", "sc"], errors="ignore").astype(str)
    texts = [table.to_csv(), *(frame.to_csv() for frame in X.attrs.values())]
    values = [recording.read(None) for recording in recordings]
    codes = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    return digest(*values, *codes)


KINDS = [
    Kind("saved models", write_bundle, read_bundle, "model/*", has_check=True),
    Kind("checkpoints", write_state, pretrain_uncounted, "states/*", has_check=True),
    Kind(
        "stores of comparisons",
        write_store,
        compare_models,
        "store/*/**/*",
        has_check=True,
    ),
    Kind("cohort folders", write_cohort, read_cohort, "**/*", has_check=False),
    Kind("shards of a cohort", write_shards, read_cohort, "shards/*", has_check=True),
    Kind("derivatives", write_derivatives, read_derivatives, "**/*", has_check=False),
]


def read_quietly(kind: Kind, folder: Path) -> str:
    """Read without warnings, of which there are many when files are damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.read(folder)
