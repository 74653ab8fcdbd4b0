"""Maps of every scan for `psychedelic.py`: attention of models, connectivity."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.analysis.attention import incoming, network_bars, network_blocks
from bsym_sklearn.analysis.identity import describe, hash_of
from bsym_sklearn.analysis.reconstruction import score_hidden
from bsym_sklearn.analysis.store import CellStore
from bsym_sklearn.data import check_cohort

GROUP = "participant_id"
DRUG, PLACEBO = "psilocybin", "placebo"
OCCASIONS = [(drug, when) for drug in (PLACEBO, DRUG) for when in ("pre", "post")]
STREAMS = ("spatial", "perceiver")
LEFT_OUT, ALL, UNTRAINED = "others", "all people", "untrained"
CONNECTIVITY = "connectivity"
RATIO = 0.3  # of the regions, hidden
# The first 90 regions of AAL (Tzourio-Mazoyer et al. 2002), left before right, with
# coarse lobes that are ours.
AAL = (
    ("Precentral", "Central"),
    ("Frontal_Sup", "Frontal"),
    ("Frontal_Sup_Orb", "Frontal"),
    ("Frontal_Mid", "Frontal"),
    ("Frontal_Mid_Orb", "Frontal"),
    ("Frontal_Inf_Oper", "Frontal"),
    ("Frontal_Inf_Tri", "Frontal"),
    ("Frontal_Inf_Orb", "Frontal"),
    ("Rolandic_Oper", "Central"),
    ("Supp_Motor_Area", "Central"),
    ("Olfactory", "Frontal"),
    ("Frontal_Sup_Medial", "Frontal"),
    ("Frontal_Med_Orb", "Frontal"),
    ("Rectus", "Frontal"),
    ("Insula", "Limbic"),
    ("Cingulum_Ant", "Limbic"),
    ("Cingulum_Mid", "Limbic"),
    ("Cingulum_Post", "Limbic"),
    ("Hippocampus", "Limbic"),
    ("ParaHippocampal", "Limbic"),
    ("Amygdala", "Limbic"),
    ("Calcarine", "Occipital"),
    ("Cuneus", "Occipital"),
    ("Lingual", "Occipital"),
    ("Occipital_Sup", "Occipital"),
    ("Occipital_Mid", "Occipital"),
    ("Occipital_Inf", "Occipital"),
    ("Fusiform", "Occipital"),
    ("Postcentral", "Central"),
    ("Parietal_Sup", "Parietal"),
    ("Parietal_Inf", "Parietal"),
    ("SupraMarginal", "Parietal"),
    ("Angular", "Parietal"),
    ("Precuneus", "Parietal"),
    ("Paracentral_Lobule", "Central"),
    ("Caudate", "Subcortical"),
    ("Putamen", "Subcortical"),
    ("Pallidum", "Subcortical"),
    ("Thalamus", "Subcortical"),
    ("Heschl", "Temporal"),
    ("Temporal_Sup", "Temporal"),
    ("Temporal_Pole_Sup", "Temporal"),
    ("Temporal_Mid", "Temporal"),
    ("Temporal_Pole_Mid", "Temporal"),
    ("Temporal_Inf", "Temporal"),
)


class Atlas(NamedTuple):
    """Names of the regions and of their lobes or networks."""

    labels: list[str]
    lobes: list[str]


class Study:
    """A cohort, and the embedders fitted on parts of it, which are kept."""

    def __init__(
        self, cohort: pd.DataFrame, store: CellStore, options: argparse.Namespace
    ) -> None:
        self.cohort = cohort
        self.store = store
        self.options = options
        self.people = cohort[GROUP].to_numpy()
        self.checked = check_cohort(cohort)
        self.rows = find_occasions(cohort)
        self.atlas = read_atlas(cohort, self.checked.n_regions)

    def models(
        self, variant: str, seed: int
    ) -> Iterator[tuple[BrainSymphonyEmbedder, np.ndarray]]:
        """Yield fitted embedders, and the scans that each is asked about."""
        everyone = np.arange(len(self.cohort))
        parts = [(everyone, everyone)]
        if variant == LEFT_OUT:
            parts = [
                (everyone[self.people != one], everyone[self.people == one])
                for one in np.unique(self.people)
            ]
        options = self.options
        model = BrainSymphonyEmbedder(
            t_r="t_r",
            dim=options.dim,
            max_epochs=0 if variant == UNTRAINED else options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            validation_fraction=0.0,
            random_state=seed,
            device=options.device,
        )
        about = [self.checked.fingerprint(), describe(model)]
        for train, rows in parts:
            folder = self.store.weights(hash_of([*about, train.tolist()]))
            if folder.exists():
                yield BrainSymphonyEmbedder.from_pretrained(folder), rows
                continue
            print(f"{variant}, seed {seed}: {len(train)} scans", flush=True)
            model.fit(self.cohort.iloc[train]).save_pretrained(folder)
            yield model, rows

    def attention(self, variant: str) -> dict[str, list[np.ndarray]]:
        """Return maps (n, R, R) of each stream, one per seed."""
        n, n_regions = len(self.cohort), self.checked.n_regions
        found: dict[str, list[np.ndarray]] = {stream: [] for stream in STREAMS}
        for seed in self.options.seeds:
            for maps in found.values():
                maps.append(np.empty((n, n_regions, n_regions)))
            for model, rows in self.models(variant, seed):
                for stream, maps in found.items():
                    scans = self.cohort.iloc[rows]
                    maps[-1][rows] = np.asarray(model.attention(scans, stream))
        return found

    def sources(self) -> dict[str, list[np.ndarray]]:
        """Return the maps of every source, one per seed."""
        sources = {CONNECTIVITY: [self.connectivity()]}
        for variant in (LEFT_OUT, ALL, UNTRAINED):
            for stream, maps in self.attention(variant).items():
                sources[f"{stream}, {variant}"] = maps
        return sources

    def connectivity(self) -> np.ndarray:
        """Return Fisher's z of the correlations, 0 on the diagonal; (n, R, R)."""
        scans = [self.checked.read_fmri(i, float) for i in range(len(self.cohort))]
        r = np.stack(
            [np.corrcoef(scan.T) * (1 - np.eye(scan.shape[1])) for scan in scans]
        )
        return np.arctanh(np.clip(r, -0.999, 0.999))

    def hidden_regions(self) -> pd.DataFrame:
        """Return scores of hidden regions of people not seen, per scan and seed."""
        parts = []
        for seed in self.options.seeds:
            for part, (model, rows) in enumerate(self.models(LEFT_OUT, seed)):
                # One scan at a time: the same regions are hidden in all of a person,
                # so that occasions do not differ in what was hidden.
                draw = seed * len(self.cohort) + part
                for row, control in product(rows, (None, "regions")):
                    scan = self.cohort.iloc[[row]]
                    table = score_hidden(
                        model, scan, ratio=RATIO, permute=control, random_state=draw
                    )
                    error, spread = (
                        table[name].sum()
                        for name in ("squared_error", "squared_spread")
                    )
                    scores = table[["pearson", "mae"]].mean().to_dict()
                    scores |= {"scan": row, "seed": seed, "r2": 1 - error / spread}
                    parts.append(scores | {"permuted": control is not None})
        return pd.DataFrame(parts)


