"""Estimators for scikit-learn."""

from bsym_sklearn.estimators.brain_jepa import (
    BrainJEPAClassifier,
    BrainJEPAEmbedder,
    BrainJEPARegressor,
)
from bsym_sklearn.estimators.brainlm import (
    BrainLMClassifier,
    BrainLMEmbedder,
    BrainLMRegressor,
)
from bsym_sklearn.estimators.classifier import BrainSymphonyClassifier
from bsym_sklearn.estimators.embedder import BrainSymphonyEmbedder
from bsym_sklearn.estimators.network import NetworkClassifier, NetworkRegressor
from bsym_sklearn.estimators.regressor import BrainSymphonyRegressor

__all__ = [
    "BrainJEPAClassifier",
    "BrainJEPAEmbedder",
    "BrainJEPARegressor",
    "BrainLMClassifier",
    "BrainLMEmbedder",
    "BrainLMRegressor",
    "BrainSymphonyClassifier",
    "BrainSymphonyEmbedder",
    "BrainSymphonyRegressor",
    "NetworkClassifier",
    "NetworkRegressor",
]
