"""BrainSymphony as a classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bsym_sklearn.estimators.supervised import BaseSupervised
from bsym_sklearn.estimators.targets import ScanClassifierMixin


class BrainSymphonyClassifier(ScanClassifierMixin, BaseSupervised):
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
    temporal_tokens : {"states", "linear"}, default="states"
        See :class:`BrainSymphonyEmbedder`. States learn at five times `lr`.
    temporal_kernel : int, default=1
        See :class:`BrainSymphonyEmbedder`.
    readouts : str, default="auto"
        Streams that the head reads, joined by "+": ``"spatial"``, ``"states"`` and
        ``"temporal"`` (both averaged over time), ``"structural"`` and
        ``"fused"``. Each has a linear read-out and a loss of its own, and their outputs
        are averaged. ``"auto"`` takes ``"spatial+states+fused"``, with connectomes
        ``"structural"`` too, and ``"temporal"`` in place of states without them. Every
        modality needs one; without ``"fused"``, no time is spent on the Perceiver and
        the gate.
    head_dropout : float, default=0.8
        Rate on what the head reads region by region, in [0, 1). What it averages over
        time or regions loses at most half, and over time before the average.
    pooling : {"regions", "mean"}, default="regions"
        Whether the head has weights for each region, or reads their average.
    max_epochs : int, default=50
        Passes over the scans of `fit` with their targets.
    validation_fraction : float, default=0.0
        Share of the participants of `fit` held out to choose the epoch, in [0, 1). A
        tenth of some hundred participants is missed more in training than it says
        about the epoch; of thousands, it and `patience` save time.
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
        temporal_tokens: str = "states",
        temporal_kernel: int = 1,
        positions: str = "learned",
        perceiver_residual: str = "region",
        decoder: str = "temporal",
        final_norm: str = "layer",
        edge_weights: str = "first_hop",
        structural_positions: str = "learned",
        signed_attention: str = "continuous",
        absent_edges: str = "masked",
        edge_symmetry: str = "symmetric",
        fusion: str = "gate",
        readouts: str = "auto",
        head_dropout: float = 0.8,
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
        validation_fraction: float = 0.0,
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
            temporal_tokens=temporal_tokens,
            temporal_kernel=temporal_kernel,
            positions=positions,
            perceiver_residual=perceiver_residual,
            decoder=decoder,
            final_norm=final_norm,
            edge_weights=edge_weights,
            structural_positions=structural_positions,
            signed_attention=signed_attention,
            absent_edges=absent_edges,
            edge_symmetry=edge_symmetry,
            fusion=fusion,
            readouts=readouts,
            head_dropout=head_dropout,
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
