"""What each model by name is made of.

An entry says what is known of a model and how it is made from the settings that all of
them share; :mod:`bsym_sklearn.estimators.registry` is how users reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import FeatureUnion
from sklearn.utils import check_random_state

from bsym_sklearn.estimators.blend import BlendClassifier, BlendRegressor, Members
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
from bsym_sklearn.estimators.classical import FeatureClassifier, FeatureRegressor
from bsym_sklearn.estimators.classifier import BrainSymphonyClassifier
from bsym_sklearn.estimators.covariates import ConfoundFeatures
from bsym_sklearn.estimators.embedder import BrainSymphonyEmbedder
from bsym_sklearn.estimators.features import ConnectivityFeatures
from bsym_sklearn.estimators.network import NetworkClassifier, NetworkRegressor
from bsym_sklearn.estimators.regressor import BrainSymphonyRegressor

TASKS = ("classification", "regression")
SIZES = ("small", "base", "large")
# What a rival needs to be at its best within the epochs that others get: one wide layer
# learns slowly at the rate of a transformer (docs/benchmarks/ablations.md).
LEARNING_RATES = {"mean_mlp": 5e-3}
N_SEEDS = 3  # of each network in a blend: alone, each moves by .02 with its seed
MAX_SEED = 2**31 - 1
# Averages over regions, as published, are at chance on small cohorts, for the rivals as
# for BrainSymphony, which reads region by region by default (same page).
BY_REGION = {"pooling": "regions"}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model by name.

    Attributes
    ----------
    name, label : str
        What `make_model` and tables call it.
    family : {"floor", "classical", "network", "foundation", "ours"}
        What kind of model it is.
    needs : tuple of {"fmri", "sc", "confounds"}
        What a cohort must have.
    sizes : tuple of str
        Sizes it comes in, ``()`` where there is nothing to choose.
    tasks : tuple of {"classification", "regression"}
        What it can be asked.
    reference : str
        Where it was published.
    """

    name: str
    label: str
    family: str
    needs: tuple[str, ...] = ("fmri",)
    sizes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASKS
    reference: str = ""


@dataclass(frozen=True)
class Settings:
    """What all models are made with."""

    task: str
    size: str
    group_column: str
    window: int | None
    batch_size: int
    pretrained: str | Path | None
    confounds: tuple[str, ...]
    random_state: Any
    pretrain_epochs: int  # inside `fit`, where no weights are given
    max_epochs: int | None  # with targets; None: the estimator's own

    def of_networks(self) -> dict[str, Any]:
        """Return the parameters that every network here takes."""
        return {
            "group_column": self.group_column,
            "window": self.window,
            "batch_size": self.batch_size,
            "random_state": self.random_state,
            "constant_regions": "mask",  # as in connectivity: all see the same scans
        }

    def with_targets(self) -> dict[str, Any]:
        """Return the parameters of networks that learn from targets."""
        limit = {} if self.max_epochs is None else {"max_epochs": self.max_epochs}
        return self.of_networks() | limit


@dataclass(frozen=True)
class Model:
    """One entry of the registry."""

    info: ModelInfo
    make: Callable[[Settings], Any]
    make_pretrainer: Callable[[Settings], Any] | None = None
    pretrained_parameter: str = "pretrained"


@dataclass(frozen=True)
class Foundation:
    """A model that is pretrained: its three estimators and its sizes."""

    label: str
    embedder: type
    classifier: type
    regressor: type
    sizes: dict[str, dict[str, Any]]  # parameters of each
    family: str
    needs: tuple[str, ...]
    reference: str


FOUNDATIONS = {
    "brainsymphony": Foundation(
        "BrainSymphony",
        BrainSymphonyEmbedder,
        BrainSymphonyClassifier,
        BrainSymphonyRegressor,
        {
            "small": {"dim": 32, "depth": 1, "n_heads": 2},
            "base": {},
            "large": {"dim": 128, "depth": 6, "n_heads": 4},  # as published
        },
        "ours",
        (),
        "Khajehnejad et al. (2025). arXiv:2506.18314.",
    ),
    "brainlm": Foundation(
        "BrainLM",
        BrainLMEmbedder,
        BrainLMClassifier,
        BrainLMRegressor,
        {
            "small": {"size": "toy", **BY_REGION},
            "base": {"size": "13m", **BY_REGION},
            "large": {"size": "13m", **BY_REGION},  # the largest of this architecture
        },
        "foundation",
        ("fmri",),
        "Ortega Caro et al. (2024). BrainLM. ICLR.",
    ),
    "brain_jepa": Foundation(
        "Brain-JEPA",
        BrainJEPAEmbedder,
        BrainJEPAClassifier,
        BrainJEPARegressor,
        {
            "small": {"size": "toy", **BY_REGION},
            "base": {"size": "vit-s", **BY_REGION},
            "large": {"size": "vit-b", **BY_REGION},
        },
        "foundation",
        ("fmri",),
        "Dong et al. (2024). Brain-JEPA. NeurIPS.",
    ),
}


