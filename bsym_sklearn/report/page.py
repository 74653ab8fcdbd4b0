"""From a fitted model and scans to one HTML file."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.files import write_atomically
from bsym_sklearn.report.contents import Section, plural
from bsym_sklearn.report.material import Material, make_material
from bsym_sklearn.report.sections.attention import describe_attention
from bsym_sklearn.report.sections.cohort import describe_cohort
from bsym_sklearn.report.sections.comparison import describe_comparison
from bsym_sklearn.report.sections.model import describe_model, describe_training
from bsym_sklearn.report.sections.networks import describe_networks
from bsym_sklearn.report.sections.predictions import describe_predictions
from bsym_sklearn.report.sections.reconstruction import describe_reconstruction
from bsym_sklearn.report.sections.reproducibility import describe_reproducibility

SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    describe_cohort,
    describe_model,
    describe_training,
    describe_reconstruction,
    describe_networks,
    describe_attention,
    describe_predictions,
    describe_comparison,
    describe_reproducibility,
)
NEEDED = ("jinja2", "matplotlib")


def make_report(
    estimator: Any,
    X: Any,
    y: ArrayLike | None = None,
    *,
    path: str | Path,
    title: str | None = None,
    comparison: pd.DataFrame | None = None,
    networks: ArrayLike | None = None,
    coordinates: ArrayLike | None = None,
    max_scans: int = 50,
    random_state: int = 0,
) -> Path:
    """Write one HTML page about a fitted model and the scans that it is shown.

    The page is a single file that loads nothing: it can be mailed, printed and read on
    a phone, in light and dark. It has a section on the cohort and its quality, the
    model, its training, reconstruction of what is hidden, networks, attention,
    predictions, a comparison, and what is needed to get the same numbers again; a
    section that a model has nothing for is left out. It holds the covariates of every
    scan, its row and its participant, so that it is as confidential as they are.

    Parameters
    ----------
    estimator : estimator
        Fitted: any of this package, or one of scikit-learn around them.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`. Scans that cannot be used are
        listed with the reason, and left out of everything else. Columns that are
        called ``site`` and ``mean_fd`` (motion, mm) have a place of their own.
    y : array-like of shape (n,) or None, default=None
        Targets, to judge the predictions of a classifier or regressor by.
    path : str or Path
        File to write, whole or not at all; an older one is replaced.
    title : str or None, default=None
        Heading. None names the model and the number of scans.
    comparison : DataFrame or None, default=None
        Of :func:`~bsym_sklearn.analysis.comparison.compare`.
    networks : array-like of str of shape (n_regions,) or None, default=None
        Network of each region; None takes column ``network`` (or ``network7``) of
        ``X.attrs["regions"]``, if it is there.
    coordinates : array-like of shape (n_regions, 3) or None, default=None
        Centres of the regions, mm, MNI; None takes the columns ``x``, ``y``, ``z`` of
        that table, if they are there.
    max_scans : int, default=50
        Scans for which reconstruction, networks and attention are computed; of more,
        so many are drawn at random.
    random_state : int, default=0
        Seed of what is drawn at random.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BrainDataError
        If no scan can be used, or `y` has another length.
    ImportError
        If jinja2 or matplotlib is not installed.
    NotFittedError
        If the model is not fitted.
    ValueError
        If a parameter does not fit the scans.

    Examples
    --------
    >>> import tempfile
    >>> from bsym_sklearn import FeatureClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> from bsym_sklearn.report import make_report
    >>> X, y = make_cohort(n_scans=12, n_regions=5), [0, 1] * 6
    >>> model = FeatureClassifier("amplitude").fit(X.data, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = make_report(model, X.data, y, path=f"{folder}/report.html")
    ...     page.name, page.stat().st_size < 5_000_000
    ('report.html', True)
    """
    _require()
    check_is_fitted(estimator)
    check_scalar(max_scans, "max_scans", Integral, min_val=1)
    check_scalar(random_state, "random_state", Integral, min_val=0)
    material = make_material(
        estimator,
        X,
        y,
        comparison=comparison,
        networks=networks,
        coordinates=coordinates,
        max_scans=max_scans,
        random_state=random_state,
        path=path,
    )
    found = [describe(material) for describe in SECTIONS]
    name = type(estimator).__name__
    page = render(
        title=title or f"{name} on {plural(len(material.scans), 'scan')}",
        sections=[section for section in found if section is not None],
    )
    target = Path(path)
    write_atomically(target, page)
    return target


def render(*, title: str, sections: list[Section]) -> str:
    """Return the text of a page.

    Nothing on it may run or load but its own few lines of script, found by their
    fingerprint, and everything that comes from the cohort is escaped.

    Parameters
    ----------
    title : str
        Heading.
    sections : list of Section
        Chapters in their order.

    Returns
    -------
    str
        HTML, which UTF-8 can hold.

    Examples
    --------
    >>> "<h1>a &lt;b&gt;</h1>" in render(title="a <b>", sections=[])
    True
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("bsym_sklearn.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        loader.get_source(environment, name)[0] for name in ("report.css", "report.js")
    )
    text = environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
    )
    return text.encode("utf-8", "replace").decode("utf-8")


def _source_hash(source: str) -> str:
    """Return what a Content-Security-Policy calls an inline script or style."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _require() -> None:
    """Raise unless what draws and writes the page is installed."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f"The report needs {name}. Install it with: "
                'pip install "bsym_sklearn[report]"'
            )
