"""Networks of the brain in embeddings that were trained without them.

    python benchmarks/networks.py --data FOLDER --out FOLDER

Reads one cohort folder whose regions.tsv has a column of networks. BrainSymphony is
pretrained on the scans of half of the people; the others are held out, and of them some
are set aside for choosing recipes (they are in "all scans" only). Finished parts are
kept in --out, which belongs to one set of options; empty it after a change of code.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _networks_page import LEVELS, section, summarize

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.network_scores import (
    connectivity_rows,
    network_scores,
    network_test,
)
from bsym_sklearn.analysis.networks import classify_networks
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.data import GradientCoordinates, load_cohort
from bsym_sklearn.files import write_atomically

__all__ = ["main", "section"]

GROUP = "participant_id"
COLUMNS = ("network", "network7")
STREAMS = ("fused", "spatial")
N_GRADIENTS = (3, 10)
SHARES = {"pretrain": 29 / 55, "develop": 8 / 55}  # of the people; the rest is tested
RUN_ONLY = ("data", "out")  # options that change no number
HEADLINE = "pretrained, fused"
SHRUNK = " + training mean"

Embeddings = dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    cohort = load_cohort(options.data)
    regions = cohort.attrs["regions"]
    column = next(name for name in COLUMNS if name in regions)
    known = regions[column].notna().to_numpy()
    networks = regions.loc[known, column].astype(str).to_numpy()
    role = roles(cohort[GROUP])
    claim(options, cohort, role, networks)
    scans, positions = embed(cohort, known, role, options)
    places = regions.loc[known, ["x", "y", "z"]].to_numpy(float)
    tables = []
    for level, name, seed, embedding, people in parts(
        scans, positions, places, cohort, role, known
    ):
        path = options.out / "parts" / f"{level}, {name}, {seed}.csv"
        if not path.exists():
            print(f"{level}: {name}, seed {seed}", flush=True)
            found = score(level, embedding, networks, people, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, found.to_csv(index=False))
        found = pd.read_csv(path)
        tables.append(found.assign(level=level, embedding=name, seed=seed))
    results = pd.concat(tables, ignore_index=True)
    write_atomically(options.out / "scores.csv", results.to_csv(index=False))
    write_atomically(
        options.out / "table.csv", summarize(results, options.folds).to_csv(index=False)
    )
    report_headline(scans, networks, regions.loc[known], role, places, options)
    write_atomically(options.out / "table.md", section(options.out))
    print(section(options.out))


def roles(participants: pd.Series) -> np.ndarray:
    """Return "pretrain", "develop" or "test" for each scan, by participant."""
    people = participants.unique()
    order = np.random.default_rng(0).permutation(len(people))
    n = [round(share * len(people)) for share in SHARES.values()]
    role = np.full(len(people), "test", dtype=object)
    role[order[: n[0]]] = "pretrain"
    role[order[n[0] : sum(n)]] = "develop"
    return participants.map(dict(zip(people, role, strict=True))).to_numpy()


def claim(
    options: argparse.Namespace,
    cohort: pd.DataFrame,
    role: np.ndarray,
    networks: np.ndarray,
) -> None:
    """Write the settings; refuse a folder of other settings."""
    path = options.out / "settings.json"
    chosen = {k: v for k, v in vars(options).items() if k not in RUN_ONLY}
    if path.exists() and json.loads(path.read_text())["options"] != chosen:
        raise ValueError(
            f"{options.out.name!r} has results of other options. Use another --out."
        )
    of_role = cohort[GROUP].groupby(role)
    settings = {
        "data": options.data.resolve().name,
        "options": chosen,
        "command": command(options),
        "scans": of_role.size().to_dict(),
        "participants": of_role.nunique().to_dict(),
        "networks": pd.Series(networks).value_counts().to_dict(),
        "provenance": current_provenance()._asdict(),
        "cpus": os.cpu_count(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(settings, indent=2, default=str) + "\n")


def embed(
    cohort: pd.DataFrame, known: np.ndarray, role: np.ndarray, options: Any
) -> tuple[Embeddings, Embeddings]:
    """Return embeddings of all scans (n, R, D) and learned positions (R, D)."""
    train = take(cohort, role == "pretrain")
    gradients = GradientCoordinates(n_components=max(N_GRADIENTS)).fit(train)
    scans = {"connectivity": connectivity_rows(cohort, average=False)}
    scans[f"connectivity{SHRUNK}"] = shrink(scans["connectivity"], role)
    scans["gradients 10"] = gradients.transform(cohort).reshape(
        len(cohort), len(known), -1
    )
    positions = {}
    for seed in options.seeds:
        for kind, epochs in (("untrained", 0), ("pretrained", options.epochs)):
            model = embedder(options, seed, epochs)
            folder = options.out / "pretrained" / f"seed{seed}"
            if epochs and folder.exists():
                model.set_params(pretrained=str(folder), max_epochs=0).fit(train)
            else:
                model.fit(train)
            if epochs and not folder.exists():
                model.save_pretrained(folder)
            for stream in STREAMS:
                name = f"{kind}, {stream}, {seed}"
                scans[name] = model.transform_regions(cohort, stream=stream)
            fused = scans[f"{kind}, fused, {seed}"]
            scans[f"{kind}, fused{SHRUNK}, {seed}"] = shrink(fused, role)
        positions[f"learned positions, {seed}"] = model.region_positions()[known]
    return {name: x[:, known] for name, x in scans.items()}, positions


def shrink(values: np.ndarray, role: np.ndarray) -> np.ndarray:
    """Return what a scan says, half replaced by the mean scan of pretraining."""
    return (values + values[role == "pretrain"].mean(axis=0)) / 2


def take(cohort: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return some of the scans, with the table of regions."""
    part = cohort.loc[rows].reset_index(drop=True)
    part.attrs = cohort.attrs
    return part


