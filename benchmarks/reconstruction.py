"""Reconstruction of hidden regions, time points and edges of people never seen.

    python benchmarks/reconstruction.py --data FOLDER --out FOLDER

The people of a cohort folder are split; models are fitted on the scans of one part and
asked about those of the other, for each part in turn. The same values are hidden from
every model, chosen anew for each seed, which also seeds the networks. Beside the model
stand its untrained self and the simple floors of `bsym_sklearn.analysis.imputation`.
Finished fits are kept in --out (with the hash of the code that made them in
settings.json: empty the folder after a change that matters).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _reconstruction_page import section, tables
from sklearn.base import clone
from sklearn.model_selection import GroupKFold

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.hidden import draw_masks
from bsym_sklearn.analysis.identity import describe, hash_of
from bsym_sklearn.analysis.imputation import (
    GaussianProcess,
    LinearInterpolation,
    MeanEdges,
    RegionMean,
    RidgeRegions,
)
from bsym_sklearn.analysis.provenance import Provenance, current_provenance
from bsym_sklearn.analysis.reconstruction import score_connectomes, score_hidden
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.data import Cropper, check_cohort, load_cohort
from bsym_sklearn.files import write_atomically

__all__ = ["main", "section"]

GROUP = "participant_id"
TRAINED, UNTRAINED = "BrainSymphony", "BrainSymphony, untrained"
RANDOM = "BrainSymphony, untrained, nothing fitted"
# Last time points to use, and what makes a condition, of the cohorts known here.
LAST = {"hcp21": 600}
BY = {"psilocybin": ("condition", "session"), "tumor": ("group",)}
RUN_ONLY = ("data", "out", "checkpoints", "verbose")  # options that change no number


class Task(NamedTuple):
    """What to hide, and what to compare with."""

    hide: str
    ratio: float
    span: int = 1
    permute: str | None = None


SERIES_TASKS = (
    *(Task("regions", ratio) for ratio in (0.15, 0.3, 0.5, 0.75)),
    *(Task("time_points", ratio) for ratio in (0.15, 0.3, 0.5)),
    *(Task("time_points", 0.15, span) for span in (5, 10, 20)),
    *(Task("regions", 0.3, permute=what) for what in ("regions", "time", "scans")),
    Task("time_points", 0.15, permute="time"),
)
EDGE_TASKS = tuple(Task("edges", 0.2, permute=p) for p in (None, "regions", "scans"))
FLOORS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "region mean": (RegionMean(), ("regions", "time_points")),
    "linear interpolation": (LinearInterpolation(), ("time_points",)),
    "ridge from the other regions": (RidgeRegions(), ("regions",)),
    "Gaussian process": (GaussianProcess(), ("time_points",)),
    "mean edge": (MeanEdges(), ("edges",)),
}


class Cell(NamedTuple):
    """One model, one part of the people, one seed."""

    name: str
    model: Any
    tasks: tuple[Task, ...]
    fold: int
    seed: int
    train: np.ndarray
    test: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    cohort = read(options)
    folder = Path(options.out)
    store = CellStore(folder)
    fingerprint = check_cohort(cohort, constant_regions="mask").fingerprint()
    provenance = current_provenance()
    records = []
    for cell in cells(cohort, options):
        what = [describe(cell.model), cell.tasks, cell.train.tolist()]
        key = hash_of([fingerprint, *what, cell.test.tolist(), cell.seed])
        record = store.read(key)
        if record is None:
            name = f"{cell.name}, part {cell.fold + 1}, seed {cell.seed}"
            print(name, end=" ... ", flush=True)
            record = run(cell, cohort, key, folder, options)
            record["code"] = provenance.code
            store.write(key, record)
            print(f"{record['seconds']:.0f} s")
        records.append(record)
    report(folder, cohort, records, provenance, options)
    print(section(folder))
    print(f"Tables and pictures are in {folder}")


def read(options: argparse.Namespace) -> pd.DataFrame:
    """Return the cohort, cropped, with a column for the conditions."""
    cohort = load_cohort(options.data)
    name = options.data.resolve().name
    last = LAST.get(name) if options.last is None else options.last
    if last:
        cohort = Cropper(window=last, start="last").fit_transform(cohort)
    columns = list(BY.get(name, ()) if options.by is None else options.by)
    condition: Any = "all"
    if columns:
        condition = cohort[columns].astype(str).agg(" ".join, axis=1)
    regions = cohort.attrs
    cohort = cohort.assign(reconstruction_condition=condition)
    cohort.attrs = regions
    return cohort


def cells(cohort: pd.DataFrame, options: argparse.Namespace) -> Iterator[Cell]:
    """Yield what there is to compute."""
    modalities = check_cohort(cohort, constant_regions="mask").modalities
    tasks = (*SERIES_TASKS * ("fmri" in modalities), *EDGE_TASKS * ("sc" in modalities))
    folds = GroupKFold(options.folds, shuffle=True, random_state=0)
    ours = embedder(options)
    untrained = clone(ours).set_params(max_epochs=0)
    models: dict[str, Any] = dict(FLOORS)
    if ours.decoder == "residual":  # whose linear part is fitted without any training
        plain = clone(untrained).set_params(decoder="temporal")
        models[RANDOM] = (plain, ())
    models |= {UNTRAINED: (untrained, ()), TRAINED: (ours, ())}
    for name, (model, hides) in models.items():
        network = isinstance(model, BrainSymphonyEmbedder)
        kept = tuple(
            task
            for task in tasks
            if (reads(model, task) if network else task.hide in hides)
        )
        for seed in options.seeds if kept else ():
            fitted = clone(model).set_params(random_state=seed) if network else model
            splits = folds.split(cohort, groups=cohort[GROUP])
            for fold, (train, test) in enumerate(splits):
                yield Cell(name, fitted, kept, fold, seed, train, test)


def reads(model: BrainSymphonyEmbedder, task: Task) -> bool:
    """Say if a model reads what a task hides."""
    modality = "sc" if task.hide == "edges" else "fmri"
    return model.modalities in ("auto", "both", modality)


def embedder(options: argparse.Namespace) -> BrainSymphonyEmbedder:
    """Return BrainSymphony with the sizes of the command line."""
    model = BrainSymphonyEmbedder(
        dim=options.dim,
        depth=options.depth,
        window=options.window,
        max_epochs=options.epochs,
        mask_ratio=options.mask_ratio,
        mask_span=options.mask_span,
        batch_size=options.batch_size,
        lr=options.lr,
        constant_regions="mask",
        missing_modality="allow",
        verbose=options.verbose,
    )
    return model.set_params(**dict(options.set))


def run(
    cell: Cell, cohort: pd.DataFrame, key: str, folder: Path, options: Any
) -> dict[str, Any]:
    """Fit a model on the people of one side and score it on the other."""
    train, test = (
        cohort.iloc[rows].reset_index(drop=True) for rows in (cell.train, cell.test)
    )
    train.attrs = test.attrs = cohort.attrs
    model = clone(cell.model)
    if options.checkpoints and cell.name == TRAINED:
        model.set_params(checkpoint_dir=str(folder / "checkpoints" / key))
    start = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - start
    parts = []
    for task in cell.tasks:
        scores = score_hidden(
            model,
            test,
            **task._asdict(),
            by="reconstruction_condition",
            group_column=GROUP,
            random_state=cell.seed,
        )
        parts.append(scores.assign(**task._asdict()))
    table = pd.concat(parts, ignore_index=True)
    table["scan"] = cell.test[table["scan"]]
    record = {
        "model": cell.name,
        "fold": cell.fold,
        "seed": cell.seed,
        "seconds": seconds,
        "scores": table.astype(object).where(table.notna(), None).to_dict("list"),
    }
    if any(task.hide == "edges" for task in cell.tasks):
        record |= connectomes(model, test, cell.seed)
    if cell.name == TRAINED and cell.fold == 0 and cell.seed == options.seeds[0]:
        keep_example(folder / "example.npz", model, test, cell)
    return record


def connectomes(model: Any, X: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Return scores of whole connectomes, each edge hidden once, and of controls."""
    found = {}
    for permute in (None, "scans"):
        scores = score_connectomes(model, X, permute=permute, random_state=seed)
        means = scores.scans.drop(columns="scan").mean(numeric_only=True).to_dict()
        means["edge_r2"] = float(scores.edges["r2"].median())
        means["edge_pearson"] = float(scores.edges["pearson"].median())
        found[f"connectomes{'_permuted' if permute else ''}"] = means
    plain = score_connectomes(model, X, n_folds=None).scans["pattern"].mean()
    found["connectomes"]["pattern_nothing_hidden"] = float(plain)
    return found


