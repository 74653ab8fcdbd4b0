"""BrainLM as estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.patch_models import (
    BasePatchClassifier,
    BasePatchEmbedder,
    BasePatchModel,
    BasePatchRegressor,
)
from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.training.rivals import load_brainlm_checkpoint

CENTRES = ["x", "y", "z"]  # columns of a cohort's regions, in mm
BRAIN_RADIUS = 50.0  # mm: gradients in the place of centres get this spread


class BrainLMMixin(BasePatchModel):
    """What is BrainLM's own."""

    _model = BrainLM
    _patch_size = 20

    def _load_published(self, path: Path, cohort: Cohort) -> BrainLM:
        """Read weights, which suit any regions and any window."""
        return load_brainlm_checkpoint(
            path,
            n_regions=cohort.n_regions,
            window=self.preprocessing_.window,
            coordinates=self._coordinates(cohort),
        )

    def _masking_config(self, masking: str) -> dict[str, Any]:
        """Return whether visible tokens keep their order."""
        return {"sort_visible": masking == "repaired"}

    def _n_coordinates(self, cohort: Cohort) -> int | None:
        """Return None with centres of regions, else three gradients in their place."""
        return None if _has_centres(cohort) else min(3, max(cohort.n_regions - 2, 1))

    def _coordinates(self, cohort: Cohort) -> Tensor | None:
        """Return the centres (R, 3) in mm; three gradients where there are none."""
        if cohort.regions is not None and _has_centres(cohort):
            return torch.tensor(cohort.regions[CENTRES].to_numpy(np.float32))
        gradients = self.preprocessing_.coordinates
        if gradients is None:
            return None
        spread = np.maximum(gradients.std(0), np.finfo(np.float32).tiny)
        coordinates = np.zeros((cohort.n_regions, 3), np.float32)
        coordinates[:, : gradients.shape[1]] = BRAIN_RADIUS * gradients / spread
        return torch.from_numpy(coordinates)


def _has_centres(cohort: Cohort) -> bool:
    """Return whether the cohort says where its regions are."""
    return cohort.regions is not None and set(CENTRES) <= set(cohort.regions.columns)


class BrainLMEmbedder(BrainLMMixin, BasePatchEmbedder):
    """Pretrain BrainLM on scans, and embed them.

    Parameters
    ----------
    size : {"toy", "13m"}, default="toy"
        Published sizes, but for ``"toy"``, which a laptop trains.
    pretrained : str, Path or None, default=None
        Folder of a saved embedder of the same model, or a file of published weights,
        see :func:`~bsym_sklearn.training.rivals.load_brainlm_checkpoint`.
    masking : {"published", "repaired"} or None, default=None
        Whether pretraining encodes the visible tokens in random order, as published,
        or in their own, so that the convolution along them sees neighbours. None
        takes that of `size`: repaired for ``"toy"``. Weights keep theirs.
    pooling : {"mean", "regions"}, default="mean"
        Features of the average region, or of each region.
    window : int or None, default=None
        Time points seen at once, cut to whole patches; at most 200 if not given.
    patch_size : int or None, default=None
        Time points of a token, 20 as published if not given.
    constant_regions, t_r, standardize, n_windows, max_epochs, batch_size, \
micro_batch_size, lr, weight_decay, validation_fraction, patience, group_column, \
device, dtype, compile, random_state, n_jobs, checkpoint_dir, warm_start, verbose
        See :class:`BrainSymphonyEmbedder`.

    Attributes
    ----------
    effective_rank_, between_scan_spread_ : float
        Of the averaged embeddings of the scans of `fit`, see
        :mod:`bsym_sklearn.model.collapse`. A spread near 0 is warned of: the model
        tells no scans apart.
    backbone_ : PatchBackbone
        The torch model.

    References
    ----------
    .. [1] Ortega Caro et al. (2024). BrainLM: a foundation model for brain
       activity recordings. ICLR.

    Examples
    --------
    >>> from bsym_sklearn import BrainLMEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=8, n_regions=6, n_timepoints=64).data
    >>> embedder = BrainLMEmbedder(max_epochs=1, random_state=0)
    >>> embedder.fit_transform(X[["fmri"]]).shape
    (8, 64)
    """


class BrainLMClassifier(BrainLMMixin, BasePatchClassifier):
    """Classify scans with BrainLM.

    Parameters
    ----------
    size, pretrained, window, patch_size, and what is not listed
        See :class:`BrainLMEmbedder`.
    strategy : {"finetune", "probe"}, default="finetune"
        Train the whole model, or a linear head on a frozen one.
    pretrain_epochs : int, default=0
        Passes of self-supervision over the scans of `fit` before the targets are used.
    pooling : {"mean", "regions"}, default="mean"
        Whether the head reads the average region, or has weights for each.
    class_weight : "balanced", dict or None, default=None
        Weight of each class in the loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.

    References
    ----------
    .. [1] Ortega Caro et al. (2024). BrainLM: a foundation model for brain
       activity recordings. ICLR.

    Examples
    --------
    >>> from bsym_sklearn import BrainLMClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=6, n_timepoints=64)
    >>> X = cohort.data[["fmri"]]
    >>> clf = BrainLMClassifier(max_epochs=1, random_state=0).fit(X, cohort.target)
    >>> clf.predict_proba(X).shape
    (12, 2)
    """


class BrainLMRegressor(BrainLMMixin, BasePatchRegressor):
    """Predict a number per scan with BrainLM.

    The target is standardised inside `fit`; the loss is the squared error.

    Parameters
    ----------
    size, pretrained, strategy, pretrain_epochs, pooling, and what is not listed
        See :class:`BrainLMClassifier`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    References
    ----------
    .. [1] Ortega Caro et al. (2024). BrainLM: a foundation model for brain
       activity recordings. ICLR.

    Examples
    --------
    >>> from bsym_sklearn import BrainLMRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=6, n_timepoints=64)
    >>> X = cohort.data[["fmri"]]
    >>> model = BrainLMRegressor(max_epochs=1, random_state=0)
    >>> model.fit(X, cohort.data["age"]).predict(X).shape
    (12,)
    """
