"""A page that says what a saved model is, for people who find it.

It is written into each bundle as ``README.md``, which the Hugging Face hub shows, and
never read back.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bsym_sklearn.data.containers import MODALITIES

LONGEST = 80  # characters of a name
MOST = 20  # names in a row
SPECIAL = re.compile(r"([\\`*_{}\[\]()#!|~$])")
WORDS = {"fmri": "fMRI series", "sc": "structural connectomes"}
KINDS = (  # end of a class's name, what it does, the method to call, a tag
    ("Classifier", "predicts a class of each scan", "predict", "classification"),
    ("Regressor", "predicts a number for each scan", "predict", "regression"),
    ("", "turns each scan into features", "transform", "feature-extraction"),
)

PAGE = """\
---
{front}
---

# {name}

A {name} of bsym_sklearn {version}, which {does}. It reads
{reads} of {n_regions} regions.

## Data

{data}

## Use

```python
from bsym_sklearn import {name}
model = {name}.from_pretrained("...")  # this folder, or "hf://owner/name"
model.{method}(scans)  # a DataFrame with the columns {columns}
```

Scans are scaled and resampled as those of training were. Their regions need to be
these, in this order: {regions}.

## Metrics

{metrics}

{history}

## Intended use and limits

For research. Not for clinical use: it is no medical device, and no prediction of it is
a reason to treat or not to treat anyone. Scanners, sequences, preprocessing and people
other than those of training can make it worse, without a sign; test it on yours first.

The settings hold a salted hash of each participant of training whose name was known, so
that nobody is tested on whom the model has learned from. Whoever guesses a name can
check it there.

## Versions

{versions}
"""


def write_card(config: Mapping[str, Any]) -> str:
    """Return the model card of a bundle.

    Parameters
    ----------
    config : mapping
        Settings of the bundle, as JSON can hold them. Every text in it is escaped.

    Returns
    -------
    str
        Markdown, with the front matter of the Hugging Face hub.

    Examples
    --------
    >>> config = {
    ...     "class": "BrainSymphonyEmbedder",
    ...     "fitted": {"n_regions_": 5, "modalities_": ["fmri"], "regions_": ["V1"]},
    ...     "license": "cc-by-4.0",
    ...     "versions": {"bsym_sklearn": "1.0"},
    ... }
    >>> print(write_card(config)[:53])
    ---
    license: "cc-by-4.0"
    library_name: "bsym_sklearn"
    """
    name, fitted = config["class"], config["fitted"]
    versions = config["versions"]
    does, method, tag = next(rest for end, *rest in KINDS if name.endswith(end))
    modalities = [m for m in MODALITIES if m in fitted["modalities_"]]
    return PAGE.format(
        front=_front_matter(config.get("license"), [tag, *modalities]),
        name=name,
        version=_escaped(versions["bsym_sklearn"]),
        does=does,
        method=method,
        reads=" and ".join(WORDS[m] for m in modalities),
        columns=" and ".join(f'"{m}"' for m in modalities),
        n_regions=fitted["n_regions_"],
        regions=_listed(fitted["regions_"]),
        data=_data(config),
        metrics=_table(("metric", "value"), config.get("metrics", {}).items()),
        history=_history(config.get("history", [])),
        versions=_table(("package", "version"), versions.items()),
    )


def _front_matter(license: str | None, tags: Iterable[str]) -> str:
    """Return what the hub reads, in YAML; JSON texts are texts of YAML too."""
    lines = [] if license is None else [f"license: {json.dumps(license.lower())}"]
    lines += ['library_name: "bsym_sklearn"', "tags:"]
    known = ("neuroimaging", "brain", "scikit-learn", *tags)
    return "\n".join([*lines, *(f"- {json.dumps(tag)}" for tag in known)])


def _data(config: Mapping[str, Any]) -> str:
    """Return tables of the scans of each fit, first to last, and of the classes."""
    fits = config.get("training_data", [])
    parts = [_table(("of the scans", "value"), _facts(fit).items()) for fit in fits]
    if len(parts) > 1:
        parts = [f"{f'Fit {i + 1}'}:\n\n{part}" for i, part in enumerate(parts)]
    n_seen = len(config.get("participants", {}).get("hashes", []))
    parts.append(
        f"Participants learned from, in all: {n_seen:,}."
        if n_seen
        else "The participants are not known."
    )
    classes = config["fitted"].get("classes_")
    if classes is not None:
        parts.append(f"Classes: {_listed(classes['array'])}.")
    return "\n\n".join(parts)


def _facts(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the scans of a fit."""
    facts: dict[str, Any] = {"scans": fit["n_scans"]}
    if fit["n_calls"] > 1:
        facts["calls of fit, of which this is the last"] = fit["n_calls"]
    if fit["n_participants"] is not None:
        facts["participants"] = fit["n_participants"]
    for modality, missing in fit["n_missing"].items():
        facts[f"scans without {modality}"] = missing
    lengths = fit["n_timepoints"]
    if lengths is not None:
        facts["time points: least, median, most"] = ", ".join(
            f"{lengths[name]:g}" for name in ("min", "median", "max")
        )
    if fit["t_r"] is not None:
        facts["repetition times in seconds"] = ", ".join(map(str, fit["t_r"][:MOST]))
    return facts


def _history(epochs: list[Mapping[str, Any]]) -> str:
    """Return the losses of the training in a sentence."""
    if not epochs:
        return "The network was not trained in the last fit."
    text = f"Training took {len(epochs)} epochs"
    if "train_loss" in epochs[-1]:
        text += f"; its loss ended at {epochs[-1]['train_loss']:.4g}"
    held_out = [epoch["valid_loss"] for epoch in epochs if "valid_loss" in epoch]
    if held_out:
        text += f"; on scans held out within fit the lowest was {min(held_out):.4g}"
    return f"{text}."


def _table(head: tuple[str, str], rows: Iterable[tuple[object, object]]) -> str:
    """Return a table of two columns, a line if it is empty."""
    lines = [f"| {_escaped(name)} | {_escaped(value)} |" for name, value in rows]
    if not lines:
        return "None were given."
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines])


def _listed(names: list[Any]) -> str:
    """Return the first names and how many more there are."""
    shown = ", ".join(_escaped(name) for name in names[:MOST])
    more = len(names) - MOST
    return f"{shown} and {more:,} more" if more > 0 else shown


def _escaped(value: object) -> str:
    """Return a text on one line that means nothing in Markdown or HTML."""
    text = " ".join(str(value).split())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    return SPECIAL.sub(r"\\\1", html.escape(text))