def keep_example(path: Path, model: Any, X: pd.DataFrame, cell: Cell) -> None:
    """Keep what the pictures show: the first scan of those that were held out."""
    arrays: dict[str, np.ndarray] = {}
    if "fmri" in model.modalities_:
        truth = model.scaled(X)
        first = next(i for i, scan in enumerate(truth) if scan is not None)
        arrays["scan"] = truth[first]
        for hide, ratio, span in (("regions", 0.3, 1), ("time_points", 0.15, 5)):
            masks = draw_masks(truth, hide=hide, ratio=ratio, span=span)
            decoded = model.reconstruct(X, mask=masks)
            arrays[f"{hide}_hidden"] = masks[first]
            arrays[f"{hide}_decoded"] = decoded[first]
    if "sc" in model.modalities_:
        arrays["observed"] = model.scaled(X, "sc")
        scores = score_connectomes(model, X, random_state=cell.seed)
        arrays["reconstructed"] = scores.reconstructed
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def report(
    folder: Path,
    cohort: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    provenance: Provenance,
    options: argparse.Namespace,
) -> None:
    """Write tables, settings and pictures."""
    scores = pd.concat(
        [
            pd.DataFrame(record["scores"]).assign(
                model=record["model"], seed=record["seed"], fold=record["fold"]
            )
            for record in records
        ],
        ignore_index=True,
    )
    number = ["r2", "pearson", "mae", "n_hidden", "squared_error", "squared_spread"]
    scores[number] = scores[number].astype(float)
    whole = pd.DataFrame(
        {"model": r["model"], **r["connectomes"], **permuted(r)}
        for r in records
        if "connectomes" in r
    )
    found = tables(scores, whole, ours=TRAINED)
    for name, table in found.items():
        write_atomically(folder / f"{name}.csv", table.to_csv())
    seconds = pd.DataFrame(records).groupby("model", sort=False)["seconds"].mean()
    settings = {
        "data": options.data.resolve().name,
        "scans": len(cohort),
        "participants": int(cohort[GROUP].nunique()),
        "regions": check_cohort(cohort, constant_regions="mask").n_regions,
        "time_points": lengths(cohort),
        "options": {k: v for k, v in vars(options).items() if k not in RUN_ONLY},
        "command": command(options),
        "embedder": describe(embedder(options)),
        "seconds_per_fit": seconds.round(1).to_dict(),
        "code": sorted({record["code"] for record in records}),
        "provenance": provenance._asdict(),
        "cpus": os.cpu_count(),
    }
    text = json.dumps(settings, indent=2, default=str)
    write_atomically(folder / "settings.json", text + "\n")
    write_atomically(folder / "table.md", section(folder))
    if importlib.util.find_spec("matplotlib") and (folder / "example.npz").exists():
        draw(folder)


