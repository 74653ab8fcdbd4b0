"""Save fitted estimators without pickle, and keep pickles free of torch objects.

One description serves both: a JSON configuration and named tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.estimators.base import BaseBrainEstimator
from bsym_sklearn.estimators.bundle_parts import (
    KEPT,
    MODULE,
    PREPROCESSING,
    check_license,
    check_metrics,
    copy_json,
    from_json,
    refuse,
    refusing,
    restore_preprocessing,
    take_prefix,
    to_json,
)
from bsym_sklearn.estimators.model_card import write_card
from bsym_sklearn.estimators.seen import pack_participants, unpack_participants
from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.checkpoints import load_bundle, load_weights, save_bundle
from bsym_sklearn.training.hub import resolve_source
from bsym_sklearn.training.limits import SizeLimit
from bsym_sklearn.training.net import make_net, set_history
from bsym_sklearn.version import __version__

# Fitted attributes that are rebuilt from tensors.
REBUILT = ("net_", "preprocessing_")


class SavableMixin(BaseBrainEstimator):
    """`save_pretrained`, `from_pretrained` and plain pickles."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        license: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Save the fitted estimator as safetensors, JSON and a model card.

        What is needed to use it elsewhere goes in: sizes, weights, scaling statistics,
        repetition time, the table of the regions, counts that describe the scans of
        `fit`, salted hashes of the participants seen, licence, metrics and versions
        of the libraries. No scan does. A half-written folder is never left behind.

        Parameters
        ----------
        folder : str or Path
            Made if needed; an older save in it is replaced.
        license : str or None, default=None
            Of the weights, by its short name (``"cc-by-4.0"``). None is that of the
            weights that this model comes from, if there are any.
        metrics : mapping of str to float or None, default=None
            What was measured, as the card shows it. None is what a loaded model has.

        Raises
        ------
        CheckpointError
            If the folder holds something else, such as a card that was edited.
        ValueError, TypeError
            If the licence is no short name, or a metric no finite number.

        Examples
        --------
        >>> import tempfile
        >>> from bsym_sklearn import BrainSymphonyEmbedder
        >>> from bsym_sklearn.data import make_cohort
        >>> X = make_cohort(6, 5, 30).data
        >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
        >>> Z = model.fit_transform(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(f"{folder}/saved", license="cc-by-4.0")
        ...     again = BrainSymphonyEmbedder.from_pretrained(f"{folder}/saved")
        >>> bool((again.transform(X) == Z).all())
        True
        """
        check_is_fitted(self)
        config, tensors = self._describe()
        for name, value in KEPT.items():
            config[name] = copy_json(getattr(self, f"{name}_", value))
        if license is not None:
            config["license"] = check_license(license)
        if metrics is not None:
            config["metrics"] = check_metrics(metrics)
        config["participants"] = pack_participants(self.participants_)
        save_bundle(folder, tensors=tensors, config=config, card=write_card(config))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a fitted estimator that `save_pretrained` wrote.

        Parameters
        ----------
        folder : str or Path
            Where it was saved, or ``"hf://owner/name@revision"`` on the Hugging Face
            hub (extra ``hub``).

        Returns
        -------
        estimator : instance of this class
            Fitted; predictions equal those of the saved one bit for bit on the
            same machine.

        Raises
        ------
        CheckpointError
            If the folder is missing, damaged, or holds another estimator, or cannot
            be downloaded.
        ValueError
            If the address on the hub is malformed.
        """
        tensors, config = load_bundle(resolve_source(folder))
        name = Path(str(folder)).name
        if config.get("class") != cls.__name__:
            raise CheckpointError(
                f"{cls.__name__} cannot load {name!r}. Got a saved "
                f"{config.get('class')}. Load it with that class, or pass the folder "
                "as `pretrained`."
            )
        versions = config.get("versions")
        wrote = versions.get("bsym_sklearn") if isinstance(versions, dict) else None
        advice = f"It was written by version {wrote}; this is {__version__}."
        with refusing(f"{cls.__name__} cannot load {name!r}", advice):
            params = {k: from_json(v) for k, v in config["params"].items()}
            estimator = cls(**_without_places(params))
            estimator._check_parameters()
            estimator._rebuild(config, tensors)
            for key, value in KEPT.items():
                setattr(estimator, f"{key}_", config.get(key, value))
            estimator.participants_ = unpack_participants(config.get("participants"))
            estimator._check_rebuilt()
            write_card(config)  # what cannot be described is of no use either
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "net_" not in state:
            return state
        config, tensors = self._describe()
        state = {name: value for name, value in state.items() if name not in REBUILT}
        state["_saved"] = (
            json.dumps(config),
            {name: value.numpy() for name, value in tensors.items()},
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("_saved", None)
        super().__setstate__(state)
        if saved is not None:
            tensors = {k: torch.from_numpy(v.copy()) for k, v in saved[1].items()}
            self._rebuild(json.loads(saved[0]), tensors)

    def _describe(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return everything fitted, as JSON can hold it and as tensors."""
        module = self.net_.module_
        tensors = {
            MODULE + name: value.detach().cpu().clone()
            for name, value in module.state_dict().items()
        }
        for name, value in self.preprocessing_.tensors().items():
            tensors[PREPROCESSING + name] = value
        beside = (*REBUILT, "participants_", *(f"{name}_" for name in KEPT))
        fitted = {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("_") and name not in beside
        }
        params = _without_places(self.get_params(deep=False))
        if isinstance(self.random_state, np.random.RandomState):
            params["random_state"] = self.seed_
        config = {
            "class": type(self).__name__,
            "params": params,
            "backbone": module.backbone.config,
            "preprocessing": self.preprocessing_.config(),
            "fitted": fitted,
            "history": [
                {k: v for k, v in epoch.items() if k != "batches"}
                for epoch in self.net_.history.to_list()
            ],
            "versions": {
                "bsym_sklearn": __version__,
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "skorch": version("skorch"),
                "torch": torch.__version__,
            },
        }
        return to_json(config), tensors

    def _rebuild(self, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        """Set the fitted attributes from what `_describe` returned."""
        for name, value in config["fitted"].items():
            if not name.endswith("_") or name.startswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute")
            setattr(self, name, from_json(value))
        with SizeLimit(tensors.values()):
            task = self._make_task(self._make_backbone(config["backbone"]))
        task = self._as_dtype(task)
        self.preprocessing_ = restore_preprocessing(config, tensors, task.backbone)
        load_weights(task, take_prefix(tensors, MODULE), source=type(self).__name__)
        settings = self._settings(self.max_epochs, None)
        if not _is_here(settings.device):
            settings = replace(settings, device="cpu")  # predict where it can
        self.net_ = make_net(task, settings, lr_scales=self._lr_scales(task))
        set_history(self.net_, config["history"])

    def _check_rebuilt(self) -> None:
        """Raise unless what was loaded belongs together, so that it can predict."""
        backbone = self.backbone_
        sizes = [self.n_regions_, self.n_features_in_, len(self.regions_)]
        sizes += [len(getattr(self, "networks_", self.regions_))]
        wrong = {
            "regions": any(size != backbone.config["n_regions"] for size in sizes),
            "modalities": self.modalities_ != self.preprocessing_.modalities
            or not {*self.modalities_} <= {*getattr(backbone, "modalities", ("fmri",))},
            "target": not self._fits_target(backbone.config),
        }
        refuse(wrong)
        _ = self.history_  # it can be made into a table

    def _fits_target(self, config: Mapping[str, Any]) -> bool:
        """Return whether outputs of the network can be turned into predictions."""
        numbers: list[Any] = [
            getattr(self, name, 1.0) for name in ("y_mean_", "y_scale_")
        ]
        if not all(isinstance(x, Real) and math.isfinite(x) for x in numbers):
            return False
        classes = getattr(self, "classes_", None)
        if classes is None:
            return True
        if not isinstance(classes, np.ndarray) or classes.ndim != 1:
            return False
        return len(classes) == config.get("n_outputs", len(classes))

    def _make_backbone(self, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the backbone that `config` describes, untrained."""
        raise NotImplementedError(f"{type(self).__name__}._make_backbone")

    def _make_task(self, backbone: Any) -> torch.nn.Module:
        """Return the task around `backbone`, untrained."""
        raise NotImplementedError(f"{type(self).__name__}._make_task")


def _without_places(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that name a place on one machine."""
    return {
        name: None if name in ("checkpoint_dir", "pretrained") else value
        for name, value in params.items()
    }


def _is_here(device: str) -> bool:
    """Say if this machine has the device that a model was fitted on."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # of CUDA, of others
        return False
    return True
