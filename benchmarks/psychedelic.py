"""Psilocybin against placebo: what attention, and simpler maps, say changes.

    python benchmarks/psychedelic.py --data FOLDER --out FOLDER

FOLDER is a cohort of people scanned before and after placebo and psilocybin (columns
participant_id; condition: placebo or psilocybin; session: pre or post). The maps of a
person come from embedders pretrained on the other people, so that no contrast uses a
model that saw that person; beside them stand embedders pretrained on all, untrained
ones, and plain connectivity. Two contrasts compare scans without the drug, where there
is nothing to be found. Finished fits are kept in --out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _psychedelic_maps import (
    ALL,
    CONNECTIVITY,
    DRUG,
    GROUP,
    LEFT_OUT,
    OCCASIONS,
    PLACEBO,
    UNTRAINED,
    Study,
    reduce,
)
from _psychedelic_page import section

from bsym_sklearn.analysis.contrast import Contrast, contrast, stability
from bsym_sklearn.analysis.embedding_maps import drift, nearest_scans, project
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.data import load_cohort
from bsym_sklearn.files import write_atomically

__all__ = ["main", "section"]

MEASURES = ("regions", "lobes", "blocks", "edges")
MAIN = "psilocybin post - placebo post"
CONTRASTS = {
    MAIN: ((DRUG, "post"), (PLACEBO, "post")),
    "psilocybin post - psilocybin pre": ((DRUG, "post"), (DRUG, "pre")),
    "control: psilocybin pre - placebo pre": ((DRUG, "pre"), (PLACEBO, "pre")),
    "control: placebo post - placebo pre": ((PLACEBO, "post"), (PLACEBO, "pre")),
}
CHANGES = "change by psilocybin - change by placebo"
SCORES = ("r2", "pearson", "mae")
N_TOP = 10
N_WINDOWS = 4


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    folder = Path(options.out)
    study = Study(load_cohort(options.data), CellStore(folder), options)
    sources = study.sources()
    found = {
        (name, measure): contrast_source(study, seeds, name, measure)
        for name, seeds in sources.items()
        for measure in MEASURES
    }
    tables = {
        "contrasts": pd.concat([part for part, _ in found.values()]),
        "top": pd.concat([part for _, part in found.values()]),
        "lobes": lobe_bars(study, sources),
        **hidden_tables(study),
        "neighbours": neighbours(study),
        "drift": drift(first_model(study, ALL), study.cohort, n_windows=N_WINDOWS),
    }
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    settings = describe_run(study, options)
    write_atomically(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    if importlib.util.find_spec("matplotlib") is not None:
        draw(folder, study, sources, tables["drift"])
    text = section(folder)
    write_atomically(folder / "table.md", text)
    print(text)
    print(f"Tables and pictures are in {folder}")


def all_contrasts(
    values: np.ndarray,
    rows: Mapping[tuple[str, str], np.ndarray],
    correction: str = "max",
) -> dict[str, Contrast]:
    """Contrast maps of all scans, matched by participant."""
    parts = {key: values[one] for key, one in rows.items()}
    pairs = {title: (parts[a], parts[b]) for title, (a, b) in CONTRASTS.items()}
    change = [parts[drug, "post"] - parts[drug, "pre"] for drug in (DRUG, PLACEBO)]
    pairs[CHANGES] = (change[0], change[1])
    return {
        title: contrast(a, b, correction=correction) for title, (a, b) in pairs.items()
    }


def contrast_source(
    study: Study, seeds: list[np.ndarray], source: str, measure: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row of numbers per contrast, and the top cells of each."""
    lobes = study.atlas.lobes
    per_seed = [reduce(maps, measure, source, lobes) for maps in seeds]
    mean = np.mean(per_seed, axis=0)
    found = all_contrasts(mean, study.rows)
    by_rate = all_contrasts(mean, study.rows, "fdr")
    clusters = all_contrasts(mean, study.rows, "cluster") if measure == "edges" else {}
    of_seeds = [all_contrasts(maps, study.rows) for maps in per_seed]
    names = (
        study.atlas.labels if measure in ("regions", "edges") else sorted(set(lobes))
    )
    rows, tops = [], []
    for title, one in found.items():
        key = {"source": source, "measure": measure, "contrast": title}
        row = key | describe_contrast(one, [part[title] for part in of_seeds])
        row["surviving_fdr"] = count_surviving(by_rate[title])
        if clusters:
            row["p_cluster"] = float(clusters[title].table()["p_corrected"].min())
        rows.append(row)
        top = one.table(names).head(N_TOP)
        if "region" not in top:
            arrow = " - " if one.is_symmetric else " -> "
            top["region"] = top["from"].astype(str) + arrow + top["to"].astype(str)
            top = top.drop(columns=["from", "to"])
        tops.append(top.assign(**key))
    return pd.DataFrame(rows), pd.concat(tops)


