"""The rows of a comparison: every model, and the rivals that it must beat.

A row is an unfitted scikit-learn estimator that takes a cohort. Whatever it learns, it
learns in `fit`, from the training rows of one fold. Shape letters: n scans, R regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from nilearn.connectome import ConnectivityMeasure
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    NetworkClassifier,
    NetworkRegressor,
)
from bsym_sklearn.data import check_cohort

GROUP = "split_group"  # column of X: scans that stay together within a training set
HIGHEST_CORRELATION = 1 - 1e-7  # beyond it Fisher's z is infinite
LOWEST_PROBABILITY = 1e-12
C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
ALPHA_GRID = (1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)


@dataclass(frozen=True)
class Settings:
    """What a comparison may choose about BrainSymphony; the same in all its rows."""

    modalities: str = "auto"
    window: int | None = None
    dim: int = 64
    depth: int = 2
    n_heads: int = 4
    spatial_tokens: str = "connectivity"
    pooling: str = "regions"
    pretrain_epochs: int = 50
    max_epochs: int = 50
    batch_size: int = 16
    lr: float = 1e-3
    validation_fraction: float = 0.1
    patience: int | None = 10

    def of_estimators(self, seed: int) -> dict[str, Any]:
        """Return the parameters that all BrainSymphony estimators take."""
        chosen = asdict(self)
        del chosen["pretrain_epochs"], chosen["max_epochs"]
        return chosen | {"random_state": seed, "group_column": GROUP}


@dataclass(frozen=True)
class Fold:
    """What a row needs to know to be made for one fold and seed."""

    kind: str  # "classification" or "regression"
    settings: Settings
    seed: int
    inner_splits: Sequence[tuple[np.ndarray, np.ndarray]] | None
    confounds: tuple[str, ...]
    weights: Path  # folder of the model pretrained on this fold's training rows


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    label: str
    make: Callable[[Fold], Any]
    needs: tuple[str, ...] = ()  # modalities or "confounds"
    seeded: bool = False  # there is a network in it
    pretrained: bool = False  # it starts from weights made on the training rows


class EdgeFeatures(TransformerMixin, BaseEstimator):
    """Connection weights of each scan as features; NaN for a scan without them.

    Parameters
    ----------
    kind : {"correlation", "tangent", "sc"}
        Fisher-z correlations, displacements from the mean covariance of the training
        rows, or the logarithm of the structural weights.
    """

    def __init__(self, kind: str = "correlation") -> None:
        self.kind = kind

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what `kind` needs from the scans."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Learn from the scans and return their features."""
        if self.kind == "sc":
            return self.transform(X)
        # Tangent vectors keep their diagonal: variances tell something there.
        self.measure_ = ConnectivityMeasure(
            kind=self.kind,
            vectorize=True,
            discard_diagonal=self.kind == "correlation",
            standardize="zscore_sample",
        )
        return self._features(X, self.measure_.fit_transform)

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of the scans, (n, n_edges)."""
        if self.kind == "sc":
            return self._features(X, _log_weights)
        return self._features(X, self.measure_.transform)

    def _features(self, X: Any, compute: Callable[[list], np.ndarray]) -> np.ndarray:
        cohort = check_cohort(X)
        is_sc = self.kind == "sc"
        cells = cohort.sc if is_sc else cohort.fmri
        read = cohort.read_sc if is_sc else cohort.read_fmri
        present = [i for i, cell in enumerate(cells) if cell is not None]
        values = compute([read(i, np.float64) for i in present])
        if self.kind == "correlation":
            limit = HIGHEST_CORRELATION
            values = np.arctanh(np.clip(values, -limit, limit))
        features = np.full((len(cohort), values.shape[1]), np.nan)
        features[present] = values
        return features


def _log_weights(connectomes: list[np.ndarray]) -> np.ndarray:
    """Return ``sign(w) log(1 + |w|)`` of the edges, (n, R (R - 1) / 2)."""
    weights = np.stack(connectomes)
    weights = weights[:, *np.triu_indices(weights.shape[1], k=1)]
    return np.sign(weights) * np.log1p(np.abs(weights))


def probabilities(model: Any, X: Any, classes: np.ndarray) -> np.ndarray:
    """Return (n, n_classes); 0 for a class that the model has never seen."""
    aligned = np.zeros((len(X), len(classes)))
    aligned[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(X)
    return aligned


def log_likelihood(model: Any, X: Any, y: np.ndarray) -> float:
    """Return the mean log-probability of the truth; any class may be missing."""
    classes = np.union1d(model.classes_, y)
    of_truth = probabilities(model, X, classes)[
        np.arange(len(y)), np.searchsorted(classes, y)
    ]
    return float(np.log(np.maximum(of_truth, LOWEST_PROBABILITY)).mean())


def linear(fold: Fold, features: Any) -> Pipeline:
    """Return the one linear model that reads the features of every row.

    Its strength of regularisation is chosen inside the training rows.
    """
    if fold.kind == "classification":
        model, grid = LogisticRegression(max_iter=2000), {"C": C_GRID}
        scoring: Any = log_likelihood
    else:
        model, grid = Ridge(), {"alpha": ALPHA_GRID}
        scoring = "neg_mean_squared_error"
    if fold.inner_splits is not None:
        model = GridSearchCV(model, grid, scoring=scoring, cv=fold.inner_splits)
    return Pipeline(
        [
            ("features", features),
            ("impute", SimpleImputer(keep_empty_features=True)),
            ("scale", StandardScaler()),
            # A rotation onto the training rows: a model with an L2 penalty stays the
            # same, in n dimensions instead of thousands.
            ("rotate", PCA(svd_solver="full")),
            ("linear", model),
        ]
    )


def pretraining(fold: Fold) -> BrainSymphonyEmbedder:
    """Return the model to pretrain on the training rows of a fold."""
    return BrainSymphonyEmbedder(
        **fold.settings.of_estimators(fold.seed),
        max_epochs=fold.settings.pretrain_epochs,
    )


def _frozen(fold: Fold, weights: Path | None) -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(
        **fold.settings.of_estimators(fold.seed), pretrained=weights, max_epochs=0
    )


def _supervised(fold: Fold, weights: Path | None) -> Any:
    estimator = {
        "classification": BrainSymphonyClassifier,
        "regression": BrainSymphonyRegressor,
    }[fold.kind]
    return estimator(
        **fold.settings.of_estimators(fold.seed),
        pretrained=weights,
        max_epochs=fold.settings.max_epochs,
    )


def _network(name: str) -> Callable[[Fold], Any]:
    def make(fold: Fold) -> Any:
        estimator = {
            "classification": NetworkClassifier,
            "regression": NetworkRegressor,
        }[fold.kind]
        settings = fold.settings
        return estimator(
            name,
            window=settings.window,
            batch_size=settings.batch_size,
            validation_fraction=settings.validation_fraction,
            random_state=fold.seed,
            group_column=GROUP,
        )

    return make


def _chance(fold: Fold) -> Any:
    if fold.kind == "classification":
        return DummyClassifier(strategy="prior")
    return DummyRegressor()


def _confounds(fold: Fold) -> Pipeline:
    numbers = make_column_selector(dtype_include="number")
    words = make_column_selector(dtype_exclude="number")
    encode = ColumnTransformer(
        [
            ("numbers", SimpleImputer(keep_empty_features=True), numbers),
            ("words", OneHotEncoder(handle_unknown="ignore"), words),
        ],
        sparse_threshold=0,
    )
    select = ColumnTransformer([("confounds", "passthrough", list(fold.confounds))])
    select.set_output(transform="pandas")
    return linear(fold, make_pipeline(select, encode))


def _edges(*kinds: str) -> Callable[[Fold], Pipeline]:
    def make(fold: Fold) -> Pipeline:
        return linear(fold, FeatureUnion([(k, EdgeFeatures(k)) for k in kinds]))

    return make


def _correlation_and_embedding(fold: Fold) -> Pipeline:
    both = [
        ("correlation", EdgeFeatures("correlation")),
        ("embedding", _frozen(fold, fold.weights)),
    ]
    return linear(fold, FeatureUnion(both))


ROWS = {
    "chance": Row("chance", _chance),
    "confounds": Row("confounds + linear", _confounds, ("confounds",)),
    "correlation": Row("correlation + linear", _edges("correlation"), ("fmri",)),
    "tangent": Row("tangent + linear", _edges("tangent"), ("fmri",)),
    "sc": Row("SC + linear", _edges("sc"), ("sc",)),
    "correlation-sc": Row(
        "correlation, SC + linear", _edges("correlation", "sc"), ("fmri", "sc")
    ),
    "mean_mlp": Row("meanMLP", _network("mean_mlp"), ("fmri",), seeded=True),
    "transformer": Row(
        "transformer over time", _network("transformer"), ("fmri",), seeded=True
    ),
    "brainnetcnn": Row("BrainNetCNN", _network("brainnetcnn"), ("fmri",), seeded=True),
    "bnt": Row(
        "Brain Network Transformer",
        _network("brain_network_transformer"),
        ("fmri",),
        seeded=True,
    ),
    "braingnn": Row("BrainGNN", _network("braingnn"), ("fmri",), seeded=True),
    "random": Row(
        "BrainSymphony random, frozen + linear",
        lambda fold: linear(fold, _frozen(fold, None)),
        seeded=True,
    ),
    "pretrained": Row(
        "BrainSymphony pretrained, frozen + linear",
        lambda fold: linear(fold, _frozen(fold, fold.weights)),
        seeded=True,
        pretrained=True,
    ),
    "scratch": Row(
        "BrainSymphony from scratch",
        lambda fold: _supervised(fold, None),
        seeded=True,
    ),
    "finetuned": Row(
        "BrainSymphony pretrained, fine-tuned",
        lambda fold: _supervised(fold, fold.weights),
        seeded=True,
        pretrained=True,
    ),
    "correlation-embedding": Row(
        "correlation, pretrained embedding + linear",
        _correlation_and_embedding,
        ("fmri",),
        seeded=True,
        pretrained=True,
    ),
}
# Rows without a network that a network must beat, and pairs that differ only in
# pretraining.
RIVALS = ("correlation", "tangent", "sc", "correlation-sc")
PRETRAINING_PAIRS = (("pretrained", "random"), ("finetuned", "scratch"))


def count_parameters(model: Any) -> int:
    """Count the fitted numbers of the network and of the linear model on top."""
    if isinstance(model, Pipeline):
        found = model.named_steps["features"]
        parts = [part for _, part in getattr(found, "transformer_list", [("", found)])]
        network = sum(
            p.numel()
            for part in parts
            if isinstance(part, BrainSymphonyEmbedder)
            for p in part.backbone_.parameters()
        )
        n_features = model.named_steps["scale"].n_features_in_
        n_classes = len(getattr(model, "classes_", [0]))
        n_outputs = 1 if n_classes <= 2 else n_classes
        return network + (n_features + 1) * n_outputs
    if hasattr(model, "net_"):
        return sum(p.numel() for p in model.net_.module_.parameters())
    return 0


def tuned(model: Any) -> dict[str, float]:
    """Return what was chosen inside the training rows."""
    search = model.named_steps["linear"] if isinstance(model, Pipeline) else None
    return dict(getattr(search, "best_params_", {}))
