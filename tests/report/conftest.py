"""Cohorts and pages that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bsym_sklearn import BrainSymphonyClassifier
from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.data import make_cohort

HOSTILE = (
    "<script>alert(1)</script>\"'{{7*7}}{% raw %}$\\frac$<img src=x onerror=a()>&lt;"
)


@pytest.fixture(scope="session")
def hostile() -> str:
    """Return a name that would run, load or fail if it were not text."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory) -> Path:
    """Return a page with every section, on which every name is hostile."""
    pytest.importorskip("jinja2", reason="the report needs jinja2")
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    from bsym_sklearn.report import make_report

    cohort = make_cohort(n_scans=14, n_regions=6, n_timepoints=40, missing_sc=0.2)
    X = cohort.data.assign(mean_fd=[0.1 * i for i in range(14)], t_r=2.0)
    X["participant_id"] = [f"{HOSTILE}{i}" for i in range(14)]
    X["site"] = [f"{HOSTILE}{i % 2}" for i in range(14)]
    X[HOSTILE] = HOSTILE
    regions = pd.DataFrame(
        {
            "label": [f"{HOSTILE}{i}" for i in range(6)],
            "network": [f"{HOSTILE}{i // 3}" for i in range(6)],
        }
    )
    X.attrs["regions"] = type(X.attrs["regions"])(regions)
    y = [f"{HOSTILE}{label}" for label in cohort.target]
    model = BrainSymphonyClassifier(dim=8, depth=1, max_epochs=2, random_state=0)
    models = {f"{HOSTILE}a": "dummy", f"{HOSTILE}b": "amplitude"}
    results = compare(models, X, y, cv=2)
    return make_report(
        model.fit(X, y),
        X,
        y,
        path=tmp_path_factory.mktemp("report") / "page.html",
        title=HOSTILE,
        comparison=results,
    )
