"""Save fitted estimators without pickle, and keep pickles free of torch objects.

One description serves both: a JSON configuration and named tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.estimators.base import BaseBrainEstimator
from bsym_sklearn.estimators.preprocessing import Preprocessing
from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.checkpoints import load_bundle, load_weights, save_bundle
from bsym_sklearn.training.net import make_net, set_history
from bsym_sklearn.version import __version__

# How names of tensors begin.
MODULE, PREPROCESSING = "module.", "preprocessing."
# Fitted attributes that are rebuilt from tensors.
REBUILT = ("net_", "preprocessing_")


class SavableMixin(BaseBrainEstimator):
    """`save_pretrained`, `from_pretrained` and plain pickles."""

    participants_: list[str]

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the fitted estimator as safetensors and JSON.

        Sizes, weights, scaling statistics, repetition time, labels of the
        regions, versions of the libraries and hashes of the participants seen
        go in; no scan does. A half-written folder is never left behind.

        Parameters
        ----------
        folder : str or Path
            Made if needed; an older save in it is replaced.

        Raises
        ------
        CheckpointError
            If the folder holds something else.

        Examples
        --------
        >>> import tempfile
        >>> from bsym_sklearn import BrainSymphonyEmbedder
        >>> from bsym_sklearn.data import make_cohort
        >>> X = make_cohort(6, 5, 30).data
        >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
        >>> Z = model.fit_transform(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(f"{folder}/saved")
        ...     again = BrainSymphonyEmbedder.from_pretrained(f"{folder}/saved")
        >>> bool((again.transform(X) == Z).all())
        True
        """
        check_is_fitted(self)
        config, tensors = self._describe()
        save_bundle(folder, tensors=tensors, config=config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a fitted estimator that `save_pretrained` wrote.

        Parameters
        ----------
        folder : str or Path
            Where it was saved.

        Returns
        -------
        estimator : instance of this class
            Fitted; predictions equal those of the saved one bit for bit on the
            same machine.

        Raises
        ------
        CheckpointError
            If the folder is missing, damaged, or holds another estimator.
        """
        tensors, config = load_bundle(folder)
        if config.get("class") != cls.__name__:
            raise CheckpointError(
                f"{cls.__name__} cannot load {Path(folder).name!r}. Got a saved "
                f"{config.get('class')}. Load it with that class, or pass the folder "
                "as `pretrained`."
            )
        try:
            estimator = cls(**{k: _from_json(v) for k, v in config["params"].items()})
            estimator._rebuild(config, tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{cls.__name__} cannot load {Path(folder).name!r}: {error!r}. It was "
                f"written by version {config.get('versions', {}).get('bsym_sklearn')}; "
                f"this is {__version__}."
            ) from error
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
        fitted = {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("_") and name not in REBUILT
        }
        params = self.get_params(deep=False)
        if isinstance(self.random_state, np.random.RandomState):
            params["random_state"] = self.seed_
        for place in {"checkpoint_dir", "pretrained"} & params.keys():
            params[place] = None  # of the machine it was fitted on
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
        return _to_json(config), tensors

    def _rebuild(self, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        """Set the fitted attributes from what `_describe` returned."""
        for name, value in config["fitted"].items():
            if not name.endswith("_") or name.startswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute")
            setattr(self, name, _from_json(value))
        self.participants_ = list(self.participants_)  # other lists are tuples
        self.preprocessing_ = Preprocessing.restore(
            config["preprocessing"], take_prefix(tensors, PREPROCESSING)
        )
        task = self._as_dtype(self._make_task(self._make_backbone(config["backbone"])))
        load_weights(task, take_prefix(tensors, MODULE), source=type(self).__name__)
        settings = self._settings(self.max_epochs, None)
        if settings.device.startswith("cuda") and not torch.cuda.is_available():
            settings = replace(settings, device="cpu")  # predict where it can
        self.net_ = make_net(task, settings, lr_scales=self._lr_scales(task))
        set_history(self.net_, config["history"])

    def _make_backbone(self, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the backbone that `config` describes, untrained."""
        raise NotImplementedError(f"{type(self).__name__}._make_backbone")

    def _make_task(self, backbone: Any) -> torch.nn.Module:
        """Return the task around `backbone`, untrained."""
        raise NotImplementedError(f"{type(self).__name__}._make_task")


def take_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, without it.

    Examples
    --------
    >>> import torch
    >>> list(take_prefix({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, "a."))
    ['x']
    """
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _to_json(value: Any) -> Any:
    """Return `value` as JSON can hold it, arrays with their type."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path | np.random.RandomState):
        return str(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _to_json(x) for key, x in value.items()}
        return {"items": [[_to_json(key), _to_json(x)] for key, x in value.items()]}
    return [_to_json(x) for x in value] if isinstance(value, list | tuple) else value


def _from_json(value: Any) -> Any:
    """Undo `_to_json`; lists were tuples."""
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        dtype = object if value["dtype"] == "|O" else np.dtype(value["dtype"])
        return np.array(value["array"], dtype=dtype)
    if isinstance(value, dict) and set(value) == {"items"}:
        return {_from_json(key): _from_json(x) for key, x in value["items"]}
    return tuple(value) if isinstance(value, list) else value
