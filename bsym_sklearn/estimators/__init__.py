"""Estimators for scikit-learn."""

from bsym_sklearn.estimators.blend import BlendClassifier, BlendRegressor
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
from bsym_sklearn.estimators.catalogue import ModelInfo
from bsym_sklearn.estimators.classical import FeatureClassifier, FeatureRegressor
from bsym_sklearn.estimators.classifier import BrainSymphonyClassifier
from bsym_sklearn.estimators.covariates import ConfoundFeatures
from bsym_sklearn.estimators.embedder import BrainSymphonyEmbedder
from bsym_sklearn.estimators.features import (
    ConnectivityFeatures,
    ConnectomeFeatures,
    RegionAmplitude,
)
from bsym_sklearn.estimators.network import NetworkClassifier, NetworkRegressor
from bsym_sklearn.estimators.registry import (
    Candidate,
    list_models,
    make_candidate,
    make_model,
    model_info,
)
from bsym_sklearn.estimators.regressor import BrainSymphonyRegressor
from bsym_sklearn.estimators.search_spaces import search_space

__all__ = [
    "BlendClassifier",
    "BlendRegressor",
    "BrainJEPAClassifier",
    "BrainJEPAEmbedder",
    "BrainJEPARegressor",
    "BrainLMClassifier",
    "BrainLMEmbedder",
    "BrainLMRegressor",
    "BrainSymphonyClassifier",
    "BrainSymphonyEmbedder",
    "BrainSymphonyRegressor",
    "Candidate",
    "ConfoundFeatures",
    "ConnectivityFeatures",
    "ConnectomeFeatures",
    "FeatureClassifier",
    "FeatureRegressor",
    "ModelInfo",
    "NetworkClassifier",
    "NetworkRegressor",
    "RegionAmplitude",
    "list_models",
    "make_candidate",
    "make_model",
    "model_info",
    "search_space",
]
