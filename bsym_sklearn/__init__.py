"""BrainSymphony and its rivals as scikit-learn estimators."""

from bsym_sklearn.estimators import (
    BrainJEPAClassifier,
    BrainJEPAEmbedder,
    BrainJEPARegressor,
    BrainLMClassifier,
    BrainLMEmbedder,
    BrainLMRegressor,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    NetworkClassifier,
    NetworkRegressor,
)
from bsym_sklearn.exceptions import (
    BrainDataError,
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.training.reference import load_reference_checkpoint
from bsym_sklearn.version import __version__

__all__ = [
    "BrainDataError",
    "BrainJEPAClassifier",
    "BrainJEPAEmbedder",
    "BrainJEPARegressor",
    "BrainLMClassifier",
    "BrainLMEmbedder",
    "BrainLMRegressor",
    "BrainSymphonyClassifier",
    "BrainSymphonyEmbedder",
    "BrainSymphonyRegressor",
    "BrainSymphonyWarning",
    "CheckpointError",
    "NetworkClassifier",
    "NetworkRegressor",
    "__version__",
    "load_reference_checkpoint",
]
