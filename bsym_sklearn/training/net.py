"""The training loop, composed from skorch; the only importer of NeuralNet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from skorch.helper import predefined_split
from skorch.history import History
from torch import Tensor, nn

from bsym_sklearn.model.layers import set_generator
from bsym_sklearn.training.callbacks import (
    BestWeights,
    Checkpoint,
    CosineSchedule,
    Finite,
    Patience,
    ProgressBar,
    Stages,
    StopTraining,
)
from bsym_sklearn.training.compiling import compiled
from bsym_sklearn.training.memory import MicroBatch
from bsym_sklearn.training.scans import (
    Batch,
    RandomWindows,
    WindowDataset,
    is_cuda,
    make_loader,
    to_device,
)

GRADIENT_CLIP_NORM = 1.0
ADAM_BETAS = (0.9, 0.95)  # the usual choice for transformers


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; nothing here changes what is learned from.

    Parameters
    ----------
    max_epochs : int
        Passes over the training scans.
    batch_size : int, default=16
        Scans per step.
    micro_batch_size : int, "auto" or None, default=None
        Scans of a step that are computed at once, at most; their gradients are added
        up. None computes all, ``"auto"`` as many as fit into memory. Draws of masks
        and dropout, hence the bits, depend on it.
    lr : float, default=1e-3
        AdamW's peak learning rate.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay, of weight matrices only.
    patience : int or None, default=None
        Epochs without a better validation loss before training stops; the best
        weights are kept. None trains for `max_epochs` and keeps the best, as
        training in stages always does.
    constant_lr : bool, default=False
        No warm-up and no decay.
    device : str, default="cpu"
        Torch device.
    mixed_precision : bool, default=False
        Compute in bfloat16 where that is safe, keep weights as they are.
    compile : bool, default=False
        Train with ``torch.compile``.
    n_jobs : int, default=0
        Processes that read scans beside the main one.
    verbose : int, default=0
        With 1, show a progress bar.
    checkpoint : Path or None, default=None
        File in which the state after each epoch is kept, to resume from.
    """

    max_epochs: int
    batch_size: int = 16
    micro_batch_size: int | str | None = None
    lr: float = 1e-3
    weight_decay: float = 0.01
    patience: int | None = None
    constant_lr: bool = False
    device: str = "cpu"
    mixed_precision: bool = False
    compile: bool = False
    n_jobs: int = 0
    verbose: int = 0
    checkpoint: Path | None = None


