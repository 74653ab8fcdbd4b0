"""BrainSymphony as scikit-learn estimators: embed, classify, regress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.callback import with_callbacks
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.decoding import Decoder, check_masks
from bsym_sklearn.estimators.persistence import SavableMixin
from bsym_sklearn.estimators.supervised import BaseSupervised
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.training.callbacks import EpochCallbacks
from bsym_sklearn.training.objectives import MaskedTask

NETWORK_COLUMNS = ("network", "network7")  # of the table of regions


class BrainSymphonyEmbedder(TransformerMixin, SavableMixin):
    """Embed scans with a BrainSymphony model, pretrained on the scans of `fit`.

    `fit` hides parts of each scan and learns to predict them; no target is
    used. Drop it in where `nilearn.connectome.ConnectivityMeasure` would stand.

    Parameters
    ----------
    pretrained : str, Path or None, default=None
        Folder that `save_pretrained` wrote, or official weights. Sizes and
        preprocessing come from it; `fit` continues from its weights, or with
        ``max_epochs=0`` uses them as they are.
    modalities : {"auto", "fmri", "sc", "both"}, default="auto"
        What the model reads; ``"auto"`` takes what `fit` finds.
    missing_modality : {"raise", "allow"}, default="raise"
        What to do when a modality of `fit` is altogether absent later. Single
        scans may always lack one.
    constant_regions : {"error", "mask"}, default="error"
        Refuse regions that never change in a scan, or hide them from the model.
    window : int or None, default=None
        Time points that the model sees at once. None takes the longest scan of
        `fit`, at most 200. Longer scans are cropped at random in training and
        covered by evenly spaced windows later.
    t_r : float, str or None, default=None
        Repetition time in seconds, or the column that holds it. Scans are
        resampled to the median of `fit`.
    standardize : {"zscore", "robust", "cohort_zscore", "cohort_robust"} or None, \
            default="zscore"
        Scaling of each region's series, by the scan's own statistics or those
        of the scans of `fit`.
    sc_scaling : {"log", "linear"} or None, default="log"
        Scaling of the connectomes; see
        :class:`~bsym_sklearn.data.ConnectomeScaler`.
    dim : int, default=64
        Channels of every embedding (published: 128), a multiple of `n_heads`.
    depth : int, default=2
        Blocks in each transformer stream (published: 6).
    perceiver_depth : int, default=1
        Blocks between the latents.
    n_heads : int, default=4
        Attention heads of every stream; the Perceiver has at most 2, as published.
    dropout : float, default=0.1
        Rate, in [0, 1).
    spatial_tokens : {"connectivity", "both", "series"}, default="connectivity"
        What a region brings to the spatial stream: its correlations with all
        regions in the window, its series as published, or both.
    positions : {"learned", "gradient"}, default="learned"
        A free vector per region, or gradients of the mean connectivity in `fit`.
    perceiver_residual : {"region", "query", "reference"}, default="region"
        See :class:`~bsym_sklearn.model.perceiver.RegionPerceiver`.
    decoder : {"temporal", "reference"}, default="temporal"
        See :class:`~bsym_sklearn.model.perceiver.RegionPerceiver`.
    final_norm : {"layer", "reference"}, default="layer"
        See :class:`~bsym_sklearn.model.BrainSymphony`.
    edge_weights : {"first_hop", "multi_hop", "diffusion"}, default="first_hop"
        See :func:`~bsym_sklearn.model.structural.hop_weights`.
    structural_positions : {"learned", "spectral", "reference"}, default="learned"
        See :class:`~bsym_sklearn.model.structural.StructuralStream`.
    signed_attention : {"continuous", "reference"}, default="continuous"
        See :class:`~bsym_sklearn.model.structural.SignedGraphAttention`.
    absent_edges : {"masked", "reference"}, default="masked"
        See :class:`~bsym_sklearn.model.structural.SignedGraphAttention`.
    edge_symmetry : {"symmetric", "reference"}, default="symmetric"
        See :class:`~bsym_sklearn.model.structural.EdgePredictor`.
    pooling : {"regions", "network", "mean"}, default="regions"
        Features of a scan: all region embeddings side by side; their averages
        by network (column ``network`` of ``X.attrs["regions"]``); or their
        average.
    n_windows : int or None, default=None
        Evenly spaced windows per scan outside of training. None takes the
        fewest that cover the scan.
    objective : {"joint", "staged"}, default="joint"
        Train all self-supervised objectives at once, or one after the other.
    mask_ratio : float, default=0.15
        Share of regions, time points and points to hide, each, in (0, 1).
    mask_span : int, default=1
        Length of hidden runs, in time points.
    max_epochs : int, default=50
        Passes over the scans of `fit`. 0 keeps the initial weights.
    batch_size : int, default=16
        Scans per step.
    lr : float, default=1e-3
        AdamW's peak learning rate: warmed up over a tenth of the steps, then
        decayed along a cosine.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay of the weight matrices.
    validation_fraction : float, default=0.1
        Share of the participants of `fit` held out to choose the epoch, in
        [0, 1). 0 trains on all, for `max_epochs`.
    patience : int or None, default=10
        Epochs without a better validation loss before training stops.
    group_column : str, default="participant_id"
        Column that names the participant; validation is split by it where it
        is there, and by scan otherwise.
    device : str, default="auto"
        Torch device; ``"auto"`` takes CUDA where there is one.
    dtype : {"auto", "float32", "float64", "bfloat16"}, default="auto"
        Precision; ``"bfloat16"`` is mixed, and what ``"auto"`` takes on CUDA.
    random_state : int, RandomState instance or None, default=None
        Seeds weights, order, crops, masks and dropout. The same integer gives
        the same bits in threads and processes; no global state is touched.
    n_jobs : int or None, default=None
        Processes that read scans from files; None reads in this one.
    checkpoint_dir : str, Path or None, default=None
        Folder in which each fit keeps its state, so that a killed fit goes on
        where it was, to the same bits.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last one.
    verbose : int, default=0
        With 1, show a progress bar.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        Trained net; ``backbone_`` is the torch model in it.
    history_ : DataFrame of shape (n_epochs, ...)
        Losses and seconds per epoch.
    n_regions_, n_features_in_ : int
        Regions R.
    regions_ : tuple of str
        Their names: column ``label`` of ``X.attrs["regions"]``, or numbers.
    modalities_ : tuple of str
        Modalities in use.
    preprocessing_ : Preprocessing
        Fitted window, repetition time and scalers.
    participants_ : list of str
        SHA-256 hashes of the participants seen in `fit`.
    seed_ : int
        Drawn from `random_state`.

    See Also
    --------
    BrainSymphonyClassifier, BrainSymphonyRegressor : With a target.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=8, n_regions=5, n_timepoints=40).data
    >>> embedder = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=2, random_state=0)
    >>> embedder.fit_transform(X).shape
    (8, 40)
    """

    seed_: int
    participants_: list[str]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn to predict what is hidden in the scans of `X`.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : None
            Ignored.

        Returns
        -------
        self : BrainSymphonyEmbedder

        Raises
        ------
        BrainDataError
            If the scans cannot be used.
        ValueError
            If a parameter is out of range.
        CheckpointError
            If `pretrained` cannot be used.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        cohort = self._check_scans(X, reset=not going_on)
        self.seed_ = self._draw_seed()
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        backbone = self._prepare(cohort, self.seed_)
        self._set_networks(cohort)
        task = self.net_.module_ if going_on else self._make_task(backbone)
        seen = set(self.participants_) if going_on else set()
        self.participants_ = sorted(seen | set(self._participants(cohort)))
        self.net_ = self._train(
            task,
            cohort,
            seed=self.seed_,
            max_epochs=self.max_epochs,
            description="pretraining",
            callbacks=[EpochCallbacks(self, context, X, y)],
        )
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return one row of features per scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n, n_features)
            n_features is R * `dim`, n_networks * `dim` or `dim`, by `pooling`.
            Of the type of `X` where it is one array of floats, else of the model.

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or lack a modality of `fit`.
        """
        check_is_fitted(self)
        pooled = self._predict(X, lambda batch: self._pool(self._embed(batch)))
        as_given = getattr(X, "dtype", None) in (np.float32, np.float64)
        return pooled.astype(X.dtype if as_given else self._numpy_float())

    def transform_regions(self, X: Any) -> np.ndarray:
        """Return the embedding of each region of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n, n_regions, dim)
            Averaged over the windows of a scan.
        """
        return self._predict(X, self._embed).astype(self._numpy_float())

    def reconstruct(
        self, X: Any, *, modality: str = "fmri", mask: Sequence[Any] | None = None
    ) -> list[np.ndarray | None] | np.ndarray:
        """Return what the decoders say about the scans.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        modality : {"fmri", "sc"}, default="fmri"
            What to decode, from that modality alone.
        mask : sequence of bool ndarray or None, default=None
            One per scan, of shape (T_i, R) or (R, R) and symmetric: True where
            a value is hidden from the model. None hides nothing.

        Returns
        -------
        list of ndarray of shape (T_i, R), or ndarray of shape (n, R, R)
            In the model's units (scaled, at its repetition time); averaged
            where windows overlap. None or NaN for scans without the modality.

        Raises
        ------
        ValueError
            If the model does not have the modality, or a mask does not fit.
        """
        check_is_fitted(self)
        if modality not in self.modalities_:
            raise ValueError(
                f"`modality` must be one of {self.modalities_}. Got {modality!r}."
            )
        decoder = self._decoder(X)
        masks = check_masks(mask, decoder.shapes(modality))
        if modality == "fmri":
            return decoder.fmri(masks)
        missing = np.full((self.n_regions_, self.n_regions_), np.nan)
        return np.stack([missing if d is None else d for d in decoder.sc(masks)])

    def score(self, X: Any, y: Any = None) -> float:
        """Return how well hidden parts of the scans are predicted.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : None
            Ignored.

        Returns
        -------
        float
            R2 of hidden regions of the series and of hidden edges, pooled over
            the scans and averaged over the modalities present; at most 1.
        """
        decoder = self._decoder(X)
        present = decoder.dataset.reader.cohort.modalities
        scores = [
            decoder.held_out_r2(modality, self.mask_ratio)
            for modality in self.modalities_
            if modality in present
        ]
        return float(np.mean(scores))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features that `transform` makes.

        Parameters
        ----------
        input_features : None
            Ignored; the names come from the regions or networks.

        Returns
        -------
        ndarray of str objects of shape (n_features,)
            ``"<region>_<channel>"``, ``"<network>_<channel>"`` or
            ``"brainsymphonyembedder<channel>"``.
        """
        check_is_fitted(self)
        names = self._feature_names()
        return np.asarray(names, dtype=object)

    def _decoder(self, X: Any) -> Decoder:
        """Return a decoder of the scans of `X`."""
        check_is_fitted(self)
        cohort = self._check_scans(X, reset=False)
        return Decoder(
            self.net_.module_, self.backbone_, self._dataset(cohort), self._loop()
        )

    def _make_task(self, backbone: BrainSymphony) -> MaskedTask:
        """Return the self-supervised task on `backbone`."""
        return self._masked_task(backbone, self.seed_)

    def _numpy_float(self) -> type[np.floating]:
        """Return the type of what comes out."""
        return np.float64 if self.dtype == "float64" else np.float32

    def _feature_names(self) -> list[str]:
        """Return the names of the features."""
        channels = range(self.backbone_.dim)
        if self.pooling == "mean":
            prefix = type(self).__name__.lower()
            return [f"{prefix}{d}" for d in channels]
        owners = self.network_names_ if self.pooling == "network" else self.regions_
        return [f"{owner}_{d}" for owner in owners for d in channels]

    def _pool(self, regions: Tensor) -> Tensor:
        """Turn region embeddings (B, R, D) into features (B, n_features)."""
        if self.pooling == "mean":
            return regions.mean(1)
        if self.pooling == "regions":
            return regions.flatten(1)
        members = np.array(self.networks_)
        return torch.cat(
            [regions[:, members == name].mean(1) for name in self.network_names_], dim=1
        )

    def _set_networks(self, cohort: Cohort) -> None:
        """Set the network of each region, if pooling needs it."""
        if self.pooling != "network":
            return
        table = pd.DataFrame() if cohort.regions is None else cohort.regions
        column = next((c for c in NETWORK_COLUMNS if c in table), None)
        if column is None:
            raise BrainDataError(
                f"{type(self).__name__} needs a column 'network' in "
                f"X.attrs['regions'] for pooling='network'. Got {list(table)}. Add it "
                "or use pooling='regions'."
            )
        self.networks_ = tuple(table[column].astype(str))
        self.network_names_ = tuple(sorted(set(self.networks_)))


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
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        group_column: str = "participant_id",
        device: str = "auto",
        dtype: str = "auto",
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
            lr=lr,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            patience=patience,
            group_column=group_column,
            device=device,
            dtype=dtype,
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


class BrainSymphonyRegressor(RegressorMixin, BaseSupervised):
    """Predict a continuous target with a BrainSymphony model.

    The target is standardised inside `fit`; the loss is the squared error.
    Parameters and attributes that are not listed are those of
    :class:`BrainSymphonyEmbedder`.

    Parameters
    ----------
    pretrained, strategy, pretrain_epochs, layer_decay, pooling, max_epochs
        See :class:`BrainSymphonyClassifier`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=12, n_regions=5, n_timepoints=40).data
    >>> age = BrainSymphonyRegressor(dim=8, depth=1, max_epochs=2, random_state=0)
    >>> age.fit(X, X["age"]).predict(X).shape
    (12,)
    """

    _kind = "regression"
    y_mean_: float
    y_scale_: float

    @with_callbacks
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on scans with a target.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Targets, in any unit.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyRegressor

        Raises
        ------
        BrainDataError
            If the scans cannot be used, or `y` has another length.
        ValueError
            If a parameter is out of range.
        """
        self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        cohort = self._check_scans(X, reset=not going_on)
        y = self._check_y(y, len(cohort)).astype(np.float64)
        if not going_on:
            self._standardize_target(y)
        weights = self._sample_weights(sample_weight, len(y))
        return self._fit(
            X,
            y,
            cohort,
            targets=self._encode(y),
            weights=self._as_weights(weights),
            strata=None,
        )

    def partial_fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more epoch on these scans, at the constant rate `lr`.

        Scaling, of the target too, and sizes are fixed by the first call.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        y : array-like of shape (n,)
            Targets.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weight of each scan in the loss.

        Returns
        -------
        self : BrainSymphonyRegressor
        """
        self._check_parameters()
        first = not hasattr(self, "net_")
        cohort = self._check_scans(X, reset=first)
        y = self._check_y(y, len(cohort)).astype(np.float64)
        if first:
            self._standardize_target(y)
        weights = self._as_weights(self._sample_weights(sample_weight, len(y)))
        return self._partial_fit(cohort, self._encode(y), weights)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted target of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.

        Returns
        -------
        ndarray of shape (n,)
            In the unit of the target; averaged over the windows of a scan.
        """
        standardized = self._predict(X, lambda batch: self.net_.module_(**batch))
        return standardized[:, 0] * self.y_scale_ + self.y_mean_

    def _n_outputs(self) -> int:
        return 1

    def _standardize_target(self, y: np.ndarray) -> None:
        """Learn the location and scale of the target."""
        self.y_mean_ = float(y.mean())
        self.y_scale_ = float(y.std()) or 1.0

    def _encode(self, y: np.ndarray) -> Tensor:
        """Return the standardised target."""
        return torch.from_numpy((y - self.y_mean_) / self.y_scale_).to(self._float())
