"""Estimators for scikit-learn."""

from bsym_sklearn.estimators.classifier import BrainSymphonyClassifier
from bsym_sklearn.estimators.embedder import BrainSymphonyEmbedder
from bsym_sklearn.estimators.regressor import BrainSymphonyRegressor

__all__ = [
    "BrainSymphonyClassifier",
    "BrainSymphonyEmbedder",
    "BrainSymphonyRegressor",
]