def permuted(record: dict[str, Any]) -> dict[str, Any]:
    """Return the control's scores of connectomes, under names of their own."""
    control = record["connectomes_permuted"]
    return {f"{name}_permuted": value for name, value in control.items()}


def lengths(cohort: pd.DataFrame) -> str:
    """Return the fewest and the most time points of the scans."""
    n = check_cohort(cohort, constant_regions="mask").n_timepoints
    n = n[n > 0]
    if len(n) == 0:
        return "none"
    return str(n[0]) if n.min() == n.max() else f"{n.min()} to {n.max()}"


def command(options: argparse.Namespace) -> str:
    """Return the command that was run, without the places on this machine."""
    words = [
        f"python benchmarks/reconstruction.py --data {options.data.name} --out FOLDER"
    ]
    plain = vars(parser().parse_args(["--data", "x", "--out", "y"]))
    for name, value in vars(options).items():
        if name in RUN_ONLY or value == plain[name]:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        shown = [f"{v[0]}={v[1]}" if isinstance(v, tuple) else str(v) for v in values]
        words.append(f"--{name.replace('_', '-')} {' '.join(shown)}")
    return " ".join(words)


def draw(folder: Path) -> None:
    """Draw a held-out scan and its reconstruction."""
    from bsym_sklearn.plotting.series import (
        plot_carpet,
        plot_connectomes,
        plot_time_courses,
        plot_weight_distribution,
    )

    with np.load(folder / "example.npz", allow_pickle=False) as file:
        example = dict(file)
    axes = {}
    if "scan" in example:
        scan = example["scan"]
        shown = slice(0, 150)
        decoded = {h: example[f"{h}_decoded"] for h in ("regions", "time_points")}
        hidden = {h: example[f"{h}_hidden"] for h in decoded}
        axes["carpet"] = plot_carpet(scan, decoded["regions"])
        for hide, name in (("regions", "courses_regions"), ("time_points", "courses")):
            parts = (x[shown] for x in (scan, decoded[hide], hidden[hide]))
            axes[name] = plot_time_courses(*parts)
    if "observed" in example:
        pair = example["observed"], example["reconstructed"]
        first = int(np.flatnonzero(~np.isnan(pair[0]).all(axis=(1, 2)))[0])
        axes["connectomes"] = plot_connectomes(*(x[first] for x in pair))
        axes["weights"] = plot_weight_distribution(*pair)
    for name, ax in axes.items():
        ax.figure.savefig(folder / f"{name}.png", dpi=200)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--data", type=Path, required=True, help="folder with participants.tsv")
    add("--out", type=Path, required=True, help="folder for results; kept fits are too")
    add("--folds", type=int, default=2, help="parts of the people")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--last", type=int, help="time points to use, 0 for all (hcp21: 600)")
    add("--by", nargs="*", metavar="COLUMN", help="columns that make a condition")
    add("--epochs", type=int, default=100, help="of self-supervision")
    add("--dim", type=int, default=64)
    add("--depth", type=int, default=2)
    add("--window", type=int, default=100)
    add("--mask-ratio", type=float, default=0.3)
    add("--mask-span", type=int, default=1)
    add("--batch-size", type=int, default=8)
    add("--lr", type=float, default=1e-3)
    add(
        "--set",
        type=parameter,
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of BrainSymphonyEmbedder, its value as JSON or text",
    )
    add("--checkpoints", action="store_true", help="a killed fit goes on where it was")
    add("--verbose", action="count", default=0)
    return command


def parameter(text: str) -> tuple[str, Any]:
    """Return name and value of a parameter of the embedder."""
    name, _, value = text.partition("=")
    if name not in BrainSymphonyEmbedder().get_params() or not value:
        raise argparse.ArgumentTypeError(f"no parameter of the embedder: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    main()