def train(
    task: nn.Module,
    train_set: WindowDataset,
    valid_set: WindowDataset | None = None,
    *,
    settings: TrainingSettings,
    seed: int,
    lr_scales: Mapping[str, float] | None = None,
    callbacks: Sequence[Callback] = (),
    resume_from: NeuralNet | None = None,
    description: str = "training",
) -> NeuralNet:
    """Train `task` and return the fitted skorch net.

    Parameters
    ----------
    task : nn.Module
        With ``forward(**batch)``, ``loss(predictions, target)`` and ``stages``,
        see :mod:`bsym_sklearn.training.objectives`. Trained in place.
    train_set, valid_set : WindowDataset
        Scans to learn from, and to stop by.
    settings : TrainingSettings
        How to train.
    seed : int
        Of order, crops, masks and dropout.
    lr_scales : mapping of str to float or None, default=None
        Factor on the learning rate by parameter name; 1 if not listed.
    callbacks : sequence of skorch Callback, default=()
        Called last.
    resume_from : NeuralNet or None, default=None
        Net of an earlier call on the same task: its optimizer state and history
        are continued.
    description : str, default="training"
        Shown by the progress bar and in errors.

    Returns
    -------
    NeuralNet
        ``module_`` is `task`, with the best weights by validation loss.

    Raises
    ------
    FloatingPointError
        If the loss becomes NaN or infinite.
    CheckpointError
        If ``settings.checkpoint`` holds another training.
    RuntimeError
        If ``settings.compile`` is asked for without a C++ compiler.
    """
    best = BestWeights()
    # every stage gets its epochs, whatever the loss of all stages does meanwhile
    patience = None if task.staged else settings.patience
    checkpoint = Checkpoint(settings.checkpoint, best, patience)
    loop: list[Callback] = [
        Stages(settings.max_epochs),
        GradientNormClipping(GRADIENT_CLIP_NORM),
        Finite(description, settings.lr),
        best,
        checkpoint,
        *callbacks,
        Patience(best, patience),
    ]
    if not settings.constant_lr:
        steps = max(math.ceil(len(train_set) / settings.batch_size), 1)
        n_cycles = len(task.stages) if task.staged else 1  # type: ignore[arg-type]
        loop.insert(0, CosineSchedule(steps, settings.max_epochs, n_cycles))
    if settings.verbose:  # first, so that it is open whatever the others raise
        loop.insert(0, ProgressBar(settings.max_epochs, description))
    net = make_net(task, settings, valid_set=valid_set, lr_scales=lr_scales)
    net.callbacks = loop
    net.initialize_callbacks()
    net.order_ = torch.Generator().manual_seed(seed)
    net.noise_ = torch.Generator(settings.device).manual_seed(seed + 1)
    if resume_from is not None:
        net.optimizer_.load_state_dict(resume_from.optimizer_.state_dict())
        for group, scale in zip(net.optimizer_.param_groups, net.scales_, strict=True):
            group["lr"] = settings.lr * scale
        net.history_ = History(resume_from.history)
        epochs = settings.max_epochs
    else:
        epochs = settings.max_epochs - checkpoint.restore(net)
    set_generator(task, net.noise_)
    task.generator = net.noise_  # type: ignore[assignment]  # any task has one
    try:
        net.notify("on_train_begin", X=train_set, y=None)
        with compiled(task) if settings.compile else nullcontext():
            net.fit_loop(train_set, None, epochs=epochs)
    except StopTraining:
        pass
    finally:
        set_generator(task, None)
        task.generator = None  # type: ignore[assignment]
        task.stage = None  # type: ignore[assignment]
        net.notify("on_train_end", X=train_set, y=None)
    best.restore(net)
    checkpoint.finish(net)
    # Data, generators and callbacks belong to the fit, not to the fitted net.
    net.train_split = None
    net.callbacks, net.callbacks_ = None, []
    net.order_ = net.noise_ = None
    return net


def make_net(
    task: nn.Module,
    settings: TrainingSettings,
    *,
    valid_set: WindowDataset | None = None,
    lr_scales: Mapping[str, float] | None = None,
) -> NeuralNet:
    """Return an initialised skorch net around `task`, untrained.

    Parameters
    ----------
    task : nn.Module
        Moved to the device of the settings.
    settings : TrainingSettings
        How to train.
    valid_set : WindowDataset or None, default=None
        Scans to stop by.
    lr_scales : mapping of str to float or None, default=None
        Factor on the learning rate by parameter name.

    Returns
    -------
    NeuralNet
    """
    net = _Net(
        task,
        criterion=nn.Identity,  # the task judges its own predictions
        lr=settings.lr,
        max_epochs=settings.max_epochs,
        batch_size=settings.batch_size,
        train_split=None if valid_set is None else predefined_split(valid_set),
        callbacks=None,
        callbacks__print_log=None,
        device=settings.device,
        verbose=0,
    )
    net.settings_ = settings
    net.micro_batch_ = MicroBatch(settings.micro_batch_size)
    net.scales_by_name_ = dict(lr_scales or {})
    return net.initialize()


