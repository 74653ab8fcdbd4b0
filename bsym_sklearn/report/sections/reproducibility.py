"""What is needed to get the same numbers again."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch
from sklearn.base import is_classifier, is_regressor

from bsym_sklearn.analysis.fitted import parts_of
from bsym_sklearn.analysis.provenance import current_provenance
from bsym_sklearn.report.contents import Code, Facts, Section, make_table, plural
from bsym_sklearn.report.material import Material
from bsym_sklearn.report.parameters import estimator_code


def describe_reproducibility(material: Material) -> Section:
    """Return the section on versions, seeds, hashes and code.

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
    >>> describe_reproducibility(material).parts[-1].text.splitlines()[-1]
    "make_report(model, X, path='report.html', max_scans=50, random_state=0)"
    """
    now = current_provenance()
    scans = material.scans
    facts = [("Made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")]
    facts.append(("Machine", f"{platform.system()}, {platform.machine()}"))
    facts.append(("Threads", str(torch.get_num_threads())))
    hashes = [
        (f"values of the {plural(len(scans), 'scan')}, in order", scans.content),
        *_weights(material.estimator),
        ("source of bsym_sklearn", now.code),
        ("commit of bsym_sklearn", now.commit or "not in a repository"),
    ]
    return Section(
        key="reproducibility",
        title="Reproducibility",
        shows="Versions, seeds and fingerprints (SHA-256) of what this page was made "
        "from: equal fingerprints mean equal data, weights and code.",
        not_shown="Another machine, device or number of threads may round differently "
        "with everything else equal. What was done before fit (preprocessing of the "
        "recordings, choice of participants) is not recorded.",
        parts=(
            Facts(tuple(facts)),
            make_table(_seeds(material), "Seeds"),
            make_table(
                pd.DataFrame(hashes, columns=["of", "fingerprint"]), "Fingerprints"
            ),
            make_table(
                pd.DataFrame(now.versions.items(), columns=["library", "version"]),
                "Versions",
            ),
            Code(_code(material), "How to make this page again"),
        ),
    )


def hash_weights(module: torch.nn.Module) -> str:
    """Return a SHA-256 of the tensors of a module: names, shapes, types and values.

    Parameters
    ----------
    module : torch.nn.Module
        On any device.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> import torch
    >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> hash_weights(a) == hash_weights(a), hash_weights(a) == hash_weights(b)
    (True, False)
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _weights(estimator: Any) -> list[tuple[str, str]]:
    """Return the fingerprint of each network in a model."""
    return [
        (f"weights of {type(part).__name__}", hash_weights(part.net_.module_))
        for part in parts_of(estimator)
        if hasattr(part, "net_")
    ]


def _seeds(material: Material) -> pd.DataFrame:
    """Return the seeds that fits have drawn, and that of the page."""
    rows = [("this page", str(material.random_state), "")]
    for part in parts_of(material.estimator):
        if hasattr(part, "seed_") and hasattr(part, "random_state"):
            given = part.random_state
            source = "a generator" if hasattr(given, "randint") else repr(given)
            rows.append((f"fit of {type(part).__name__}", str(part.seed_), source))
    return pd.DataFrame(rows, columns=["of", "seed", "random_state"])


def _code(material: Material) -> str:
    """Return Python that fits such a model and makes this page."""
    estimator = material.estimator
    kind = type(estimator)
    package = kind.__module__.partition(".")[0]
    needs_y = is_classifier(estimator) or is_regressor(estimator)
    place = package if package == "bsym_sklearn" else kind.__module__
    return "\n".join(
        [
            f"from {place} import {kind.__name__}",
            "from bsym_sklearn.report import make_report",
            "",
            f"model = {estimator_code(estimator)}",
            f"model.fit({'X_train, y_train' if needs_y else 'X_train'})",
            material.call,
        ]
    )
