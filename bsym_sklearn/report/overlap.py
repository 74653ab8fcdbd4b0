"""Which of the people on a page a model has learned from."""

from __future__ import annotations

from bsym_sklearn.analysis.fitted import parts_of
from bsym_sklearn.estimators.seen import shared_participants
from bsym_sklearn.report.contents import Note, plural
from bsym_sklearn.report.material import Material

TRAINING = "those of training and say nothing about new people"


def describe_overlap(material: Material) -> Note:
    """Say how many of these people the model was fitted on.

    Parameters
    ----------
    material : Material
        What the page is made from. Models keep hashes of the participants that they
        have seen.

    Returns
    -------
    Note
        A warning, unless it was fitted on none of them.

    Examples
    --------
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report.material import make_material
    >>> cohort = make_cohort(n_scans=8, n_regions=3)
    >>> model = FeatureClassifier("amplitude").fit(cohort.data, cohort.target)
    >>> material = make_material(model, cohort.data)
    >>> describe_overlap(material).is_warning
    True
    """
    given = "The scores are those of the scans given to this page."
    parts = parts_of(material.estimator)
    seen = {name for part in parts for name in getattr(part, "participants_", ())}
    shown = set(material.scans.table["participant"].dropna().astype(str))
    if not seen or not shown:
        text = (
            f"{given} Whether the model was fitted on the same people is not known: "
            f"the model or the scans do not name them. If it was, these are {TRAINING}."
        )
        return Note((text,), is_warning=True)
    n_both = len(shared_participants(shown, seen))
    n = plural(len(shown), "participant")
    if not n_both:
        return Note((f"{given} The model was fitted on none of these {n}.",))
    text = f"{given} The model was fitted on {n_both:,} of these {n}: "
    text += f"{'the scores' if n_both == len(shown) else 'to that extent they'} are "
    return Note((f"{text}{TRAINING}.",), is_warning=True)
