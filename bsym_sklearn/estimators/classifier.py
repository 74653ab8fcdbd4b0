"""BrainSymphony as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from bsym_sklearn.estimators.supervised import BaseSupervised
from bsym_sklearn.exceptions import BrainDataError


class BrainSymphonyClassifier(ClassifierMixin, BaseSupervised):
    """Classify scans with a BrainSymphony model.

    Train from scratch, from pretrained weights, or after self-supervision on
    the scans of `fit` themselves. Parameters and attributes that are not listed
    are those of :class:`BrainSymphonyEmbedder`.

    Parameters
    ----------
    pretrained : str, Path or None, default=None
        See :class:`BrainSymphonyEmbedder`.
    strategy : {"finetune", "probe"}, default="finetune"
        Train the whole model, or a linear head on a frozen one.
    pretrain_epochs : int, default=0
        Passes of self-supervision over the scans of `fit` before the targets
        are used.
    layer_decay : float, default=1.0
        Factor on the learning rate per block towards the input, in (0, 1].
    pooling : {"regions", "mean"}, default="regions"
        Whether the head has weights for each region, or reads their average.
    max_epochs : int, default=50
        Passes over the scans of `fit` with their targets.
    class_weight : "balanced", dict or None, default=None
        Weight of each class in the loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> clf = BrainSymphonyClassifier(dim=8, depth=1, max_epochs=2, random_state=0)
    >>> clf.fit(cohort.data, cohort.target).predict_proba(cohort.data).shape
    (12, 2)
    """

    _kind = "classification"
    classes_: np.ndarray

    def __init__(
        self,
        *,
        pretrained: str | Path | None = None,
        strategy: str = "finetune",
        pretrain_epochs: int = 0,
        layer_decay: float = 1.0,
        class_weight: str | dict | None = None,
        modalities: str = "auto",
        missing_modality: str = "raise",
        constant_regions: str = "error",
        window: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        sc_scaling: str | None = "log",
        dim: int = 64,
        depth: int = 2,
        perceiver_depth: int = 1,
        n_heads: int = 4,
        dropout: float = 0.1,
        spatial_tokens: str = "connectivity",
        positions: str = "learned",
        perceiver_residual: str = "region",
        decoder: str = "temporal",
        final_norm: str = "layer",
        edge_weights: str = "first_hop",
        structural_positions: str = "learned",
        signed_attention: str = "continuous",
        absent_edges: str = "masked",
        edge_symmetry: str = "symmetric",
        pooling: str = "regions",
        n_windows: int | None = None,
        objective: str = "joint",
        mask_ratio: float = 0.15,
        mask_span: int = 1,
        max_epochs: int = 50,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        group_column: str = "participant_id",
        device: str = "auto",
        dtype: str = "auto",
        compile: bool = False,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        checkpoint_dir: str | Path | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            pretrained=pretrained,
            strategy=strategy,
            pretrain_epochs=pretrain_epochs,
            layer_decay=layer_decay,
            modalities=modalities,
            missing_modality=missing_modality,
            constant_regions=constant_regions,
            window=window,
            t_r=t_r,
            standardize=standardize,
            sc_scaling=sc_scaling,
            dim=dim,
            depth=depth,
            perceiver_depth=perceiver_depth,
            n_heads=n_heads,
            dropout=dropout,
            spatial_tokens=spatial_tokens,
            positions=positions,
            perceiver_residual=perceiver_residual,
            decoder=decoder,
            final_norm=final_norm,
            edge_weights=edge_weights,
            structural_positions=structural_positions,
            signed_attention=signed_attention,
            absent_edges=absent_edges,
            edge_symmetry=edge_symmetry,
            pooling=pooling,
            n_windows=n_windows,
            objective=objective,
            mask_ratio=mask_ratio,
            mask_span=mask_span,
            max_epochs=max_epochs,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            lr=lr,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            patience=patience,
            group_column=group_column,
            device=device,
            dtype=dtype,
            compile=compile,
            random_state=random_state,
            n_jobs=n_jobs,
            checkpoint_dir=checkpoint_dir,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @with_callbacks
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on labelled scans.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Class labels.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyClassifier

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length or one class.
        ValueError
            If a parameter is out of range.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        cohort = self._check_scans(X, reset=not going_on)
        y = self._check_classes(y, len(cohort))
        classes = np.unique(y)
        if len(classes) < 2:
            raise BrainDataError(
                f"{type(self).__name__} needs at least 2 classes in y. Got 1 class: "
                f"{classes.tolist()}. Check the selection of rows."
            )
        if not going_on:
            self.classes_ = classes
        codes = self._encode(y)
        return self._fit(
            X,
            y,
            cohort,
            targets=torch.from_numpy(codes),
            weights=self._weights(y, sample_weight),
            strata=codes,
        )

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch on these scans, at the constant rate `lr`.

        Scaling and sizes are fixed by the first call.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Class labels.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that will come; by default those of the first call.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyClassifier
        """
        self._check_parameters()
        first = not hasattr(self, "net_")
        cohort = self._check_scans(X, reset=first)
        y = self._check_classes(y, len(cohort))
        if first:
            self.classes_ = np.unique(y if classes is None else np.asarray(classes))
        targets = torch.from_numpy(self._encode(y))
        return self._partial_fit(cohort, targets, self._weights(y, sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to one; columns as in `classes_`. Averaged over the windows
            of a scan.
        """
        return self._predict(
            X, lambda batch: self.net_.module_(**batch).double().softmax(1)
        )

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
        """
        most_probable = self.predict_proba(X).argmax(1)
        return self.classes_[most_probable]

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _check_classes(self, y: Any, n_scans: int) -> np.ndarray:
        """Return class labels, one per scan."""
        y = self._check_y(y, n_scans)
        check_classification_targets(y)
        return y

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Return class codes as int64."""
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise BrainDataError(
                f"{type(self).__name__} needs labels among {self.classes_.tolist()}. "
                f"Got {unknown.tolist()[:3]}. Pass all `classes` in the first call."
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _weights(self, y: np.ndarray, sample_weight: Any) -> Tensor | None:
        """Return the product of sample and class weights, of mean one."""
        weights = self._sample_weights(sample_weight, len(y))
        if self.class_weight is not None:
            # classes that this call lacks count as they would alone
            present = np.unique(y)
            by_class = compute_class_weight(self.class_weight, classes=present, y=y)
            by_scan = by_class[np.searchsorted(present, y)]
            weights = by_scan if weights is None else weights * by_scan
        return self._as_weights(weights)
