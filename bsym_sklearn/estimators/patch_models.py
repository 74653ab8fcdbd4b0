"""What the estimators of BrainLM and of Brain-JEPA share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.callback import with_callbacks
from sklearn.utils import Tags, check_scalar
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.bundle_parts import (
    MODULE,
    refusing,
    restore_preprocessing,
    seen_by,
    take_prefix,
)
from bsym_sklearn.estimators.persistence import SavableMixin
from bsym_sklearn.estimators.targets import ScanClassifierMixin, ScanRegressorMixin
from bsym_sklearn.exceptions import (
    BrainSymphonyWarning,
    CheckpointError,
)
from bsym_sklearn.model.block_masking import MASKINGS
from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.model.collapse import between_scan_spread, effective_rank
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.heads import TaskHead
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.model.patches import PatchBackbone
from bsym_sklearn.training.callbacks import EpochCallbacks, UpdateTarget
from bsym_sklearn.training.checkpoints import load_bundle, load_weights
from bsym_sklearn.training.hub import resolve_source
from bsym_sklearn.training.inference import Batch
from bsym_sklearn.training.limits import SizeLimit
from bsym_sklearn.training.net import Callback
from bsym_sklearn.training.patch_tasks import (
    PatchPrediction,
    PatchPretraining,
)

POOLINGS = ("mean", "regions")
COLLAPSED_SPREAD = 1e-2  # of embeddings between scans; directions at random have 1
COLLAPSED_RANK = 1.5  # effective, of embeddings of at least FEWEST_TO_RANK scans
FEWEST_TO_RANK = 8


class BasePatchModel(SavableMixin):
    """Constructor and backbone of all estimators in this file."""

    # What all estimators have, fixed here: these models read fMRI alone.
    modalities = "fmri"
    missing_modality = "raise"
    sc_scaling = None
    dropout = None
    _model: ClassVar[type[PatchBackbone]]
    _patch_size: ClassVar[int]  # as published

    def __init__(
        self,
        size: str = "toy",
        *,
        pretrained: str | Path | None = None,
        masking: str | None = None,
        pooling: str = "mean",
        constant_regions: str = "error",
        window: int | None = None,
        patch_size: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        n_windows: int | None = None,
        max_epochs: int = 50,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
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
        self.size = size
        self.pretrained = pretrained
        self.masking = masking
        self.pooling = pooling
        self.constant_regions = constant_regions
        self.window = window
        self.patch_size = patch_size
        self.t_r = t_r
        self.standardize = standardize
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
        """Check the sizes too."""
        super()._check_parameters()
        check_choice(self.size, tuple(self._model.PRESETS), "size")
        if self.masking is not None:
            check_choice(self.masking, MASKINGS, "masking")
        check_choice(self.pooling, POOLINGS, "pooling")
        if self.patch_size is not None:
            check_scalar(self.patch_size, "patch_size", Integral, min_val=1)

    def _prepare(self, cohort: Cohort, seed: int) -> PatchBackbone:
        """Fit the preprocessing and return a backbone on these scans."""
        self._pretrained_on = {}
        self.modalities_ = self._select_modalities(cohort)
        self._require_fmri(cohort)
        if self.pretrained is not None:
            source = resolve_source(self.pretrained, verbose=self.verbose)
            if source.is_file():
                return self._start_from_published(source, cohort)
            return self._load_pretrained(source, cohort)
        # Single time points (a table) have no connectivity, and so no gradients.
        n_coordinates = None if cohort.is_table else self._n_coordinates(cohort)
        self.preprocessing_ = self._fit_preprocessing(
            cohort, self.modalities_, self.window, n_coordinates
        )
        size = self._patch_size if self.patch_size is None else self.patch_size
        size = min(size, self.preprocessing_.window)
        window = self.preprocessing_.window // size * size
        self.preprocessing_.window = window  # whole patches
        backbone = self._make_backbone(
            self._config(cohort, window, size)
            | self._model.preset(self.size)
            | ({} if self.masking is None else self._masking_config(self.masking)),
            torch.Generator().manual_seed(seed),
        )
        coordinates = self._coordinates(cohort)
        if coordinates is not None:
            backbone.set_coordinates(coordinates)
        return backbone

    def _config(self, cohort: Cohort, window: int, patch_size: int) -> dict[str, Any]:
        """Return the sizes that depend on the scans."""
        return {
            "n_regions": cohort.n_regions,
            "window": window,
            "patch_size": patch_size,
        }

    def _masking_config(self, masking: str) -> dict[str, Any]:
        """Return how the model is told to hide tokens."""
        raise NotImplementedError(f"{type(self).__name__}._masking_config")

    def _n_coordinates(self, cohort: Cohort) -> int | None:
        """Return how many connectivity gradients place the regions, None for none."""
        raise NotImplementedError(f"{type(self).__name__}._n_coordinates")

    def _coordinates(self, cohort: Cohort) -> Tensor | None:
        """Return the places of the regions, None if there are none."""
        coordinates = self.preprocessing_.coordinates
        return None if coordinates is None else torch.from_numpy(coordinates).float()

    def _make_backbone(
        self, config: Mapping[str, Any], generator: torch.Generator | None = None
    ) -> PatchBackbone:
        """Return the backbone that `config` describes, untrained."""
        return self._model(**config, generator=generator)  # type: ignore[call-arg]

    def _start_from_published(self, path: Path, cohort: Cohort) -> PatchBackbone:
        """Return the backbone of a published file; all else comes from the scans."""
        n_coordinates = None if cohort.is_table else self._n_coordinates(cohort)
        self.preprocessing_ = self._fit_preprocessing(
            cohort, self.modalities_, self.window, n_coordinates
        )
        with refusing(
            f"{type(self).__name__} cannot use {path.name!r} as `pretrained`",
            "Use scans in the atlas of the weights.",
        ):
            backbone = self._load_published(path, cohort)
        asked = {"window": self.window, "patch_size": self.patch_size}
        if self.window is not None:  # whole patches of it are used
            asked["window"] = self.window // backbone.patch_size * backbone.patch_size
        for name, value in asked.items():
            if value not in (None, getattr(backbone, name)):
                raise ValueError(
                    f"{type(self).__name__} takes `{name}` from '{path.name}', which "
                    f"has {getattr(backbone, name)}. Got {getattr(self, name)}. Leave "
                    "it out."
                )
        self.preprocessing_.window = backbone.window
        return backbone

    def _load_published(self, path: Path, cohort: Cohort) -> PatchBackbone:
        """Read weights that others have published."""
        raise NotImplementedError(f"{type(self).__name__}._load_published")

    def _load_pretrained(self, folder: Path, cohort: Cohort) -> PatchBackbone:
        """Return the backbone of a saved estimator, and use its preprocessing."""
        name = Path(str(self.pretrained)).name
        tensors, config = load_bundle(folder)
        with refusing(
            f"{type(self).__name__} cannot use {name!r} as `pretrained`",
            f"Pass what an embedder of {self._model.__name__} saved.",
        ):
            with SizeLimit(tensors.values()):
                backbone = self._make_backbone(config["backbone"])
            self.preprocessing_ = restore_preprocessing(config, tensors, backbone)
        if backbone.n_regions != cohort.n_regions:
            raise CheckpointError(
                f"{type(self).__name__} needs pretrained weights for "
                f"{cohort.n_regions} regions. Got {backbone.n_regions} in "
                f"{name!r}. Use scans in the atlas of the weights."
            )
        weights = take_prefix(tensors, f"{MODULE}backbone.")
        load_weights(backbone, weights, source=str(folder))
        self._pretrained_on = seen_by(config)
        return backbone

    def _pretrain(
        self,
        task: PatchPretraining,
        cohort: Cohort,
        seed: int,
        max_epochs: int,
        callbacks: list[Callback],
    ) -> Any:
        """Train on what is hidden, and return the net."""
        if isinstance(task.backbone, BrainJEPA):
            callbacks = [UpdateTarget(), *callbacks]
        net = self._train(
            task,
            cohort,
            seed=seed,
            max_epochs=max_epochs,
            description="pretraining",
            callbacks=callbacks,
        )
        if isinstance(task.backbone, BrainJEPA) and max_epochs:
            task.backbone.adopt_target()
        return net


class BasePatchEmbedder(TransformerMixin, BasePatchModel):
    """Pretrain on scans, and embed them."""

    seed_: int
    effective_rank_: float
    between_scan_spread_: float

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
            See :func:`~bsym_sklearn.data.check_cohort`; each with fMRI.
        y : None
            Ignored.

        Returns
        -------
        self : the same estimator

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
        if going_on:
            task = self.net_.module_
        else:
            task = self._make_task(self._prepare(cohort, self.seed_))
        self._remember(cohort, going_on=going_on)
        callbacks = [EpochCallbacks(self, context, X, y)]
        self.net_ = self._pretrain(task, cohort, self.seed_, self.max_epochs, callbacks)
        self._look_for_collapse(X)
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
            Averaged over the windows of a scan; n_features is D, or R * D with
            ``pooling="regions"``.
        """
        check_is_fitted(self)
        regions = self.pooling == "regions"
        pooled = self._predict(
            X,
            lambda b: self._embed(b).flatten(1) if regions else self._embed(b).mean(1),
        )
        as_given = getattr(X, "dtype", None) in (np.float32, np.float64)
        of_model = np.float64 if self.dtype == "float64" else np.float32
        return pooled.astype(X.dtype if as_given else of_model)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features that `transform` makes.

        Parameters
        ----------
        input_features : None
            Ignored; the names come from the regions.

        Returns
        -------
        ndarray of str objects of shape (n_features,)
        """
        check_is_fitted(self)
        channels = range(self.backbone_.dim)
        if self.pooling == "mean":
            prefix = type(self).__name__.lower()
            return np.asarray([f"{prefix}{d}" for d in channels], dtype=object)
        names = [f"{region}_{d}" for region in self.regions_ for d in channels]
        return np.asarray(names, dtype=object)

    def _make_task(self, backbone: PatchBackbone) -> PatchPretraining:
        """Return the self-supervised task on `backbone`."""
        return PatchPretraining(backbone)

    def _embed(self, batch: Batch) -> Tensor:
        """Return region embeddings (B, R, D) of a batch."""
        padding = batch.get("padding")
        inputs = FMRIInput(batch["fmri"], batch.get("fmri_mask"), padding)
        return self.backbone_(inputs.series, padding)

    def _look_for_collapse(self, X: Any) -> None:
        """Measure how much the embeddings of the scans of `fit` differ."""
        pooled = self._predict(X, lambda batch: self._embed(batch).mean(1))
        embeddings = torch.from_numpy(pooled)
        n_scans, rank = len(embeddings), effective_rank(embeddings)
        spread = between_scan_spread(embeddings)
        self.effective_rank_, self.between_scan_spread_ = rank, spread
        alike = n_scans > 1 and spread < COLLAPSED_SPREAD
        if alike or (n_scans >= FEWEST_TO_RANK and rank < COLLAPSED_RANK):
            what = "nearly the same embedding" if alike else "embeddings on one line"
            warnings.warn(
                f"{type(self).__name__} gives all scans {what} (spread {spread:.4f}, "
                f"effective rank {rank:.1f}): training has collapsed, or not begun. "
                "Lower `lr`, train on more scans, or use pooling='regions'.",
                BrainSymphonyWarning,
                stacklevel=3,
            )


class BasePatchSupervised(BasePatchModel):
    """Constructor and task of the models with a target."""

    _kind: str  # of loss, set by a mixin of `targets`

    def __init__(
        self,
        size: str = "toy",
        *,
        pretrained: str | Path | None = None,
        strategy: str = "finetune",
        pretrain_epochs: int = 0,
        masking: str | None = None,
        pooling: str = "mean",
        constant_regions: str = "error",
        window: int | None = None,
        patch_size: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        n_windows: int | None = None,
        max_epochs: int = 50,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
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
            size,
            pretrained=pretrained,
            masking=masking,
            pooling=pooling,
            constant_regions=constant_regions,
            window=window,
            patch_size=patch_size,
            t_r=t_r,
            standardize=standardize,
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
        self.strategy = strategy
        self.pretrain_epochs = pretrain_epochs

    def _check_parameters(self) -> None:
        """Check the parameters of fine-tuning too."""
        super()._check_parameters()
        check_choice(self.strategy, ("finetune", "probe"), "strategy")
        check_scalar(self.pretrain_epochs, "pretrain_epochs", Integral, min_val=0)
        check_scalar(self.max_epochs, "max_epochs", Integral, min_val=1)

    def _initial_task(self, cohort: Cohort, seed: int) -> PatchPrediction:
        """Return the task to train: the last one, or a new one, pretrained or not."""
        if self.warm_start and hasattr(self, "net_"):
            task = self.net_.module_
            task.freeze(self.strategy == "probe")  # it may have changed
            return task
        backbone = self._prepare(cohort, seed)
        if self.pretrain_epochs:
            pretraining = PatchPretraining(backbone)
            self._pretrain(pretraining, cohort, seed, self.pretrain_epochs, [])
        return self._make_task(backbone)

    def _make_task(self, backbone: PatchBackbone) -> PatchPrediction:
        """Return the task around `backbone`, its head at zero."""
        head = TaskHead(
            backbone.n_regions,
            backbone.dim,
            self._n_outputs(),
            pooling=self.pooling,
        )
        frozen = self.strategy == "probe"
        return PatchPrediction(backbone, head, kind=self._kind, frozen=frozen)


class BasePatchClassifier(ScanClassifierMixin, BasePatchSupervised):
    """Constructor of the classifiers."""

    def __init__(
        self,
        size: str = "toy",
        *,
        pretrained: str | Path | None = None,
        strategy: str = "finetune",
        pretrain_epochs: int = 0,
        masking: str | None = None,
        pooling: str = "mean",
        constant_regions: str = "error",
        window: int | None = None,
        patch_size: int | None = None,
        t_r: float | str | None = None,
        standardize: str | None = "zscore",
        n_windows: int | None = None,
        max_epochs: int = 50,
        batch_size: int = 16,
        micro_batch_size: int | str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
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
            size,
            pretrained=pretrained,
            strategy=strategy,
            pretrain_epochs=pretrain_epochs,
            masking=masking,
            pooling=pooling,
            constant_regions=constant_regions,
            window=window,
            patch_size=patch_size,
            t_r=t_r,
            standardize=standardize,
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


class BasePatchRegressor(ScanRegressorMixin, BasePatchSupervised):
    """The regressors."""