def _chance(settings: Settings) -> Any:
    """Return what knows nothing but the targets."""
    if settings.task == "classification":
        return DummyClassifier(strategy="prior")
    return DummyRegressor()


def _linear(settings: Settings, features: Any, model: str | None = None) -> Any:
    """Return a tuned linear model on features, logistic or ridge by default."""
    if settings.task == "classification":
        return FeatureClassifier(
            features, model=model or "logistic", group_column=settings.group_column
        )
    return FeatureRegressor(
        features, model=model or "ridge", group_column=settings.group_column
    )


def _confounds(settings: Settings) -> Any:
    """Return a linear model on columns beside the scans."""
    return _linear(settings, ConfoundFeatures(settings.confounds))


def _network(settings: Settings, network: str) -> Any:
    """Return a supervised network of the published size."""
    estimator = {
        "classification": NetworkClassifier,
        "regression": NetworkRegressor,
    }[settings.task]
    return estimator(
        network, **settings.with_targets(), lr=LEARNING_RATES.get(network, 1e-3)
    )


def _embedder(settings: Settings, name: str, max_epochs: int) -> Any:
    """Return an embedder that trains for that long."""
    model = FOUNDATIONS[name]
    return model.embedder(
        **model.sizes[settings.size],
        **settings.of_networks(),
        pretrained=settings.pretrained,
        max_epochs=max_epochs,
    )


def _pretrainer(settings: Settings, name: str) -> Any:
    """Return the embedder that others start from."""
    return _embedder(settings, name, settings.pretrain_epochs)


def _random(settings: Settings, name: str) -> Any:
    """Return a linear model on an embedder that has never learned."""
    return _linear(settings, _embedder(settings, name, 0))


def _frozen(settings: Settings, name: str) -> Any:
    """Return a linear model on a pretrained embedder."""
    return _linear(settings, _embedder(settings, name, settings.pretrain_epochs))


def _supervised(settings: Settings, name: str, pretrain_epochs: int) -> Any:
    """Return a network that is trained with its targets."""
    model = FOUNDATIONS[name]
    estimator = {
        "classification": model.classifier,
        "regression": model.regressor,
    }[settings.task]
    return estimator(
        **model.sizes[settings.size],
        **settings.with_targets(),
        pretrained=settings.pretrained,
        pretrain_epochs=pretrain_epochs,
    )


def _scratch(settings: Settings, name: str) -> Any:
    """Return a network that starts from random weights."""
    return _supervised(settings, name, 0)


def _finetuned(settings: Settings, name: str) -> Any:
    """Return a network that starts from pretrained weights."""
    return _supervised(settings, name, settings.pretrain_epochs)


def _with_connectivity(settings: Settings, kind: str, name: str) -> Any:
    """Return a linear model on connectivity beside a pretrained embedding."""
    features = FeatureUnion(
        [
            (kind, ConnectivityFeatures(kind)),
            (name, _embedder(settings, name, settings.pretrain_epochs)),
        ]
    )
    return _linear(settings, features)


def _streams(settings: Settings, name: str) -> Any:
    """Return a network that reads its streams, without Perceiver and gate."""
    return _reading(settings, name, "spatial+states")


def _reading(settings: Settings, name: str, readouts: str) -> Any:
    """Return a network that reads these streams of fMRI, whatever else there is."""
    return _scratch(settings, name).set_params(modalities="fmri", readouts=readouts)


def _blend(settings: Settings, make: Callable[[Settings], Members]) -> Any:
    """Return networks of several seeds and linear models on tangent, blended."""
    members: list[tuple[str, Any]] = []
    for i, seed in enumerate(_seeds(settings.random_state), start=1):
        networks = make(replace(settings, random_state=seed))
        members += [(f"{name}{i}", network) for name, network in networks]
    members += [
        ("tangent", _linear(settings, "tangent")),
        ("tangent_kernel", _linear(settings, "tangent", "kernel_ridge")),
    ]
    blend = {"classification": BlendClassifier, "regression": BlendRegressor}
    return blend[settings.task](members, group_column=settings.group_column)


def _seeds(random_state: Any) -> list[int | None]:
    """Return a seed for each network of one kind in a blend."""
    if random_state is None:
        return [None] * N_SEEDS
    drawn = check_random_state(random_state).randint(MAX_SEED, size=N_SEEDS)
    return [int(seed) for seed in drawn]


def _blend_network(settings: Settings, network: str) -> Any:
    """Return a network blended with tangent connectivity."""
    return _blend(settings, lambda seeded: [(network, _network(seeded, network))])


def _blend_streams(settings: Settings, name: str) -> Any:
    """Return networks, each reading one stream, blended with tangent."""
    return _blend(
        settings,
        lambda seeded: [
            (stream, _reading(seeded, name, stream)) for stream in ("spatial", "states")
        ],
    )


