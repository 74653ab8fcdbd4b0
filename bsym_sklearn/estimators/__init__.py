"""Estimators for scikit-learn."""

from bsym_sklearn.estimators.brainsymphony import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
)

__all__ = [
    "BrainSymphonyClassifier",
    "BrainSymphonyEmbedder",
    "BrainSymphonyRegressor",
]
