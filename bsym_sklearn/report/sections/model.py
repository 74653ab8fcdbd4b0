"""What the model is, and how its training went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bsym_sklearn.analysis.fitted import chosen_parameters, count_parameters, parts_of
from bsym_sklearn.plotting.training import plot_training
from bsym_sklearn.report.contents import (
    Facts,
    Part,
    Picture,
    Pictures,
    Section,
    Table,
    listed,
    make_table,
    write_number,
)
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.parameters import parameter_table
from bsym_sklearn.report.pictures import draw

MAX_NETWORKS = 6  # of one model whose training is drawn


def describe_model(material: Material) -> Section:
    """Return the section on what the model is.

    Parameters
    ----------
    material : Material
        What the page is made from.

    Returns
    -------
    Section

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report.material import make_material
    >>> cohort = make_cohort(n_scans=8, n_regions=3)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> material = make_material(model, cohort.data)
    >>> describe_model(material).parts[0].pairs[0]
    ('Kind', 'FeatureClassifier')
    """
    estimator = material.estimator
    parts: list[Part] = [Facts(_facts(estimator))]
    chosen = chosen_parameters(estimator)
    if chosen:
        frame = pd.DataFrame(
            {"what": list(chosen), "value": [_as_text(x) for x in chosen.values()]}
        )
        parts.append(make_table(frame, "What the model chose itself, within fit"))
    parts.append(
        make_table(
            parameter_table(estimator),
            "Parameters",
            note="Those marked “here” differ from the default of this version.",
        )
    )
    return Section(
        key="model",
        title="Model",
        shows="What was fitted: its kind, its size and every parameter.",
        not_shown="Parameters say nothing about how good a model is.",
        parts=tuple(parts),
    )


def describe_training(material: Material) -> Section | None:
    """Return the section on how networks were trained, None if there is none.

    Parameters
    ----------
    material : Material
        What the page is made from.

    Returns
    -------
    Section or None

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report.material import make_material
    >>> cohort = make_cohort(n_scans=8, n_regions=3)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> material = make_material(model, cohort.data)
    >>> describe_training(material) is None
    True
    """
    trained = [part for part in _networks(material.estimator) if len(part.history_)]
    if not trained:
        return None
    drawn = trained[:MAX_NETWORKS]
    return Section(
        key="training",
        title="Training",
        shows="The loss after each epoch, on the scans that were learned from and, if "
        "some were held out within fit, on those.",
        not_shown="A low loss is not a good prediction of new people. Losses of "
        "different models or objectives cannot be compared.",
        parts=(
            Pictures(tuple(_curve(part) for part in drawn)),
            *(_epochs(part) for part in drawn),
        ),
    )


def _facts(estimator: Any) -> tuple[tuple[str, str], ...]:
    """Return the sizes of a model, of what it has."""
    facts = [("Kind", type(estimator).__name__)]
    n = count_parameters(estimator)
    if n:
        facts.append(("Learned numbers", f"{n:,}"))
    if hasattr(estimator, "modalities_"):
        facts.append(("Reads", " and ".join(estimator.modalities_)))
    if hasattr(estimator, "n_regions_"):
        facts.append(("Regions", f"{estimator.n_regions_:,}"))
    prepared = getattr(estimator, "preprocessing_", None)
    if prepared is not None and "fmri" in estimator.modalities_:
        facts.append(("Window (time points)", f"{prepared.window:,}"))
        if prepared.t_r is not None:
            facts.append(("Its repetition time (s)", write_number(prepared.t_r)))
    if hasattr(estimator, "classes_"):
        facts.append(("Classes", listed(list(estimator.classes_), 6)))
    if hasattr(estimator, "members_"):
        names = [name for name, _ in estimator.members]
        facts.append(("Members", listed(names, 6)))
    seen = getattr(estimator, "participants_", None)
    if seen:
        facts.append(("Participants learned from", f"{len(seen):,}"))
    networks = list(_networks(estimator))
    if len(networks) == 1:
        device = next(networks[0].net_.module_.parameters()).device
        facts.append(("Device", str(device)))
    return tuple(facts)


def _networks(estimator: Any) -> Iterator[Any]:
    """Go through the parts of a model that trained a network."""
    for part in parts_of(estimator):
        if hasattr(part, "net_") and hasattr(part, "history_"):
            yield part


def _curve(part: Any) -> Picture:
    """Draw the losses of a training."""
    history = part.history_
    first, last = (write_number(history["train_loss"].iloc[i]) for i in (0, -1))
    alt = f"Loss by epoch: training from {first} to {last}"
    if "valid_loss" in history:
        best = history["valid_loss"].idxmin()
        lowest = write_number(history.loc[best, "valid_loss"])
        alt += f"; validation lowest, {lowest}, after epoch {history['epoch'][best]}"
    return draw(
        lambda ax: plot_training(history, ax=ax),
        alt=f"{alt}.",
        caption=f"{type(part).__name__}: {len(history)} epochs, "
        f"{write_number(history['dur'].sum())} seconds.",
    )


def _epochs(part: Any) -> Table:
    """Return the losses of a training as a table."""
    names = {
        "train_loss": "training loss",
        "valid_loss": "validation loss",
        "dur": "seconds",
    }
    formats = dict.fromkeys(("training loss", "validation loss"), ".4g")
    caption = f"Epochs of {type(part).__name__}"
    return make_table(part.history_.rename(columns=names), caption, formats=formats)


def _as_text(value: Any) -> str:
    """Return a chosen value as text."""
    return write_number(value) if isinstance(value, int | float) else str(value)