def _classical() -> list[Model]:
    """Return the linear models, from the least to the most that they see."""
    fmri, sc, both = ("fmri",), ("sc",), ("fmri", "sc")
    floor, classical = "floor", "classical"
    only_classes = ("classification",)
    models = [
        Model(ModelInfo("dummy", "chance", floor, ()), _chance),
        Model(
            ModelInfo("confounds", "confounds + linear", floor, ("confounds",)),
            _confounds,
        ),
        Model(
            ModelInfo("amplitude", "amplitude + linear", floor, fmri),
            partial(_linear, features="amplitude"),
        ),
    ]
    sources = {
        "correlation": ("correlation", fmri, ""),
        "partial": ("partial correlation", fmri, ""),
        "tangent": ("tangent", fmri, "Varoquaux et al. (2010). MICCAI."),
        "sc": ("SC", sc, ""),
        "correlation+sc": ("correlation, SC", both, ""),
        "tangent+sc": ("tangent, SC", both, "Varoquaux et al. (2010). MICCAI."),
    }
    for name, (label, needs, reference) in sources.items():
        info = ModelInfo(name, f"{label} + linear", classical, needs)
        info = replace(info, reference=reference)
        models.append(Model(info, partial(_linear, features=name)))
        if len(needs) == 1:
            ridge = replace(
                info, name=f"{name}-ridge", label=f"{label} + ridge", tasks=only_classes
            )
            models.append(Model(ridge, partial(_linear, features=name, model="ridge")))
        if needs == fmri:
            kernel = replace(
                info,
                name=f"{name}-kernel_ridge",
                label=f"{label} + kernel ridge",
                reference="He et al. (2020). NeuroImage 206, 116276.",
            )
            models.append(
                Model(kernel, partial(_linear, features=name, model="kernel_ridge"))
            )
    return models


def _networks() -> list[Model]:
    """Return the published supervised networks, and a blend of the best."""
    published = {
        "mean_mlp": ("meanMLP", "Popov et al. (2024). NeuroImage 303, 120909."),
        "transformer": (
            "transformer over time",
            "Popov et al. (2024). NeuroImage 303, 120909.",
        ),
        "brainnetcnn": (
            "BrainNetCNN",
            "Kawahara et al. (2017). NeuroImage 146, 1038-1049.",
        ),
        "brain_network_transformer": (
            "Brain Network Transformer",
            "Kan et al. (2022). NeurIPS.",
        ),
        "braingnn": (
            "BrainGNN",
            "Li et al. (2021). Medical Image Analysis 74, 102233.",
        ),
    }
    models = [
        Model(
            ModelInfo(name, label, "network", reference=reference),
            partial(_network, network=name),
        )
        for name, (label, reference) in published.items()
    ]
    blend = ModelInfo("mean_mlp-blend", "meanMLP, tangent blended", "network")
    return [*models, Model(blend, partial(_blend_network, network="mean_mlp"))]


def _pretrained_models(name: str) -> list[Model]:
    """Return the four rows of a model that is pretrained."""
    model = FOUNDATIONS[name]
    rows = {
        "random": ("random, frozen + linear", _random, False),
        "scratch": ("from scratch", _scratch, False),
        "frozen": ("pretrained, frozen + linear", _frozen, True),
        "finetuned": ("pretrained, fine-tuned", _finetuned, True),
    }
    return [
        Model(
            ModelInfo(
                f"{name}-{row}",
                f"{model.label} {label}",
                model.family,
                model.needs,
                SIZES,
                reference=model.reference,
            ),
            partial(make, name=name),
            partial(_pretrainer, name=name) if pretrained else None,
            "features__pretrained" if row == "frozen" else "pretrained",
        )
        for row, (label, make, pretrained) in rows.items()
    ]


def _hybrids() -> list[Model]:
    """Return what joins BrainSymphony and connectivity."""
    name = "brainsymphony"
    model = FOUNDATIONS[name]
    info = ModelInfo("", "", model.family, ("fmri",), SIZES, reference=model.reference)
    models = [
        Model(
            replace(
                info,
                name=f"{kind}+{name}",
                label=f"{kind}, {model.label} pretrained + linear",
            ),
            partial(_with_connectivity, kind=kind, name=name),
            partial(_pretrainer, name=name),
            f"features__{name}__pretrained",
        )
        for kind in ("correlation", "tangent")
    ]
    streams = replace(
        info, name=f"{name}-streams", label=f"{model.label} streams, from scratch"
    )
    models.append(Model(streams, partial(_streams, name=name)))
    blend = replace(
        info, name=f"{name}-blend", label=f"{model.label} streams, tangent blended"
    )
    return [*models, Model(blend, partial(_blend_streams, name=name))]


MODELS: dict[str, Model] = {
    model.info.name: model
    for model in (
        *_classical(),
        *_networks(),
        *_pretrained_models("brainlm"),
        *_pretrained_models("brain_jepa"),
        *_pretrained_models("brainsymphony"),
        *_hybrids(),
    )
}
