"""Published supervised networks as estimators, beside BrainSymphony."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.persistence import SavableMixin
from bsym_sklearn.estimators.targets import ScanClassifierMixin, ScanRegressorMixin
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.model.rivals import (
    BrainGNN,
    BrainNetCNN,
    BrainNetworkTransformer,
    MeanMLP,
    Rival,
    TimePointTransformer,
)
from bsym_sklearn.training.network_task import NetworkTask

NETWORKS: dict[str, type[Rival]] = {
    "mean_mlp": MeanMLP,
    "transformer": TimePointTransformer,
    "brainnetcnn": BrainNetCNN,
    "brain_network_transformer": BrainNetworkTransformer,
    "braingnn": BrainGNN,
}


class BaseNetwork(SavableMixin):
    """Constructor and network of the two estimators."""

    # What all estimators have, fixed here: these networks read fMRI alone.
    modalities = "fmri"
    missing_modality = "raise"
    sc_scaling = None
    _kind: str  # of loss, set by a mixin of `targets`

    def __init__(
        self,
        network: str = "mean_mlp",
        *,
        constant_regions: str = "error",
        window: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        dropout: float | None = None,
        n_windows: int | None = None,
        max_epochs: int = 100,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        patience: int | None = 20,
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
        self.network = network
        self.constant_regions = constant_regions
        self.window = window
        self.t_r = t_r
        self.standardize = standardize
        self.dropout = dropout
        self.n_windows = n_windows
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.group_column = group_column
        self.device = device
        self.dtype = dtype
        self.compile = compile
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.verbose = verbose

    def _check_parameters(self) -> None:
        """Check the name of the network too."""
        super()._check_parameters()
        check_choice(self.network, tuple(NETWORKS), "network")

    def _initial_task(self, cohort: Cohort, seed: int) -> NetworkTask:
        """Return the task to train: the last one, or a new one."""
        if self.warm_start and hasattr(self, "net_"):
            return self.net_.module_
        self._pretrained_on = {}
        self.modalities_ = self._select_modalities(cohort)
        self._require_fmri(cohort)
        self.preprocessing_ = self._fit_preprocessing(
            cohort, self.modalities_, self.window, None
        )
        config: dict[str, Any] = {
            "n_regions": cohort.n_regions,
            "n_outputs": self._n_outputs(),
        }
        if self.dropout is not None:
            config["dropout"] = self.dropout
        generator = torch.Generator().manual_seed(seed)
        return self._make_task(NETWORKS[self.network](**config, generator=generator))

    def _make_backbone(self, config: Mapping[str, Any]) -> Rival:
        """Return the network that `config` describes, untrained."""
        return NETWORKS[self.network](**config)

    def _make_task(self, backbone: Rival) -> NetworkTask:
        """Return the task around the network."""
        return NetworkTask(backbone, self._kind)


class NetworkClassifier(ScanClassifierMixin, BaseNetwork):
    """Classify scans with a published supervised network on fMRI.

    The rivals of BrainSymphony, trained by the same loop on the same windows.

    Parameters
    ----------
    network : {"mean_mlp", "transformer", "brainnetcnn", "brain_network_transformer", \
"braingnn"}, default="mean_mlp"
        Popov's perceptron averaged over time [1]_, a transformer over time points,
        BrainNetCNN [2]_, the Brain Network Transformer [3]_ or BrainGNN [4]_, of the
        published sizes.
    constant_regions, window, t_r, standardize, n_windows
        See :class:`BrainSymphonyEmbedder`.
    dropout : float or None, default=None
        Rate, in [0, 1). None takes the published one.
    max_epochs : int, default=100
        Passes over the scans of `fit`.
    batch_size, micro_batch_size, lr, weight_decay, validation_fraction
        See :class:`BrainSymphonyEmbedder`.
    patience : int or None, default=20
        Epochs without a better validation loss before training stops.
    group_column, device, dtype, compile, random_state, n_jobs, checkpoint_dir, \
warm_start, verbose
        See :class:`BrainSymphonyEmbedder`.
    class_weight : "balanced", dict or None, default=None
        Weight of each class in the loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    backbone_ : Rival
        The torch network.

    References
    ----------
    .. [1] Popov et al. (2024). NeuroImage 303, 120909.
    .. [2] Kawahara et al. (2017). NeuroImage 146, 1038-1049.
    .. [3] Kan et al. (2022). Brain Network Transformer. NeurIPS.
    .. [4] Li et al. (2021). BrainGNN. Medical Image Analysis 74, 102233.

    Examples
    --------
    >>> from bsym_sklearn import NetworkClassifier
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=12, n_regions=5, n_timepoints=40)
    >>> clf = NetworkClassifier("mean_mlp", max_epochs=2, random_state=0)
    >>> clf.fit(cohort.data, cohort.target).predict_proba(cohort.data).shape
    (12, 2)
    """

    def __init__(
        self,
        network: str = "mean_mlp",
        *,
        constant_regions: str = "error",
        window: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        dropout: float | None = None,
        n_windows: int | None = None,
        max_epochs: int = 100,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        patience: int | None = 20,
        class_weight: str | dict[Any, float] | None = None,
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
            network,
            constant_regions=constant_regions,
            window=window,
            t_r=t_r,
            standardize=standardize,
            dropout=dropout,
            n_windows=n_windows,
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


class NetworkRegressor(ScanRegressorMixin, BaseNetwork):
    """Predict a number per scan with a published supervised network on fMRI.

    The target is standardised inside `fit`; the loss is the squared error. Parameters
    and attributes are those of :class:`NetworkClassifier`, without `class_weight`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    Examples
    --------
    >>> from bsym_sklearn import NetworkRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=12, n_regions=5, n_timepoints=40).data
    >>> age = NetworkRegressor("brainnetcnn", max_epochs=2, random_state=0)
    >>> age.fit(X, X["age"]).predict(X).shape
    (12,)
    """
