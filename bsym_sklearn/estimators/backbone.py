"""From constructor parameters, or pretrained weights, to a BrainSymphony module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.data.dynamics import fit_whitening
from bsym_sklearn.estimators.bundle_parts import (
    MODULE,
    refusing,
    restore_preprocessing,
    seen_by,
    take_prefix,
)
from bsym_sklearn.estimators.persistence import SavableMixin
from bsym_sklearn.exceptions import BrainSymphonyWarning, CheckpointError
from bsym_sklearn.model.brainsymphony import STREAMS, BrainSymphony
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.checkpoints import load_bundle, load_weights
from bsym_sklearn.training.hub import resolve_source
from bsym_sklearn.training.inference import Batch
from bsym_sklearn.training.limits import SizeLimit
from bsym_sklearn.training.objectives import MaskedTask
from bsym_sklearn.training.reference import load_reference_checkpoint
from bsym_sklearn.training.scans import Window

N_GRADIENTS = 10  # as published
PERCEIVER_HEADS = 2  # as published
POOLINGS = ("mean", "network", "regions")
REFERENCE_FOLDERS = ("functional_v1", "structural_v1")
BACKBONE = f"{MODULE}backbone."  # names of tensors in a saved estimator


class BaseBrainSymphony(SavableMixin):
    """Constructor and backbone of the three BrainSymphony estimators."""

    dropout: float

    def __init__(
        self,
        *,
        pretrained: str | Path | None = None,
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
        self.pretrained = pretrained
        self.modalities = modalities
        self.missing_modality = missing_modality
        self.constant_regions = constant_regions
        self.window = window
        self.t_r = t_r
        self.standardize = standardize
        self.sc_scaling = sc_scaling
        self.dim = dim
        self.depth = depth
        self.perceiver_depth = perceiver_depth
        self.n_heads = n_heads
        self.dropout = dropout
        self.spatial_tokens = spatial_tokens
        self.temporal_tokens = temporal_tokens
        self.temporal_kernel = temporal_kernel
        self.positions = positions
        self.perceiver_residual = perceiver_residual
        self.decoder = decoder
        self.final_norm = final_norm
        self.edge_weights = edge_weights
        self.structural_positions = structural_positions
        self.signed_attention = signed_attention
        self.absent_edges = absent_edges
        self.edge_symmetry = edge_symmetry
        self.fusion = fusion
        self.pooling = pooling
        self.n_windows = n_windows
        self.objective = objective
        self.mask_ratio = mask_ratio
        self.mask_span = mask_span
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
        """Check the parameters of the backbone too; the model checks its options."""
        super()._check_parameters()
        self._check_share("dropout")
        for name in ("dim", "depth", "n_heads", "mask_span", "temporal_kernel"):
            check_scalar(getattr(self, name), name, Integral, min_val=1)
        check_scalar(self.perceiver_depth, "perceiver_depth", Integral, min_val=0)
        check_scalar(
            self.mask_ratio,
            "mask_ratio",
            Real,
            min_val=0,
            max_val=1,
            include_boundaries="neither",
        )
        check_choice(self.objective, ("joint", "staged"), "objective")
        check_choice(self.pooling, POOLINGS, "pooling")

    def _prepare(self, cohort: Cohort, seed: int) -> BrainSymphony:
        """Fit the preprocessing and return a backbone on these scans, untrained."""
        if self.warm_start and hasattr(self, "net_"):
            return self.net_.module_.backbone
        self._pretrained_on = {}
        wanted = self._select_modalities(cohort)
        generator = torch.Generator().manual_seed(seed)
        if self.pretrained is not None:
            return self._load_pretrained(cohort, wanted, generator)
        n_gradients = min(N_GRADIENTS, max(cohort.n_regions - 2, 1))
        uses_gradients = "fmri" in wanted and self.positions == "gradient"
        self.modalities_ = wanted
        self._check_rows(cohort, wanted)
        self.preprocessing_ = self._fit_preprocessing(
            cohort, wanted, self.window, n_gradients if uses_gradients else None
        )
        backbone = BrainSymphony(
            cohort.n_regions,
            self.preprocessing_.window,
            modalities=wanted,
            dim=self.dim,
            depth=self.depth,
            perceiver_depth=self.perceiver_depth,
            n_heads=self.n_heads,
            perceiver_heads=min(self.n_heads, PERCEIVER_HEADS),
            structural_heads=self.n_heads,
            dropout=self.dropout,
            spatial_tokens=self.spatial_tokens,
            temporal_tokens=self.temporal_tokens,
            temporal_kernel=self.temporal_kernel,
            positions=self.positions,
            n_gradients=n_gradients,
            edge_weights=self.edge_weights,
            structural_positions=self.structural_positions,
            signed_attention=self.signed_attention,
            absent_edges=self.absent_edges,
            edge_symmetry=self.edge_symmetry,
            fusion=self.fusion,
            perceiver_residual=self.perceiver_residual,
            decoder=self.decoder,
            final_norm=self.final_norm,
            generator=generator,
        )
        if uses_gradients:
            backbone.set_coordinates(torch.from_numpy(self.preprocessing_.coordinates))
        if self.decoder == "residual":
            self._fit_expectations(backbone, cohort)
        return backbone

    def _fit_expectations(self, backbone: BrainSymphony, cohort: Cohort) -> None:
        """Fit what decoders add to: linear dynamics, and the mean of each edge."""
        reader = self._reader(cohort, None)
        rows = range(len(reader))
        if backbone.fmri is not None:
            scans = (reader.fmri(i) for i in rows)
            taps = fit_whitening(scan for scan in scans if scan is not None)
            backbone.set_expectations(whitening=torch.from_numpy(taps))
        if backbone.sc is not None:
            there = [i for i in rows if cohort.sc[i] is not None]
            total = sum(np.asarray(reader.sc(i), dtype=np.float64) for i in there)
            mean = torch.from_numpy(np.asarray(total) / len(there))
            backbone.set_expectations(edges=mean)

    def _make_backbone(self, config: Mapping[str, Any]) -> BrainSymphony:
        """Return the backbone that `config` describes, untrained."""
        return BrainSymphony(**config)

    def _prepare_sc(self) -> Any:
        """Return what to compute once per connectome."""
        return self.backbone_.prepare_sc

    def _load_pretrained(
        self, cohort: Cohort, wanted: tuple[str, ...], generator: torch.Generator
    ) -> BrainSymphony:
        """Return the backbone of a saved estimator or of the official layout.

        Its sizes come from its file; so does its preprocessing, which the
        official layout has none of.
        """
        source = cast("str | Path", self.pretrained)
        folder, given = resolve_source(source, verbose=self.verbose), Path(str(source))
        official = any((folder / name).is_dir() for name in REFERENCE_FOLDERS)
        if official:
            backbone = load_reference_checkpoint(folder)
        else:
            tensors, config = load_bundle(folder)
            with refusing(
                f"{type(self).__name__} cannot use {given.name!r} as `pretrained`",
                "Save it again with this version.",
            ):
                with SizeLimit(tensors.values()):
                    backbone = BrainSymphony(
                        **config["backbone"] | {"dropout": self.dropout},
                        generator=generator,
                    )
                fitted = restore_preprocessing(config, tensors, backbone)
            load_weights(backbone, take_prefix(tensors, BACKBONE), source=str(folder))
        self._check_pretrained(backbone, cohort, wanted, given)
        used = tuple(m for m in wanted if m in backbone.modalities)
        self.modalities_ = used
        self._check_rows(cohort, used)
        if not official:
            self._pretrained_on = seen_by(config)
            self.preprocessing_ = replace(fitted, modalities=used)
            self._warn_of_unknown_t_r(fitted.t_r, given)
            return backbone
        gradients = "fmri" in used and backbone.config["positions"] == "gradient"
        self.preprocessing_ = self._fit_preprocessing(
            cohort,
            used,
            backbone.window,
            backbone.config["n_gradients"] if gradients else None,
        )
        if gradients:
            backbone.set_coordinates(torch.from_numpy(self.preprocessing_.coordinates))
        return backbone

    def _warn_of_unknown_t_r(self, pretrained: float | None, folder: Path) -> None:
        """Warn if only one of the scans and the weights has a repetition time."""
        if "fmri" in self.modalities_ and (pretrained is None) != (self.t_r is None):
            warnings.warn(
                f"{type(self).__name__} cannot resample the scans to those that "
                f"{folder.name!r} was trained on. Got t_r={self.t_r!r} here and "
                f"{pretrained} there, in seconds. Pass `t_r` in both fits, or make "
                "sure that they are the same.",
                BrainSymphonyWarning,
                stacklevel=6,
            )

    def _check_pretrained(
        self,
        backbone: BrainSymphony,
        cohort: Cohort,
        wanted: tuple[str, ...],
        folder: Path,
    ) -> None:
        """Compare the pretrained model with the scans."""
        who = type(self).__name__
        if backbone.n_regions != cohort.n_regions:
            raise CheckpointError(
                f"{who} needs pretrained weights for {cohort.n_regions} regions. Got "
                f"{backbone.n_regions} in {folder.name!r}. Use scans in the atlas of "
                "the weights."
            )
        if not set(wanted) & set(backbone.modalities):
            raise CheckpointError(
                f"{who} needs pretrained weights for {list(wanted)}. Got "
                f"{list(backbone.modalities)} in {folder.name!r}. Use another file."
            )

    def _masked_task(self, backbone: BrainSymphony, seed: int) -> MaskedTask:
        """Return the self-supervised task on `backbone`."""
        if self.objective == "staged":
            n_stages = len(MaskedTask.stage_names(backbone))
            epochs = self._pretraining_epochs()
            if 0 < epochs < n_stages:
                raise ValueError(
                    f"objective='staged' needs an epoch for each of {n_stages} stages. "
                    f"Got {epochs}. Train for longer or use objective='joint'."
                )
        return MaskedTask(
            backbone,
            mask_ratio=self.mask_ratio,
            span=self.mask_span,
            staged=self.objective == "staged",
            generator=torch.Generator().manual_seed(seed),
        )

    def _pretraining_epochs(self) -> int:
        """Return the epochs of self-supervision in a fit."""
        return self.max_epochs

    def attention(
        self, X: Any, stream: str = "spatial", average: bool = True
    ) -> np.ndarray | list[np.ndarray | None]:
        """Return who attends to whom in one stream.

        Parameters
        ----------
        X : cohort of n scans
            See :func:`~bsym_sklearn.data.check_cohort`.
        stream : {"spatial", "temporal", "perceiver", "structural"}, \
                default="spatial"
            Which part of the model. Maps are (n_regions, n_regions), but for
            ``"temporal"``, (window, window).
        average : bool, default=True
            Average over windows, blocks and heads, or keep them.

        Returns
        -------
        ndarray of shape (n, N, N) or list
            Rows are queries, columns what they attend to. Rows sum to one, but
            for the signed ``"structural"`` maps. NaN for scans without the
            modality. With ``average=False`` a list with one array of shape
            (n_windows, n_blocks, n_heads, N, N) per scan, or None.

        Raises
        ------
        ValueError
            If the model has no such stream.

        Examples
        --------
        >>> from bsym_sklearn import BrainSymphonyEmbedder
        >>> from bsym_sklearn.data import make_cohort
        >>> X = make_cohort(6, 5, 30).data
        >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
        >>> model.fit(X).attention(X, "structural").shape
        (6, 5, 5)
        """
        check_is_fitted(self)
        check_choice(stream, STREAMS, "stream")
        modality = _modality_of(stream)
        if modality not in self.modalities_:
            raise ValueError(
                f"The {stream!r} stream needs a model of {modality!r}. Got one fitted "
                f"on {list(self.modalities_)}. Choose another stream."
            )
        cohort = self._check_scans(X, reset=False)
        maps: list[list[np.ndarray]] = [[] for _ in range(len(cohort))]
        apply = partial(_attention_of_batch, self.backbone_, stream)
        for windows, output in self._loop().iterate(
            self.net_.module_, self._dataset(cohort), apply
        ):
            if output is not None:
                for (row, _), one in zip(windows, output.cpu().numpy(), strict=True):
                    maps[row].append(one)
        present = getattr(cohort, modality)
        kept = [
            None if cell is None else np.stack(scan)
            for cell, scan in zip(present, maps, strict=True)
        ]
        if not average:
            return kept
        size = self.preprocessing_.window if stream == "temporal" else self.n_regions_
        result = np.full((len(kept), size, size), np.nan)
        for i, scan in enumerate(kept):
            if scan is not None:
                result[i] = scan.mean(axis=(0, 1, 2), dtype=np.float64)
        return result

    def region_positions(self) -> np.ndarray:
        """Return what the model has learned of each region, whatever the scan.

        The vectors that the spatial stream adds to the regions' tokens, and the
        Perceiver to its latents.

        Returns
        -------
        ndarray of shape (n_regions, dim)
            Or (n_scans, n_regions, dim), with gradients of each scan.

        Raises
        ------
        ValueError
            If the model does not read fMRI.

        Examples
        --------
        >>> from bsym_sklearn import BrainSymphonyEmbedder
        >>> from bsym_sklearn.data import make_cohort
        >>> X = make_cohort(6, 5, 30).data
        >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
        >>> model.fit(X).region_positions().shape
        (5, 8)
        """
        check_is_fitted(self)
        encoder = self.backbone_.fmri
        if encoder is None:
            raise ValueError(
                f"region_positions needs a model of 'fmri'. Got one of "
                f"{list(self.modalities_)}. Fit it on scans that have fMRI."
            )
        return encoder.spatial.positions.vectors().detach().cpu().numpy().copy()

    def _embed(self, batch: Batch, stream: str = "fused") -> Tensor:
        """Return region embeddings (B, R, D) of one batch, NaN where there is none."""
        if stream == "fused":
            return self.backbone_(**batch, decode=False).fused
        modality = _modality_of(stream)
        if modality not in batch:
            other = batch["fmri" if modality == "sc" else "sc"]
            return other.new_full(
                (len(other), self.n_regions_, self.backbone_.dim), torch.nan
            )
        embedded = getattr(self.backbone_(**batch, only=(stream,)), stream)
        present = batch.get(f"has_{modality}")
        if present is None:
            return embedded
        return embedded.masked_fill(~present[:, None, None], torch.nan)


def _modality_of(stream: str) -> str:
    """Return the modality that a stream reads."""
    return "sc" if stream == "structural" else "fmri"


def _attention_of_batch(
    backbone: BrainSymphony, stream: str, batch: Batch, _: list[Window]
) -> Tensor | None:
    """Return maps (B, L, H, N, N), or None if no scan here has the modality."""
    if _modality_of(stream) not in batch:
        return None
    inputs = {k: v for k, v in batch.items() if not k.startswith("has_")}
    return backbone.attention_maps(stream, **inputs)
