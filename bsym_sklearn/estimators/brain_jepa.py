"""Brain-JEPA as estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.patch_models import (
    BasePatchClassifier,
    BasePatchEmbedder,
    BasePatchModel,
    BasePatchRegressor,
)
from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.training.rivals import load_brain_jepa_checkpoint

N_GRADIENTS = 30  # as published


class BrainJEPAMixin(BasePatchModel):
    """What is Brain-JEPA's own."""

    _model = BrainJEPA
    _patch_size = 16

    def _load_published(self, path: Path, cohort: Cohort) -> BrainJEPA:
        """Read weights, which are bound to their regions and window."""
        gradients = self._coordinates(cohort)
        return load_brain_jepa_checkpoint(path, coordinates=gradients)

    def _masking_config(self, masking: str) -> dict[str, Any]:
        """Return how blocks are sampled."""
        return {"masking": masking}

    def _n_coordinates(self, cohort: Cohort) -> int:
        """Return the number of gradients, 30 as published where there are as many."""
        return min(N_GRADIENTS, max(cohort.n_regions - 2, 1))

    def _config(self, cohort: Cohort, window: int, patch_size: int) -> dict[str, Any]:
        """Return the sizes that depend on the scans."""
        config = super()._config(cohort, window, patch_size)
        return config | {"n_gradients": self._n_coordinates(cohort)}


class BrainJEPAEmbedder(BrainJEPAMixin, BasePatchEmbedder):
    """Pretrain Brain-JEPA on scans, and embed them.

    Parameters
    ----------
    size : {"toy", "vit-s", "vit-b", "vit-l"}, default="toy"
        Published sizes, but for ``"toy"``, which a laptop trains.
    pretrained : str, Path or None, default=None
        Folder of a saved embedder of the same model, or a file of published weights,
        see :func:`~bsym_sklearn.training.rivals.load_brain_jepa_checkpoint`.
    masking : {"published", "repaired"} or None, default=None
        How blocks of tokens are sampled, see
        :func:`~bsym_sklearn.model.block_masking.sample_blocks`. None is repaired.
        Weights keep theirs.
    pooling : {"mean", "regions"}, default="mean"
        Features of the average region, or of each region.
    window : int or None, default=None
        Time points seen at once, cut to whole patches; at most 200 if not given.
    patch_size : int or None, default=None
        Time points of a token, 16 as published if not given.
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
    .. [1] Dong et al. (2024). Brain-JEPA: brain dynamics foundation model with
       gradient positioning and spatiotemporal masking. NeurIPS.

    Examples
    --------
    >>> from bsym_sklearn import BrainJEPAEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=8, n_regions=6, n_timepoints=64).data
    >>> embedder = BrainJEPAEmbedder(max_epochs=1, random_state=0)
    >>> embedder.fit_transform(X[["fmri"]]).shape
    (8, 64)
    """


class BrainJEPAClassifier(BrainJEPAMixin, BasePatchClassifier):
    """Classify scans with Brain-JEPA.

    Parameters
    ----------
    size, pretrained, window, patch_size, and what is not listed
        See :class:`BrainJEPAEmbedder`.
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
    .. [1] Dong et al. (2024). Brain-JEPA: brain dynamics foundation model with
       gradient positioning and spatiotemporal masking. NeurIPS.

    Examples
    --------
    >>> from bsym_sklearn import BrainJEPAClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=6, n_timepoints=64)
    >>> X = cohort.data[["fmri"]]
    >>> clf = BrainJEPAClassifier(max_epochs=1, random_state=0).fit(X, cohort.target)
    >>> clf.predict_proba(X).shape
    (12, 2)
    """


class BrainJEPARegressor(BrainJEPAMixin, BasePatchRegressor):
    """Predict a number per scan with Brain-JEPA.

    The target is standardised inside `fit`; the loss is the squared error.

    Parameters
    ----------
    size, pretrained, strategy, pretrain_epochs, pooling, and what is not listed
        See :class:`BrainJEPAClassifier`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    References
    ----------
    .. [1] Dong et al. (2024). Brain-JEPA: brain dynamics foundation model with
       gradient positioning and spatiotemporal masking. NeurIPS.

    Examples
    --------
    >>> from bsym_sklearn import BrainJEPARegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=6, n_timepoints=64)
    >>> X = cohort.data[["fmri"]]
    >>> model = BrainJEPARegressor(max_epochs=1, random_state=0)
    >>> model.fit(X, cohort.data["age"]).predict(X).shape
    (12,)
    """