def embedder(options: Any, seed: int, epochs: int) -> BrainSymphonyEmbedder:
    """Return BrainSymphony with the sizes of the command line."""
    return BrainSymphonyEmbedder(
        window=options.window,
        dim=options.dim,
        depth=options.depth,
        mask_ratio=options.mask_ratio,
        lr=options.lr,
        batch_size=options.batch_size,
        max_epochs=epochs,
        validation_fraction=0,
        device="cpu",
        random_state=seed,
    )


def parts(
    scans: Mapping[str, np.ndarray],
    positions: Mapping[str, np.ndarray],
    places: np.ndarray,
    cohort: pd.DataFrame,
    role: np.ndarray,
    known: np.ndarray,
) -> Iterator[tuple[str, str, int, np.ndarray, np.ndarray | None]]:
    """Yield level, name, seed, embeddings and people of all there is to score."""
    test = role == "test"
    people = cohort[GROUP].to_numpy()
    for level, rows in zip(LEVELS[:2], (test, np.ones_like(test)), strict=True):
        folded = np.abs(places) * [1, 0, 0] + places * [0, 1, 1]  # |x|: sides alike
        yield level, "coordinates, folded", 0, folded, None
        mean = scans["connectivity"][rows].mean(axis=0)
        gradients = GradientCoordinates(n_components=max(N_GRADIENTS))
        gradients.fit(take(cohort, rows))
        for k in N_GRADIENTS:
            yield level, f"gradients {k}", 0, gradients.coordinates_[known, :k], None
        yield level, "connectivity", 0, mean, None
        for name, values in scans.items():
            if "trained, " in name and SHRUNK not in name:
                yield level, *_split(name), values[rows].mean(axis=0), None
        for name, values in positions.items():
            yield level, *_split(name), values, None
        yield (
            level,
            "pretrained, fused, seeds side by side",
            0,
            _together(
                [
                    v[rows].mean(axis=0)
                    for n, v in scans.items()
                    if n.startswith(HEADLINE)
                ]
            ),
            None,
        )
    first = np.flatnonzero(test)[~pd.Series(people[test]).duplicated().to_numpy()]
    for level, rows in zip(LEVELS[2:], (first, np.flatnonzero(test)), strict=True):
        for name, values in scans.items():
            label, seed = _split(name) if "trained, " in name else (name, 0)
            yield level, label, seed, values[rows], people[rows]