class _Net(NeuralNet):
    """Skorch's loop over our tasks, windows and generators."""

    def get_iterator(self, dataset: WindowDataset, training: bool = False) -> Any:
        """Return batches of random windows, or of the covering ones."""
        windows: Any = dataset.covering_windows()
        if training:
            windows = RandomWindows(dataset, self.order_)
        return make_loader(
            dataset,
            windows,
            self.batch_size,
            device=self.device,
            n_jobs=self.settings_.n_jobs,
            persistent=True,
        )

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **_: Any
    ) -> None:
        """Do the steps of an epoch, without waiting for the device in between."""
        if iterator is None:
            return
        losses: list[Tensor] = []
        first = len(self.history[-1]["batches"])
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch)
            losses.append(step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", len(batch[1]["row"]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        values = torch.stack(losses).tolist() if losses else []
        for record, value in zip(
            self.history[-1]["batches"][first:], values, strict=True
        ):
            record[f"{prefix}_loss"] = value
        self.history.record(f"{prefix}_batch_count", len(losses))

    def train_step_single(self, batch: tuple[Batch, Batch], **_: Any) -> dict[str, Any]:
        """Compute the gradients of one batch, at once or in parts."""
        self._set_training(True)
        inputs, target = (to_device(part, self.device) for part in batch)
        n_scans = len(target["row"])
        self.micro_batch_.measure(
            n_scans,
            lambda n: self._loss_of(inputs, target, slice(n)),
            self.module_,
            inputs.values(),
            self.noise_,
        )

        def step(size: int) -> Tensor:
            total = []
            for loss in self._losses(inputs, target, size):
                loss.backward()
                total.append(loss.detach())
                del loss  # and all that it holds, before the next part
            return torch.stack(total).sum()

        loss = self.micro_batch_.run(
            n_scans, step, self.noise_, self._zero_grad_optimizer
        )
        # not the predictions: nobody asks for them, and parts have no common ones
        return {"loss": loss, "y_pred": None}

    def validation_step(self, batch: tuple[Batch, Batch], **_: Any) -> dict[str, Any]:
        """Compute the loss of one batch, at once or in parts."""
        self._set_training(False)
        inputs, target = (to_device(part, self.device) for part in batch)
        size = self.micro_batch_.part_size(len(target["row"]))
        with torch.no_grad():
            losses = list(self._losses(inputs, target, size))
        return {"loss": torch.stack(losses).sum(), "y_pred": None}

    def _losses(self, inputs: Batch, target: Batch, size: int) -> Iterator[Tensor]:
        """Yield the losses of the parts of a batch, which add up to that of all."""
        n_scans = len(target["row"])
        for start in range(0, n_scans, size):
            part = slice(start, start + size)
            share = len(target["row"][part]) / n_scans
            yield self._loss_of(inputs, target, part) * share

    def _loss_of(self, inputs: Batch, target: Batch, part: slice) -> Tensor:
        """Return the loss of some scans of a batch on the device."""
        predictions = self.infer({name: x[part] for name, x in inputs.items()})
        return self.get_loss(predictions, {k: x[part] for k, x in target.items()})

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> _Net:
        """Make AdamW; decay weight matrices, not norms, biases and positions."""
        on_cuda = is_cuda(self.device)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.module_.named_parameters():
            if not parameter.requires_grad:
                continue
            is_matrix = name.endswith("weight") and parameter.ndim > 1
            decay = self.settings_.weight_decay if is_matrix else 0.0
            key = (decay, self.scales_by_name_.get(name, 1.0))
            groups.setdefault(key, []).append(parameter)
        self.scales_ = [scale for _, scale in groups]
        self.optimizer_ = torch.optim.AdamW(
            [
                {"params": members, "weight_decay": decay, "lr": self.lr * scale}
                for (decay, scale), members in groups.items()
            ],
            lr=self.lr,
            betas=ADAM_BETAS,
            # One pass over the weights on CUDA, where it costs no launch per operation.
            # Elsewhere "foreach" has the bits of the plain loop, in less time.
            fused=True if on_cuda else None,
            foreach=None if on_cuda else True,
        )
        return self

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Apply the task to one batch."""
        kind = torch.device(self.device).type
        with torch.autocast(
            kind, torch.bfloat16, enabled=self.settings_.mixed_precision
        ):
            return self.module_(**to_device(x, self.device))

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Let the task judge its predictions, as float32 or better."""
        return self.module_.loss(y_pred, to_device(y_true, self.device))


def set_history(net: NeuralNet, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Give `net` the history of the training that its weights come from.

    Parameters
    ----------
    net : NeuralNet
        Initialised.
    epochs : sequence of mapping
        One per epoch: losses and seconds.
    """
    net.history_ = History(list(epochs))


def resolve_device(device: str) -> str:
    """Return `device`, or the best available one if it is ``"auto"``.

    Parameters
    ----------
    device : str
        ``"auto"``, or anything that torch accepts.

    Returns
    -------
    str

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    if device != "auto":
        return str(torch.device(device))
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"
