"""BrainSymphony and its rivals as scikit-learn estimators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bsym_sklearn.exceptions import (
    BrainDataError,
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.version import __version__

if TYPE_CHECKING:
    from bsym_sklearn.estimators import (
        BlendClassifier,
        BlendRegressor,
        BrainJEPAClassifier,
        BrainJEPAEmbedder,
        BrainJEPARegressor,
        BrainLMClassifier,
        BrainLMEmbedder,
        BrainLMRegressor,
        BrainSymphonyClassifier,
        BrainSymphonyEmbedder,
        BrainSymphonyRegressor,
        Candidate,
        ConfoundFeatures,
        ConnectivityFeatures,
        ConnectomeFeatures,
        FeatureClassifier,
        FeatureRegressor,
        ModelInfo,
        NetworkClassifier,
        NetworkRegressor,
        RegionAmplitude,
        list_models,
        make_candidate,
        make_model,
        model_info,
        search_space,
    )
    from bsym_sklearn.estimators.export import export_graph
    from bsym_sklearn.training.download import fetch_reference_checkpoint
    from bsym_sklearn.training.hub import push_to_hub
    from bsym_sklearn.training.reference import load_reference_checkpoint

__all__ = [
    "BlendClassifier",
    "BlendRegressor",
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
    "Candidate",
    "CheckpointError",
    "ConfoundFeatures",
    "ConnectivityFeatures",
    "ConnectomeFeatures",
    "FeatureClassifier",
    "FeatureRegressor",
    "ModelInfo",
    "NetworkClassifier",
    "NetworkRegressor",
    "RegionAmplitude",
    "__version__",
    "export_graph",
    "fetch_reference_checkpoint",
    "list_models",
    "load_reference_checkpoint",
    "make_candidate",
    "make_model",
    "model_info",
    "push_to_hub",
    "search_space",
]

# Where the other names are; what imports torch waits until it is asked for.
_ELSEWHERE = {
    "export_graph": "bsym_sklearn.estimators.export",
    "fetch_reference_checkpoint": "bsym_sklearn.training.download",
    "load_reference_checkpoint": "bsym_sklearn.training.reference",
    "push_to_hub": "bsym_sklearn.training.hub",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(
        import_module(_ELSEWHERE.get(name, "bsym_sklearn.estimators")), name
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
