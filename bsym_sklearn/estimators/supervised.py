"""BrainSymphony with a target: what its classifier and its regressor share."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from sklearn.utils import check_scalar

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.backbone import BaseBrainSymphony
from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.model.heads import TaskHead
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.objectives import SupervisedTask

# The states are one wide layer and its read-out. They learn well at the rate of
# meanMLP, five times that of the transformers (docs/benchmarks/ablations.md).
STATES_PATH = ("backbone.fmri.temporal.states.", "head.readouts.states.")
STATES_RATE = 5.0


class BaseSupervised(BaseBrainSymphony):
    """Constructor and task of BrainSymphony with a target."""

    _kind: str  # of loss, set by a mixin of `targets`

    def __init__(
        self,
        *,
        pretrained: str | Path | None = None,
        strategy: str = "finetune",
        pretrain_epochs: int = 0,
        layer_decay: float = 1.0,
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
        self.strategy = strategy
        self.pretrain_epochs = pretrain_epochs
        self.layer_decay = layer_decay
        self.readouts = readouts
        self.head_dropout = head_dropout

    def _check_parameters(self) -> None:
        """Check the parameters of fine-tuning too."""
        super()._check_parameters()
        check_choice(self.strategy, ("finetune", "probe"), "strategy")
        check_choice(self.pooling, ("mean", "regions"), "pooling")
        self._check_share("head_dropout")
        check_scalar(self.pretrain_epochs, "pretrain_epochs", Integral, min_val=0)
        check_scalar(self.max_epochs, "max_epochs", Integral, min_val=1)
        check_scalar(
            self.layer_decay,
            "layer_decay",
            Real,
            min_val=0,
            max_val=1,
            include_boundaries="right",
        )

    def _pretraining_epochs(self) -> int:
        """Return the epochs of self-supervision in a fit."""
        return self.pretrain_epochs

    def _description(self) -> str:
        """Return what the training is called."""
        return "fine-tuning" if self.strategy == "finetune" else "probing"

    def _make_task(self, backbone: BrainSymphony) -> SupervisedTask:
        """Return the supervised task around `backbone`, its head at zero."""
        head = TaskHead(
            backbone.n_regions,
            backbone.dim,
            self._n_outputs(),
            readouts=self._readouts(backbone),
            pooling=self.pooling,
            dropout=self.head_dropout,
            n_states=backbone.config["n_states"],
        )
        return SupervisedTask(
            backbone, head, kind=self._kind, frozen=self.strategy == "probe"
        )

    def _readouts(self, backbone: BrainSymphony) -> tuple[str, ...]:
        """Return the streams to read, each by itself."""
        over_time = ("states", "temporal") if backbone.has_states else ("temporal",)
        streams = {"fmri": ("spatial", *over_time), "sc": ("structural",)}
        there = [name for m in self.modalities_ for name in streams[m]]
        if self.readouts == "auto":  # of states and what is made of them, the states
            unread = over_time[1:]
            return (*(name for name in there if name not in unread), "fused")
        asked = tuple(str(self.readouts).split("+"))
        for name in asked:
            check_choice(name, (*there, "fused"), "readouts")
        silent = [m for m in self.modalities_ if not {*streams[m], "fused"} & {*asked}]
        if silent:  # a scan of this modality alone would have no prediction
            raise ValueError(
                f"`readouts` needs a stream of every modality, or 'fused'. Got "
                f"{self.readouts!r} with {list(self.modalities_)}. Add one, or set "
                "`modalities`."
            )
        return asked

    def _initial_task(self, cohort: Cohort, seed: int) -> SupervisedTask:
        """Return the task to train: the last one, or a new one, pretrained or not."""
        if self.warm_start and hasattr(self, "net_"):
            task = self.net_.module_
            task.freeze(self.strategy == "probe")  # it may have changed
            return task
        backbone = self._prepare(cohort, seed)
        if self.pretrain_epochs:
            self._train(
                self._masked_task(backbone, seed),
                cohort,
                seed=seed,
                max_epochs=self.pretrain_epochs,
                description="pretraining",
            )
        elif self.strategy == "probe" and self.pretrained is None:
            warnings.warn(
                f"{type(self).__name__} probes a backbone with random weights. Set "
                "`pretrained` or `pretrain_epochs`.",
                BrainSymphonyWarning,
                stacklevel=4,
            )
        return self._make_task(backbone)

    def _lr_scales(self, task: SupervisedTask) -> dict[str, float]:
        """Return the factor on the learning rate of each parameter that has one."""
        fast = {
            name: STATES_RATE
            for name, _ in task.named_parameters()
            if name.startswith(STATES_PATH)
        }
        if self.layer_decay == 1:
            return fast
        n_layers = task.backbone.config["depth"] + 1
        scales: dict[int, float] = {}
        for depth, part in task.backbone.blocks_by_depth():
            for parameter in part.parameters():
                scales[id(parameter)] = self.layer_decay ** ((1 - depth) * n_layers)
        return {
            name: fast.get(name, 1.0) * scales.get(id(parameter), 1.0)
            for name, parameter in task.named_parameters()
        }
