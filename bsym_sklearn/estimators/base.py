"""Behaviour shared by every estimator that trains a backbone.

Subclasses define the constructor, a backbone and a task; this file checks
parameters and data, trains, predicts and keeps the fitted state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import Tags, check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from bsym_sklearn.data.checks import ConstantRegions
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.containers import is_table
from bsym_sklearn.estimators.covariates import participants
from bsym_sklearn.estimators.preprocessing import (
    SC_SCALING,
    STANDARDIZE,
    Preprocessing,
    repetition_times,
)
from bsym_sklearn.estimators.seen import (
    add_participants,
    describe_regions,
    describe_scans,
)
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.distributed import find_processes
from bsym_sklearn.training.inference import Batch, WindowLoop
from bsym_sklearn.training.net import (
    Callback,
    NeuralNet,
    TrainingSettings,
    make_net,
    resolve_device,
    train,
)
from bsym_sklearn.training.reading import ScanReader
from bsym_sklearn.training.scans import WindowDataset, split_rows

MODALITIES = ("fmri", "sc")
MIN_TIMEPOINTS = 5  # the context convolution's kernel
MAX_SEED = np.iinfo(np.int32).max
# Parameters that change how a fit runs but not what comes out of it.
RUN_ONLY = ("checkpoint_dir", "device", "n_jobs", "verbose", "warm_start")


class BaseBrainEstimator(CallbackSupportMixin, BaseEstimator):
    """Check parameters and data, train, predict, keep the fitted state."""

    # Constructor parameters that every subclass has.
    modalities: str
    missing_modality: str
    constant_regions: str
    window: int | None
    t_r: float | str | None
    standardize: str | None
    sc_scaling: str | None
    n_windows: int | None
    max_epochs: int
    batch_size: int
    micro_batch_size: int | str | None
    lr: float
    weight_decay: float
    dropout: float | None
    validation_fraction: float
    patience: int | None
    group_column: str
    device: str
    dtype: str
    compile: bool
    random_state: int | np.random.RandomState | None
    n_jobs: int | None
    checkpoint_dir: str | Path | None
    warm_start: bool
    verbose: int
    # Fitted attributes.
    net_: NeuralNet
    preprocessing_: Preprocessing
    modalities_: tuple[str, ...]
    n_regions_: int
    regions_: tuple[str, ...]
    region_table_: dict[str, list[Any]]
    participants_: list[str]
    training_data_: list[dict[str, Any]]
    license_: str | None
    metrics_: dict[str, float]
    _pretrained_on: Mapping[str, Any]  # of the bundle that a fit starts from

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.dict = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    @property
    def history_(self) -> pd.DataFrame:
        """Losses and seconds of each epoch of the last training."""
        check_is_fitted(self)
        rows = [
            {k: v for k, v in epoch.items() if k in _HISTORY}
            for epoch in self.net_.history.to_list()
        ]
        return pd.DataFrame(rows, columns=list(_HISTORY)).dropna(axis=1, how="all")

    @property
    def n_iter_(self) -> int:
        """Epochs of the last training."""
        return len(self.history_)

    @property
    def backbone_(self) -> Any:
        """The torch model, see :class:`~bsym_sklearn.model.BrainSymphony`."""
        check_is_fitted(self)
        return self.net_.module_.backbone

    # ---------------------------------------------------------------- checks

    def _check_parameters(self) -> None:
        """Check the parameters in `fit`, so that `set_params` is covered too."""
        self._check_sizes()
        check_scalar(self.lr, "lr", Real, min_val=0, include_boundaries="neither")
        check_scalar(self.weight_decay, "weight_decay", Real, min_val=0)
        self._check_share("validation_fraction")
        if self.dropout is not None:  # None: as the network was published
            self._check_share("dropout")
        if self.t_r is not None and not isinstance(self.t_r, str):
            check_scalar(self.t_r, "t_r", Real, min_val=0, include_boundaries="neither")
        if self.standardize is not None:
            check_choice(self.standardize, tuple(STANDARDIZE), "standardize")
        if self.sc_scaling is not None:
            check_choice(self.sc_scaling, SC_SCALING, "sc_scaling")
        check_choice(self.missing_modality, ("raise", "allow"), "missing_modality")
        check_choice(self.constant_regions, ("error", "mask"), "constant_regions")
        check_choice(self.modalities, ("auto", "fmri", "sc", "both"), "modalities")
        check_choice(self.dtype, ("auto", "float32", "float64", "bfloat16"), "dtype")
        check_scalar(self.compile, "compile", bool)
        if self.checkpoint_dir is not None and not isinstance(
            self.random_state, Integral
        ):
            raise ValueError(
                f"`checkpoint_dir` needs an integer `random_state`. Got "
                f"{self.random_state!r}. A fit that is not reproducible cannot be "
                "resumed."
            )

    def _check_share(self, name: str) -> None:
        """Check that the parameter of this name is in [0, 1)."""
        value = getattr(self, name)
        check_scalar(value, name, Real, min_val=0, max_val=1, include_boundaries="left")

    def _check_sizes(self) -> None:
        """Check the parameters that count something."""
        check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        for name in ("max_epochs", "verbose"):
            check_scalar(getattr(self, name), name, Integral, min_val=0)
        for name in ("window", "n_windows", "patience"):
            if getattr(self, name) is not None:
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        size = self.micro_batch_size
        if isinstance(size, str) and size != "auto":
            raise ValueError(
                f"`micro_batch_size` must be a number of scans, 'auto' or None. Got "
                f"{size!r}."
            )
        if size is not None and size != "auto":
            check_scalar(size, "micro_batch_size", Integral, min_val=1)

    def _check_scans(self, X: Any, *, reset: bool) -> Cohort:
        """Validate `X`; learn its sizes if `reset`, else require the fitted ones."""
        caller = type(self).__name__
        table = not isinstance(X, Cohort) and is_table(X)
        if table:
            X = validate_data(
                self, X, reset=reset, dtype=[np.float64, np.float32], order="C"
            )
        n_regions = None if reset else self.n_regions_
        cohort = check_cohort(
            X,
            caller=caller,
            constant_regions=cast(ConstantRegions, self.constant_regions),
            min_timepoints=MIN_TIMEPOINTS,
            n_regions=n_regions,
        )
        if reset:
            self.n_regions_ = self.n_features_in_ = cohort.n_regions
            self.regions_ = _region_names(cohort)
            self.region_table_ = describe_regions(cohort.regions)
            if not table and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        else:
            self._check_modalities(X, cohort)
            self._check_length(cohort)
            self._check_regions(cohort)
        return cohort

    def _forget_fit(self) -> None:
        """Become unfitted: a fit that fails later leaves nothing that fits half."""
        for name in ("net_", "n_partial_fits_"):
            self.__dict__.pop(name, None)

    def _check_regions(self, cohort: Cohort) -> None:
        """Refuse regions that are called otherwise, or come in another order."""
        given, known = _region_names(cohort), self.regions_
        is_named = cohort.regions is not None and "label" in cohort.regions
        if given != known and is_named and "label" in self.region_table_:
            r = [a == b for a, b in zip(given, known, strict=True)].index(False)
            raise BrainDataError(
                f"{type(self).__name__} needs the regions that it was fitted on, in "
                f"their order. Got {given[r]!r} instead of {known[r]!r} as region {r}. "
                "Bring the scans into the order of `regions_` with align_regions."
            )

    def _check_length(self, cohort: Cohort) -> None:
        """Refuse single time points where `fit` scaled every scan by itself."""
        scaler = self.preprocessing_.fmri_scaler
        if cohort.is_table and scaler is not None and scaler.per == "scan":
            raise BrainDataError(
                f"{type(self).__name__} was fitted on scans and needs scans. Got a 2-D "
                f"X of {len(cohort)} rows, read as that many scans of one time point. "
                "Pass [X] if it is one scan."
            )

    def _check_modalities(self, X: Any, cohort: Cohort) -> None:
        """Compare the modalities at prediction with those of `fit`."""
        caller = type(self).__name__
        given = _given_modalities(X)
        vanished = [m for m in self.modalities_ if m not in given]
        if vanished and self.missing_modality == "raise":
            raise BrainDataError(
                f"{caller} was fitted with {list(self.modalities_)} and needs "
                f"{vanished[0]!r}. Got an X without it. Pass a DataFrame with that "
                "column (cells may be missing), or set missing_modality='allow'."
            )
        unknown = [m for m in cohort.modalities if m not in self.modalities_]
        if unknown and self.modalities == "auto":
            warnings.warn(
                f"{caller} was fitted on {list(self.modalities_)} and ignores "
                f"{unknown[0]!r}. Fit it again with that modality to use it.",
                BrainSymphonyWarning,
                stacklevel=4,
            )
        self._check_rows(cohort, self.modalities_)

    def _check_rows(self, cohort: Cohort, modalities: Sequence[str]) -> None:
        """Refuse a row that has nothing of what the model reads."""
        for i, pair in enumerate(zip(cohort.fmri, cohort.sc, strict=True)):
            cells = dict(zip(MODALITIES, pair, strict=True))
            if all(cells[m] is None for m in modalities):
                raise BrainDataError(
                    f"{type(self).__name__} needs one of {list(modalities)} in every "
                    f"row. Got neither, first in scan {i}. Leave the scan out."
                )

    def _select_modalities(self, cohort: Cohort) -> tuple[str, ...]:
        """Return the modalities to build the model for."""
        wanted = {
            "auto": cohort.modalities,
            "both": MODALITIES,
            "fmri": ("fmri",),
            "sc": ("sc",),
        }[self.modalities]
        missing = [m for m in wanted if m not in cohort.modalities]
        if missing:
            raise BrainDataError(
                f"{type(self).__name__} needs {missing[0]!r} as modalities="
                f"{self.modalities!r} asks for it. Got only {list(cohort.modalities)}. "
                "Add the column or use modalities='auto'."
            )
        return wanted

    def _require_fmri(self, cohort: Cohort) -> None:
        """Refuse scans without fMRI, for models that read nothing else."""
        for i, fmri in enumerate(cohort.fmri):
            if fmri is None:
                raise BrainDataError(
                    f"{type(self).__name__} needs fMRI in every row. Got none, first "
                    f"in scan {i}. Leave the scan out."
                )

    # -------------------------------------------------------------- training

    def _fit_preprocessing(
        self,
        cohort: Cohort,
        modalities: tuple[str, ...],
        window: int | None,
        n_gradients: int | None,
    ) -> Preprocessing:
        """Fit window, repetition time, scalers and gradients on these scans."""
        return Preprocessing.fit(
            cohort,
            modalities=modalities,
            window=window,
            t_r=self.t_r,
            standardize=self.standardize,
            sc_scaling=self.sc_scaling,
            n_gradients=n_gradients,
        )

    def _n_outputs(self) -> int:
        """Return the outputs of the network, known once the target is."""
        raise NotImplementedError(f"{type(self).__name__}._n_outputs")

    def _initial_task(self, cohort: Cohort, seed: int) -> nn.Module:
        """Return the task of a target; set what is fitted before training."""
        raise NotImplementedError(f"{type(self).__name__}._initial_task")

    def _description(self) -> str:
        """Return what the training is called."""
        return "training"

    def _lr_scales(self, task: Any) -> dict[str, float]:
        """Return factors on the learning rate by parameter name."""
        return {}

    def _draw_seed(self) -> int:
        """Return the seed of this fit, the same in all its processes."""
        seed = check_random_state(self.random_state).randint(MAX_SEED)
        return int(find_processes().of_first(str(seed)))

    def _settings(self, max_epochs: int, checkpoint: Path | None) -> TrainingSettings:
        """Return how to train."""
        device = resolve_device(self.device)
        on_cuda = torch.device(device).type == "cuda"
        automatic = self.dtype == "auto" and on_cuda and torch.cuda.is_bf16_supported()
        return TrainingSettings(
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            patience=self.patience,
            device=device,
            mixed_precision=self.dtype == "bfloat16" or automatic,
            compile=self.compile,
            n_jobs=_n_workers(self.n_jobs),
            verbose=self.verbose,
            checkpoint=checkpoint,
        )

    def _train(
        self,
        task: nn.Module,
        cohort: Cohort,
        *,
        seed: int,
        max_epochs: int,
        description: str,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        strata: np.ndarray | None = None,
        lr_scales: dict[str, float] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> NeuralNet:
        """Split off validation scans by participant, and train `task`."""
        if max_epochs == 0:
            return make_net(self._as_dtype(task), self._settings(0, None))
        reader = self._reader(cohort, task.prepare_sc)
        window = self.preprocessing_.window
        generator = torch.Generator().manual_seed(seed)
        rows, held_out = split_rows(
            self._groups(cohort), self.validation_fraction, generator, strata=strata
        )
        sets = [
            WindowDataset(reader, window, rows=part, targets=targets, weights=weights)
            for part in (rows, held_out)
        ]
        checkpoint = None
        if self.checkpoint_dir is not None:
            name = self._fingerprint(task, cohort, description, targets, weights)
            name = find_processes().of_first(name)  # one file, also of unlike CPUs
            checkpoint = Path(self.checkpoint_dir) / f"{name}.safetensors"
        return train(
            self._as_dtype(task),
            sets[0],
            sets[1] if len(held_out) else None,
            settings=self._settings(max_epochs, checkpoint),
            seed=seed,
            lr_scales=lr_scales,
            callbacks=callbacks,
            description=description,
        )

    def _train_one_epoch(
        self,
        task: nn.Module,
        cohort: Cohort,
        *,
        seed: int,
        targets: Tensor | None,
        weights: Tensor | None,
        net: NeuralNet | None,
    ) -> NeuralNet:
        """Continue the training of `net` on all these scans, at a constant rate."""
        dataset = WindowDataset(
            self._reader(cohort, task.prepare_sc),
            self.preprocessing_.window,
            targets=targets,
            weights=weights,
        )
        settings = replace(self._settings(1, None), constant_lr=True, verbose=0)
        return train(
            self._as_dtype(task),
            dataset,
            settings=settings,
            seed=seed,
            lr_scales=self._lr_scales(task),
            resume_from=net,
        )

    def _groups(self, cohort: Cohort) -> np.ndarray:
        """Return the participant of each scan, or its row number."""
        return participants(cohort, self.group_column, type(self).__name__)

    def _fingerprint(
        self,
        task: nn.Module,
        cohort: Cohort,
        description: str,
        targets: Tensor | None,
        weights: Tensor | None,
    ) -> str:
        """Return a name for this fit that another fit does not share."""
        params = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in RUN_ONLY
        }
        start = task.state_dict().values()  # warm starts and pretrained files differ
        arrays = [
            None if t is None else t.detach().cpu().numpy()
            for t in (targets, weights, *start)
        ]
        scans = (
            cohort.fingerprint(),
            self._groups(cohort),
            repetition_times(cohort, self.t_r),
        )
        parts = (type(self).__name__, description, params, scans, arrays)
        return str(joblib.hash(parts))

    def _remember(self, cohort: Cohort, *, going_on: bool) -> None:
        """Set what is kept of these scans: hashes of participants, and counts."""
        names = None
        if cohort.covariates is not None and self.group_column in cohort.covariates:
            names = set(self._groups(cohort))
        described = describe_scans(
            cohort,
            self.modalities_,
            repetition_times(cohort, self.t_r),
            None if names is None else len(names),
        )
        if going_on:  # the calls before are one entry: that of the last
            seen, earlier = self.participants_, self.training_data_[:-1]
            last = self.training_data_[-1:]  # none for an old bundle
            described["n_calls"] = 1 + sum(entry["n_calls"] for entry in last)
        else:
            before = self._pretrained_on
            seen, earlier = (
                before.get(name, []) for name in ("participants", "training_data")
            )
            described["n_calls"] = 1
            self.license_ = before.get("license")
        self.participants_ = add_participants(seen, names or ())
        self.training_data_ = [*earlier, described]
        self.metrics_ = {}

    # ------------------------------------------------------------ prediction

    def _reader(self, cohort: Cohort, prepare_sc: Any) -> ScanReader:
        """Return a reader of scaled scans."""
        dtype = np.float64 if self.dtype == "float64" else np.float32
        t_r = None
        if self.preprocessing_.t_r is not None:
            t_r = repetition_times(cohort, self.t_r)
        reader = self.preprocessing_.reader(cohort, t_r, dtype)
        return replace(reader, prepare_sc=prepare_sc)

    def _prepare_sc(self) -> Any:
        """Return what to compute once per connectome, None for nothing."""
        return None

    def _dataset(self, cohort: Cohort) -> WindowDataset:
        """Return the covering windows of the scans."""
        reader = self._reader(cohort, self._prepare_sc())
        return WindowDataset(
            reader, self.preprocessing_.window, n_windows=self.n_windows
        )

    def _loop(self) -> WindowLoop:
        """Return how to go through windows."""
        device = next(self.net_.module_.parameters()).device
        batch_size, most = self.batch_size, self.micro_batch_size
        if most is not None and not isinstance(most, str):
            batch_size = min(batch_size, most)  # memory is as short as in training
        return WindowLoop(batch_size, str(device), _n_workers(self.n_jobs))

    def _predict(self, X: Any, apply: Callable[[Batch], Tensor]) -> np.ndarray:
        """Average what `apply` makes of each scan's windows."""
        check_is_fitted(self)
        cohort = self._check_scans(X, reset=False)
        return self._loop().average(self.net_.module_, self._dataset(cohort), apply)

    def _as_dtype(self, module: nn.Module) -> nn.Module:
        """Return `module` in the precision asked for."""
        return module.double() if self.dtype == "float64" else module.float()


_HISTORY = ("epoch", "train_loss", "valid_loss", "dur")


def _given_modalities(X: Any) -> tuple[str, ...]:
    """Return the modalities for which `X` has a place, filled or not."""
    if isinstance(X, Cohort):
        return X.modalities
    has_columns = hasattr(X, "keys") and not isinstance(X, pd.Series)
    if has_columns and not is_table(X):  # DataFrame or SliceDict
        return tuple(m for m in MODALITIES if m in X)
    return ("fmri",)


def _region_names(cohort: Cohort) -> tuple[str, ...]:
    """Return the labels of the regions, or numbered names."""
    if cohort.regions is not None and "label" in cohort.regions:
        return tuple(cohort.regions["label"].astype(str))
    return tuple(f"region{r}" for r in range(cohort.n_regions))


def _n_workers(n_jobs: int | None) -> int:
    """Return the reading processes beside the main one."""
    if n_jobs is None or n_jobs == 1:
        return 0
    check_scalar(n_jobs, "n_jobs", Integral)
    if n_jobs == 0:
        raise ValueError("n_jobs == 0, must be None, positive or negative.")
    return joblib.cpu_count() if n_jobs < 0 else n_jobs