def reduce(maps: np.ndarray, measure: str, source: str, lobes: list[str]) -> np.ndarray:
    """Return what is contrasted of maps of edges (n, R, R)."""
    if measure == "edges":
        return maps
    if measure == "blocks":
        return np.asarray(network_blocks(maps, lobes))
    if source == CONNECTIVITY:
        values = maps.sum(axis=1) / (maps.shape[1] - 1)  # strength
    else:
        values = incoming(maps)
    return values if measure == "regions" else np.asarray(network_bars(values, lobes))


def find_occasions(cohort: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Return the rows of each condition and session, sorted by participant."""
    table = cohort.reset_index(drop=True).sort_values(GROUP)
    rows = {
        (drug, when): table.index[
            (table["condition"] == drug) & (table["session"] == when)
        ].to_numpy()
        for drug, when in OCCASIONS
    }
    everyone = sorted(set(table[GROUP]))
    if any(table.loc[r, GROUP].tolist() != everyone for r in rows.values()):
        counts = {" ".join(key): len(r) for key, r in rows.items()}
        raise ValueError(
            "psychedelic.py needs one scan of each person per condition and session. "
            f"Got {counts} of {len(everyone)} people. Leave out who lacks one."
        )
    return rows


def read_atlas(cohort: pd.DataFrame, n_regions: int) -> Atlas:
    """Return the names in the cohort's table of regions, else those of AAL."""
    table = cohort.attrs.get("regions")
    if table is not None:
        column = "network" if "network" in table else "network7"
        lobes = table[column] if column in table else ["all"] * len(table)
        return Atlas(list(map(str, table["label"])), list(map(str, lobes)))
    if n_regions != 2 * len(AAL):
        return Atlas([f"region {i}" for i in range(n_regions)], ["all"] * n_regions)
    both = [(f"{name}_{side}", lobe) for name, lobe in AAL for side in "LR"]
    return Atlas([name for name, _ in both], [lobe for _, lobe in both])
