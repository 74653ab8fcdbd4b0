"""The section of `psychedelic.py` in the page about interpretation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

# Fig. 4d of arXiv:2506.18314, x 1000, read off the picture to about .05.
PRINTED = pd.DataFrame(
    {
        "rest": [1.1, 1.1, 1.8, 3.45, 0.5, 2.35, 2.2, 4.2],
        "meditation": [1.3, 3.75, 1.35, 1.9, 2.1, 2.2, 0.95, 4.65],
        "music": [1.35, 1.3, 1.75, 1.25, 1.65, 1.2, 3.85, 3.95],
        "movie": [1.25, 2.1, 2.15, 1.6, 2.3, 4.55, 2.1, 1.95],
    },
    index=[
        *("Subcortical", "Control", "Default", "Dorsal attention", "Limbic"),
        *("Salience", "Somatomotor", "Visual"),
    ],
)
# Fig. 4a, read to about .02: the ranges over rest, meditation, music and movie.
PRINTED_R2 = ".29 to .38 before (permuted -.16 to -.11), .21 to .24 after"
PRINTED_R2 += " (permuted -.13 to -.05)"
CONTROL = "control: "
MEASURES = (
    "*regions*: incoming attention, or strength of connectivity; *lobes*: its mean; "
    "*blocks*: pairs of lobes; *edges*: pairs of regions."
)


def section(folder: Path) -> str:
    """Return the section of docs/benchmarks/interpretation.md.

    Parameters
    ----------
    folder : Path
        What `psychedelic.py` wrote.

    Returns
    -------
    str
        Markdown.
    """
    settings = json.loads((folder / "settings.json").read_text())
    tests = pd.read_csv(folder / "contrasts.csv")
    options = settings["options"]
    lengths = " to ".join(
        str(n) for n in sorted({settings["time_points"][i] for i in (0, -1)})
    )
    seeds = options["seeds"]
    lines = [
        f"## Contrasts under a drug: `{settings['data']}`",
        "",
        "```bash",
        settings["command"],
        "```",
        "",
        f"{settings['people']} people, {settings['scans']} scans (before and after "
        f"placebo and psilocybin), {settings['regions']} regions, {lengths} time "
        f"points; seeds {', '.join(map(str, seeds))}, whose maps are averaged before "
        "any test. Maps: *others*, the embedder pretrained on the other people (the "
        "one to read); *all people*, pretrained on everyone; *untrained*, and plain "
        "connectivity (Fisher's z), the floors. Paired sign flips, all "
        f"{tests['arrangements'].iloc[0]} of them, so that p is at least "
        f"{1 / tests['arrangements'].iloc[0]:.4f}; corrected by the largest t over "
        "the cells of a map, not over the rows of these tables.",
        "",
        *_verdict(tests),
        f"Cells that survive of those tested (smallest corrected p). {MEASURES}",
        "",
        markdown(_survivors(tests)),
        "",
        "Smallest p of a cluster of edges that share regions (network-based statistic "
        "by mass, edges of p < .01), which says that there is a difference, not in "
        "which of its edges:",
        "",
        markdown(_clusters(tests)),
        "",
        f"More about {settings['main']}, and the share of the cells with an "
        "uncorrected p below .05, where .05 is chance, beside that of the controls:",
        "",
        markdown(_more(tests, settings["main"])),
        "",
        *_top(folder, settings),
        *_lobes(folder, settings),
        *_hidden(folder),
        *_neighbours(folder),
        "Against the paper: its Figs. 4 and 5 are of PsiConnect (54 people, 19 mg by "
        "mouth, 450 regions, four tasks, and a model pretrained on 1229 others); this "
        "is psilocybin into the vein during rest, 9 people, 90 regions, and a model "
        "pretrained on the 8 others. It prints bars without intervals, tests or a null "
        "control, and a split by a questionnaire (MEQ30) that these data lack. Its "
        "bars of incoming attention (x 1000, over 450 regions):",
        "",
        markdown(PRINTED.map("{:g}".format).rename_axis("network")),
    ]
    return "\n".join(lines).rstrip() + "\n"


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown."""
    head = [table.index.name or "", *table.columns]
    rows = [[name, *row] for name, *row in table.itertuples()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _verdict(tests: pd.DataFrame) -> list[str]:
    """Say plainly what survives, and what the null controls say."""
    tests = tests.assign(control=tests["contrast"].str.startswith(CONTROL))
    lines = []
    for is_control, words in ((False, "With the drug"), (True, "In the null controls")):
        part = tests[tests["control"] == is_control]
        hits = part[part["surviving"] > 0]
        lines.append(
            f"- {words}, a cell survives in {len(hits)} of {len(part)} tests (source x "
            f"measure x contrast; by chance, {len(part) / 20:.1f} at the 5 % level)"
            + (":" if len(hits) else ".")
        )
        for (source, measure), rows in hits.groupby(["source", "measure"], sort=False):
            found = "; ".join(
                f"{r.contrast.removeprefix(CONTROL)}: {r.surviving} of {r.tested}"
                for r in rows.itertuples()
            )
            lines.append(f"    - {source}, {measure}: {found}")
    ours = tests[tests["source"].str.endswith("others") & ~tests["control"]]
    n = int((ours["surviving"] > 0).sum())
    lines.append(
        f"- Attention of models that did not see the person, with the drug: {n} of "
        f"{len(ours)} tests, {len(ours) / 20:.1f} by chance. "
        + ("Nothing survives." if n == 0 else "Count that against the controls.")
    )
    return [*lines, ""]


def _survivors(tests: pd.DataFrame) -> pd.DataFrame:
    """Return counts and smallest p, sources and measures by contrast."""
    text = [
        f"{r.surviving} of {r.tested} ({_p(r.p_corrected)})" for r in tests.itertuples()
    ]
    return _wide(tests.assign(text=text))


def _clusters(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest p of a cluster of edges, sources by contrast."""
    edges = tests[tests["measure"] == "edges"]
    return _wide(edges.assign(text=edges["p_cluster"].map(_p)))


def _more(tests: pd.DataFrame, main: str) -> pd.DataFrame:
    """Return other corrections, seeds and shares of small p of one contrast."""
    share = tests["share_below_05"]
    controls = share[tests["contrast"].str.startswith(CONTROL)].groupby(
        [tests["source"], tests["measure"]]
    )
    rows = {}
    for r in tests[tests["contrast"] == main].itertuples():
        steady = getattr(r, "seeds_correlation", float("nan"))
        rows[f"{r.source}: {r.measure}"] = {
            "surviving (max)": r.surviving,
            "surviving (FDR)": r.surviving_fdr,
            "each seed (max)": "" if pd.isna(steady) else r.seeds_surviving,
            "r of differences between seeds": ""
            if pd.isna(steady)
            else f"{steady:.2f}",
            "largest dz": f"{r.largest_dz:.2f}",
            "share p < .05": f"{r.share_below_05:.3f}",
            "in controls": f"{controls.get_group((r.source, r.measure)).mean():.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")


def _wide(tests: pd.DataFrame) -> pd.DataFrame:
    """Return texts with a column per contrast."""
    row = tests["source"] + ": " + tests["measure"]
    wide = tests.assign(row=row).pivot_table(
        index="row", columns="contrast", values="text", aggfunc="first", sort=False
    )
    return wide.rename_axis("map")


def _top(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Return the regions of the smallest p in the main contrast."""
    top = pd.read_csv(folder / "top.csv")
    is_main = (top["contrast"] == settings["main"]) & (top["measure"] == "regions")
    lines = [f"Regions of the smallest p, {settings['main']}:", ""]
    rows = [
        {
            "map": source,
            "region": r.region,
            "difference (95 % CI)": f"{r.difference:.2g} ({r.low:.2g} to {r.high:.2g})",
            "dz": f"{r.effect_size:.2f}",
            "p": _p(r.p),
            "corrected p": _p(r.p_corrected),
        }
        for source in ("spatial, others", "perceiver, others", "connectivity")
        for r in top[is_main & (top["source"] == source)].head(5).itertuples()
    ]
    return [*lines, markdown(pd.DataFrame(rows).set_index("map")), ""]


def _lobes(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Return bars of incoming attention by lobe."""
    bars = pd.read_csv(folder / "lobes.csv")
    bars = bars[bars["source"] == "spatial, others"]
    text = [
        f"{1000 * r.mean:.2f} ± {1000 * r.sd:.2f}"
        for r in bars[["mean", "sd"]].itertuples(index=False)
    ]
    wide = bars.assign(text=text).pivot_table(
        index="lobe", columns="occasion", values="text", aggfunc="first"
    )
    even = 1000 / settings["regions"]
    return [
        "Incoming attention by lobe (spatial, others; x 1000, mean ± standard "
        f"deviation over people; {even:.2f} would be even):",
        "",
        markdown(wide[settings["occasions"]]),
        "",
    ]


def _hidden(folder: Path) -> list[str]:
    """Return scores of hidden regions by occasion."""
    hidden = pd.read_csv(folder / "hidden.csv")
    rows = {}
    for r in hidden.itertuples():
        row = rows.setdefault(r.occasion, {})
        word = ", permuted" if r.permuted else ""
        row[f"R²{word}"] = f"{r.r2:.3f} ± {r.r2_sd:.3f}"
        row[f"Pearson{word}"] = f"{r.pearson:.3f}"
        row[f"MAE{word}"] = f"{r.mae:.3f}"
    tests = pd.read_csv(folder / "hidden_contrasts.csv")
    said = "; ".join(
        f"{r.contrast.removeprefix(CONTROL)}: {r.difference:+.3f} ({r.low:+.3f} to "
        f"{r.high:+.3f}), p {_p(r.p)}"
        for r in tests.itertuples()
    )
    return [
        "Hidden regions (30 %) of people that the model did not see; the control "
        "compares with another region of the scan:",
        "",
        markdown(pd.DataFrame.from_dict(rows, orient="index").rename_axis("occasion")),
        "",
        f"Difference of R² (95 % CI), uncorrected: {said}. The paper prints "
        f"{PRINTED_R2}.",
        "",
    ]


def _neighbours(folder: Path) -> list[str]:
    """Return who the nearest scan is of, and how embeddings drift."""
    near = pd.read_csv(folder / "neighbours.csv")
    text = [f"{r.share:.2f} (chance {r.chance:.2f})" for r in near.itertuples()]
    wide = near.assign(text=text).pivot_table(
        index="space", columns="group", values="text", aggfunc="first", sort=False
    )
    moves = pd.read_csv(folder / "drift.csv")
    means = moves[["from_first", "from_previous", "to_others"]].mean()
    return [
        "Share of scans whose nearest scan is of the same person, condition or session "
        "(correlation distance; these embedders saw all people):",
        "",
        markdown(wide),
        "",
        f"Over {moves['window'].nunique()} windows of a scan embeddings move by "
        f"{means['from_previous']:.2f} from one to the next and "
        f"{means['from_first']:.2f} from the first; other scans are "
        f"{means['to_others']:.2f} away.",
        "",
    ]


def _p(p: float) -> str:
    """Return p with three digits."""
    return "<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)
