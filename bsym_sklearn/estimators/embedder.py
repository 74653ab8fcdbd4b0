"""BrainSymphony as a transformer: scans in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import TransformerMixin
from sklearn.callback import with_callbacks
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.backbone import BaseBrainSymphony
from bsym_sklearn.estimators.decoding import Decoder, check_masks
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.callbacks import EpochCallbacks
from bsym_sklearn.training.objectives import MaskedTask

NETWORK_COLUMNS = ("network", "network7", "network_label")  # of the table of regions


class BrainSymphonyEmbedder(TransformerMixin, BaseBrainSymphony):
    """Embed scans with a BrainSymphony model, pretrained on the scans of `fit`.

    `fit` hides parts of each scan and learns to predict them; no target is
    used. Drop it in where `nilearn.connectome.ConnectivityMeasure` would stand.

    Parameters
    ----------
    pretrained : str, Path or None, default=None
        Folder that `save_pretrained` wrote, or official weights.
        ``"brainsymphony-reference"`` are the released ones, for 450 regions, which
        the first `fit` downloads: see
        :func:`~bsym_sklearn.fetch_reference_checkpoint`. Sizes and
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
    temporal_tokens : {"states", "linear"}, default="states"
        What a time point brings to the temporal stream: the state of the whole brain,
        a wide non-linear layer over all regions (see
        :class:`~bsym_sklearn.model.functional.BrainStates`), or its values as
        published.
    temporal_kernel : int, default=1
        Neighbouring time points that a token of the temporal stream is made of, odd; 1
        as published.
    positions : {"learned", "gradient"}, default="learned"
        A free vector per region, or gradients of the mean connectivity in `fit`.
    perceiver_residual : {"region", "query", "reference"}, default="region"
        See :class:`~bsym_sklearn.model.perceiver.RegionPerceiver`.
    decoder : {"temporal", "residual", "reference"}, default="temporal"
        See :class:`~bsym_sklearn.model.perceiver.RegionPerceiver`. ``"residual"`` adds
        what the network says to a linear autoregression of the scans of `fit` and to
        their mean edges: the most exact for filling in what is missing.
    final_norm : {"layer", "reference"}, default="layer"
        See :class:`~bsym_sklearn.model.BrainSymphony`.
    edge_weights : {"first_hop", "multi_hop", "diffusion"}, default="first_hop"
        See :func:`~bsym_sklearn.model.connectome.hop_weights`.
    structural_positions : {"learned", "spectral", "reference"}, default="learned"
        See :class:`~bsym_sklearn.model.structural.StructuralStream`.
    signed_attention : {"continuous", "reference"}, default="continuous"
        See :class:`~bsym_sklearn.model.structural.SignedGraphAttention`.
    absent_edges : {"masked", "reference"}, default="masked"
        See :class:`~bsym_sklearn.model.structural.SignedGraphAttention`.
    edge_symmetry : {"symmetric", "reference"}, default="symmetric"
        See :class:`~bsym_sklearn.model.edges.EdgePredictor`.
    fusion : {"gate", "mean"}, default="gate"
        How much each modality counts in fused embeddings: by a learned gate per
        region and channel, or half and half.
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
    micro_batch_size : int, "auto" or None, default=None
        Scans of a step that are computed at once, at most; their gradients are added
        up, so that less memory is needed. None computes all. ``"auto"`` measures what
        a scan needs and takes what fits into the memory that is free. Draws of masks
        and dropout, hence the bits, depend on this size, and with ``"auto"`` on the
        machine.
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
    compile : bool, default=False
        Train with ``torch.compile``, which needs a C++ compiler and some minutes to
        begin with, and rounds differently. Predictions are not compiled.
    random_state : int, RandomState instance or None, default=None
        Seeds weights, order, crops, masks and dropout. The same integer gives
        the same bits in threads and processes, if each computes with the same
        number of torch threads (``torch.set_num_threads``; joblib's processes
        have fewer than the main one); no global state is touched.
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
        Hashes of the participants seen in `fit`, and in the fit that `pretrained`
        comes from.
    training_data_ : list of dict
        Counts of scans, participants, time points and what is missing, and
        repetition times: of the fits that `pretrained` comes from, and of this one.
    region_table_ : dict of str to list
        Columns of ``X.attrs["regions"]`` in `fit`, empty without.
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
        if not going_on:
            self._forget_fit()
        self.seed_ = self._draw_seed()
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        backbone = self._prepare(cohort, self.seed_)
        self._set_networks(cohort)
        task = self.net_.module_ if going_on else self._make_task(backbone)
        self._remember(cohort, going_on=going_on)
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

    def transform_regions(self, X: Any, stream: str = "fused") -> np.ndarray:
        """Return the embedding of each region of each scan.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        stream : {"fused", "spatial", "structural"}, default="fused"
            What the whole model makes of a region, or one of its streams.

        Returns
        -------
        ndarray of shape (n, n_regions, dim)
            Averaged over the windows of a scan. NaN for scans without the modality of
            the stream.

        Raises
        ------
        ValueError
            If the model has no such stream.
        """
        check_is_fitted(self)
        check_choice(stream, self._region_streams(), "stream")
        embed = partial(self._embed, stream=stream)
        return self._predict(X, embed).astype(self._numpy_float())

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
        check_choice(modality, self.modalities_, "modality")
        decoder = self._decoder(X)
        masks = check_masks(mask, decoder.shapes(modality))
        if modality == "fmri":
            return decoder.fmri(masks)
        return stack_connectomes(decoder.sc(masks), self.n_regions_)

    def scaled(
        self, X: Any, modality: str = "fmri"
    ) -> list[np.ndarray | None] | np.ndarray:
        """Return the scans as the model sees them: what `reconstruct` aims at.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        modality : {"fmri", "sc"}, default="fmri"
            Which one.

        Returns
        -------
        list of ndarray of shape (T_i, R), or ndarray of shape (n, R, R)
            Scaled, and at the model's repetition time. None or NaN for scans
            without the modality.

        Raises
        ------
        ValueError
            If the model does not have the modality.
        """
        check_is_fitted(self)
        check_choice(modality, self.modalities_, "modality")
        reader = self._decoder(X).dataset.reader
        if modality == "fmri":
            return [reader.fmri(i) for i in range(len(reader))]
        scans = [reader.sc(i) for i in range(len(reader))]
        return stack_connectomes(scans, self.n_regions_)

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

    def _region_streams(self) -> tuple[str, ...]:
        """Return the streams of the model that embed regions."""
        of = {"fmri": "spatial", "sc": "structural"}
        return ("fused", *(of[modality] for modality in self.modalities_))

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
            [
                regions[:, np.flatnonzero(members == name)].mean(1)
                for name in self.network_names_
            ],
            dim=1,
        )

    def _set_networks(self, cohort: Cohort) -> None:
        """Set the network of each region, if pooling needs it."""
        for name in ("networks_", "network_names_"):
            self.__dict__.pop(name, None)  # of an earlier fit
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


def stack_connectomes(scans: Sequence[np.ndarray | None], n_regions: int) -> np.ndarray:
    """Return connectomes as one array.

    Parameters
    ----------
    scans : sequence of (ndarray of shape (R, R) or None) of length n
        One per scan, None where there is none.
    n_regions : int
        Regions R.

    Returns
    -------
    ndarray of shape (n, R, R)
        NaN where there is none.

    Examples
    --------
    >>> stack_connectomes([None, np.eye(1)], 1)
    array([[[nan]],
           [[ 1.]]])
    """
    missing = np.full((n_regions, n_regions), np.nan, np.float32)
    return np.stack([missing if scan is None else scan for scan in scans])