def _together(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Return embeddings side by side, centred and of one size."""
    centred = [e - e.mean(axis=0) for e in embeddings]
    return np.concatenate([e / np.linalg.norm(e) for e in centred], axis=1)


def _split(name: str) -> tuple[str, int]:
    """Return the name of a row and its seed."""
    label, seed = name.rsplit(", ", 1)
    return label, int(seed)


def score(
    level: str,
    embedding: np.ndarray,
    networks: np.ndarray,
    people: np.ndarray | None,
    options: Any,
) -> pd.DataFrame:
    """Score one embedding at one level by all methods that make sense there."""
    if level in LEVELS[:2]:
        return network_scores(
            {"": embedding}, networks, n_folds=options.folds, n_repeats=options.repeats
        )
    if level == LEVELS[3]:
        return network_scores(
            {"": embedding},
            networks,
            methods=("majority", "logistic"),
            n_folds=options.folds,
            groups=people,
        )
    alone = [
        network_scores(
            {"": scan},
            networks,
            methods=("majority", "logistic", "kmeans"),
            n_folds=options.folds,
            n_seeds=1,
        )
        .groupby("method", as_index=False, sort=False)[["accuracy", "ari"]]
        .mean()
        .assign(repeat=0, part=i)
        for i, scan in enumerate(embedding)
    ]
    return pd.concat(alone, ignore_index=True)


def report_headline(
    scans: Embeddings,
    networks: np.ndarray,
    regions: pd.DataFrame,
    role: np.ndarray,
    places: np.ndarray,
    options: Any,
) -> None:
    """Write confusion, mistakes and tests of the model and of connectivity."""
    tests = []
    ours = f"{HEADLINE}, {options.seeds[0]}"
    for name in (ours, "connectivity"):
        mean = scans[name][role == "test"].mean(axis=0)
        found = classify_networks(
            mean, networks, n_folds=options.folds, labels=regions["label"].tolist()
        )
        for null, where in (("shuffled", None), ("turned", places)):
            test = network_test(found.predicted, networks, coordinates=where)
            tests.append(
                {
                    "embedding": name.rsplit(", ", 1)[0],
                    "null": null,
                    "accuracy": test.score,
                    "null_mean": test.permuted_scores.mean(),
                    "null_95": np.quantile(test.permuted_scores, 0.95),
                    "p": test.p_value,
                }
            )
        if name == ours:
            keep_headline(found, options.out)
    write_atomically(options.out / "tests.csv", pd.DataFrame(tests).to_csv(index=False))


def keep_headline(found: Any, folder: Path) -> None:
    """Write the confusion, its picture and the mistakes."""
    from bsym_sklearn.plotting.networks import plot_confusion

    write_atomically(folder / "confusion.csv", found.confusion.to_csv())
    mistakes = found.misclassified.to_csv(index=False)
    write_atomically(folder / "misclassified.csv", mistakes)
    picture = io.BytesIO()
    plot_confusion(found.confusion).figure.savefig(picture, dpi=200)
    (folder / "networks_confusion.png").write_bytes(picture.getvalue())


def command(options: argparse.Namespace) -> str:
    """Return the command that was run, without the places on this machine."""
    cohort = options.data.resolve().name
    words = [f"python benchmarks/networks.py --data {cohort} --out FOLDER"]
    plain = vars(parser().parse_args(["--data", "x", "--out", "y"]))
    for name, value in vars(options).items():
        if name in RUN_ONLY or value == plain[name]:
            continue
        values = value if isinstance(value, list) else [value]
        words.append(f"--{name.replace('_', '-')} {' '.join(map(str, values))}")
    return " ".join(words)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = line.add_argument
    add("--data", type=Path, required=True, help="a cohort folder")
    add("--out", type=Path, required=True, help="folder for results")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the networks")
    add("--epochs", type=int, default=40, help="of pretraining")
    add("--window", type=int, default=120, help="time points seen at once")
    add("--dim", type=int, default=64)
    add("--depth", type=int, default=1)
    add("--mask-ratio", type=float, default=0.3)
    add("--lr", type=float, default=2e-3)
    add("--batch-size", type=int, default=8)
    add("--folds", type=int, default=5, help="over regions (and people)")
    add("--repeats", type=int, default=3, help="times to draw folds at group level")
    return line


if __name__ == "__main__":
    main()