def describe_contrast(found: Contrast, per_seed: list[Contrast]) -> dict[str, Any]:
    """Return the numbers of one contrast, with how steady it is over seeds."""
    table = found.table()
    row: dict[str, Any] = {
        "people": found.n_units[0],
        "arrangements": found.n_arrangements,
        "tested": found.n_tested,
        "surviving": count_surviving(found),
        "p_corrected": float(table["p_corrected"].min()),
        "share_below_05": float((table["p"] < 0.05).mean()),
        "largest_dz": float(table["effect_size"].abs().max()),
    }
    if len(per_seed) > 1:
        steady = stability(per_seed)
        between = steady.correlation[np.triu_indices(len(per_seed), 1)]
        row["seeds_correlation"] = float(between.mean())
        row["seeds_surviving"] = " ".join(str(count_surviving(s)) for s in per_seed)
        if found.surviving().any():
            row["seeds_share"] = float(steady.survival[found.surviving()].mean())
    return row


def count_surviving(found: Contrast) -> int:
    """Return the number of cells with a corrected p below 0.05."""
    return int((found.table()["p_corrected"] < 0.05).sum())


def lobe_bars(study: Study, sources: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """Return the mean over people of each lobe's bar, on each occasion."""
    parts = []
    for source, seeds in sources.items():
        maps = np.mean(seeds, axis=0)
        bars = reduce(maps, "lobes", source, study.atlas.lobes)
        for (drug, when), rows in study.rows.items():
            table = pd.DataFrame({"lobe": sorted(set(study.atlas.lobes))})
            table["mean"], table["sd"] = bars[rows].mean(0), bars[rows].std(0, ddof=1)
            parts.append(table.assign(source=source, occasion=f"{drug} {when}"))
    return pd.concat(parts, ignore_index=True)


def hidden_tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return scores of hidden regions by occasion, and contrasts of their R2."""
    scores = study.hidden_regions()
    means = scores.groupby(["permuted", "scan"])[list(SCORES)].mean()  # over seeds
    rows = []
    for permuted in (False, True):
        for (drug, when), scans in study.rows.items():
            part = means.loc[permuted].loc[scans]
            row = {"occasion": f"{drug} {when}", "permuted": permuted, "n": len(part)}
            for name in SCORES:
                row |= {name: part[name].mean(), f"{name}_sd": part[name].std()}
            rows.append(row)
    r2 = means.loc[False].sort_index()["r2"].to_numpy()[:, None]
    tests = [
        {"contrast": title, **found.table().iloc[0].drop("region").to_dict()}
        for title, found in all_contrasts(r2, study.rows).items()
    ]
    return {"hidden": pd.DataFrame(rows), "hidden_contrasts": pd.DataFrame(tests)}


def neighbours(study: Study) -> pd.DataFrame:
    """Return how often the nearest scan is of the same person or occasion."""
    upper = np.triu_indices(study.checked.n_regions, 1)
    spaces = {
        CONNECTIVITY: study.connectivity()[:, *upper],
        **{
            f"embedding, {name}": first_model(study, name).transform(study.cohort)
            for name in (ALL, UNTRAINED)
        },
    }
    groups = study.cohort[[GROUP, "condition", "session"]]
    rows = []
    for name, values in spaces.items():
        near = nearest_scans(values, groups=groups, metric="correlation")
        for group in groups:
            share, chance = near[f"same_{group}"], near[f"chance_{group}"]
            row = {"space": name, "group": group, "share": share.mean()}
            rows.append(row | {"chance": chance.mean(), "scans": len(near)})
    return pd.DataFrame(rows)


def first_model(study: Study, variant: str) -> Any:
    """Return the embedder of the first seed that is asked about all scans."""
    model, _ = next(study.models(variant, study.options.seeds[0]))
    return model


def draw(
    folder: Path,
    study: Study,
    sources: dict[str, list[np.ndarray]],
    moves: pd.DataFrame,
) -> None:
    """Draw the main contrast, the scans and their drift."""
    from bsym_sklearn.plotting.contrast import plot_contrast
    from bsym_sklearn.plotting.embedding_maps import plot_drift, plot_projection

    atlas = study.atlas
    words = {
        CONNECTIVITY: ("strength (z)", "correlation (z)", 1),
        f"spatial, {LEFT_OUT}": ("incoming attention x 1000", "attention x 1000", 1e3),
        f"perceiver, {LEFT_OUT}": (
            "incoming attention x 1000",
            "attention x 1000",
            1e3,
        ),
    }
    axes = {}
    for source, (of_region, of_pair, scale) in words.items():
        maps = np.mean(sources[source], axis=0)
        names = {"regions": atlas.labels, "blocks": sorted(set(atlas.lobes))}
        for measure, quantity in (("regions", of_region), ("blocks", of_pair)):
            values = scale * reduce(maps, measure, source, atlas.lobes)
            axes[f"{source.split(',')[0]}_{measure}"] = plot_contrast(
                all_contrasts(values, study.rows)[MAIN],
                labels=names[measure],
                quantity=f"{quantity}, drug - placebo",
            )
    places = project(first_model(study, ALL).transform(study.cohort))
    occasion = study.cohort["condition"] + " " + study.cohort["session"]
    axes["people"] = plot_projection(
        places, groups=study.cohort[GROUP], shapes=study.cohort["condition"]
    )
    axes["occasions"] = plot_projection(places, groups=occasion)
    axes["drift"] = plot_drift(moves)
    for name, ax in axes.items():
        ax.figure.savefig(folder / f"{name}.png", dpi=200)


def describe_run(study: Study, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is needed to repeat the run, without places on this machine."""
    plain = vars(parser().parse_args(["--data", "x", "--out", "y"]))
    words = [f"python benchmarks/psychedelic.py --data {options.data.resolve().name}"]
    settings = {k: v for k, v in vars(options).items() if k not in ("data", "out")}
    for name, value in settings.items():
        if value != plain[name]:
            values = value if isinstance(value, list) else [value]
            words.append(f"--{name.replace('_', '-')} {' '.join(map(str, values))}")
    return {
        "command": " ".join([*words, "--out FOLDER"]),
        "options": settings,
        "data": options.data.resolve().name,
        "scans": len(study.cohort),
        "people": len(set(study.people)),
        "regions": study.checked.n_regions,
        "time_points": sorted(set(study.checked.n_timepoints.tolist())),
        "main": MAIN,
        "changes": CHANGES,
        "occasions": [" ".join(one) for one in OCCASIONS],
        **current_provenance()._asdict(),
    }


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--data", type=Path, required=True, help="folder with participants.tsv")
    add("--out", type=Path, required=True, help="folder for results; fits are kept")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, default=60, help="of self-supervision")
    add("--dim", type=int, default=64)
    add("--batch-size", type=int, default=4)
    add("--lr", type=float, default=3e-3)
    add("--device", default="auto")
    return command


if __name__ == "__main__":
    main()
