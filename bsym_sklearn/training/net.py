"""The training loop, composed from skorch; the only importer of NeuralNet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from skorch.helper import predefined_split
from skorch.history import History
from skorch.utils import to_tensor
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.model.layers import set_generator
from bsym_sklearn.training.checkpoints import load_state, save_state
from bsym_sklearn.training.scans import RandomWindows, WindowDataset

GRADIENT_CLIP_NORM = 1.0
WARMUP_SHARE = 0.1  # of all steps
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
    n_jobs : int, default=0
        Processes that read scans beside the main one.
    verbose : int, default=0
        With 1, show a progress bar.
    checkpoint : Path or None, default=None
        File in which the state after each epoch is kept, to resume from.
    """

    max_epochs: int
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.01
    patience: int | None = None
    constant_lr: bool = False
    device: str = "cpu"
    mixed_precision: bool = False
    n_jobs: int = 0
    verbose: int = 0
    checkpoint: Path | None = None


class StopTraining(Exception):  # noqa: N818  (a signal, not an error)
    """Raised by a callback to end the fit loop cleanly.

    Not KeyboardInterrupt, which skorch uses: a user's Ctrl-C must stop a
    cross-validation, not just the current fold.
    """


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
    """
    best = _BestWeights()
    # every stage gets its epochs, whatever the loss of all stages does meanwhile
    patience = None if task.staged else settings.patience
    checkpoint = _Checkpoint(settings.checkpoint, best, patience)
    loop: list[Callback] = [
        _Stages(settings.max_epochs),
        GradientNormClipping(GRADIENT_CLIP_NORM),
        _Finite(description, settings.lr),
        best,
        checkpoint,
        *callbacks,
        _Patience(best, patience),
    ]
    if not settings.constant_lr:
        steps = max(math.ceil(len(train_set) / settings.batch_size), 1)
        n_cycles = len(task.stages) if task.staged else 1  # type: ignore[arg-type]
        loop.insert(0, _CosineSchedule(steps, settings.max_epochs, n_cycles))
    if settings.verbose:  # first, so that it is open whatever the others raise
        loop.insert(0, _ProgressBar(settings.max_epochs, description))
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
    net.scales_by_name_ = dict(lr_scales or {})
    return net.initialize()


class _Net(NeuralNet):
    """Skorch's loop over our tasks, windows and generators."""

    def get_iterator(self, dataset: WindowDataset, training: bool = False) -> Any:
        """Return batches of random windows, or of the covering ones."""
        settings = self.settings_
        sampler: Any = dataset.covering_windows()
        if training:
            sampler = RandomWindows(dataset, self.order_)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=dataset.collate,
            num_workers=settings.n_jobs,
            persistent_workers=settings.n_jobs > 0,
            pin_memory=torch.device(settings.device).type == "cuda",
            # Seeds reading processes, once or at every epoch: it must be neither
            # torch's global generator nor the one of the order.
            generator=torch.Generator(),
        )

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> _Net:
        """Make AdamW; decay weight matrices, not norms, biases and positions."""
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
        )
        return self

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Apply the task to one batch."""
        kind = torch.device(self.device).type
        with torch.autocast(
            kind, torch.bfloat16, enabled=self.settings_.mixed_precision
        ):
            return self.module_(**to_tensor(x, self.device))

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Let the task judge its predictions, as float32 or better."""
        return self.module_.loss(y_pred, to_tensor(y_true, self.device))


class _CosineSchedule(Callback):
    """Warm up linearly, then decay along half a cosine, anew for each stage."""

    def __init__(self, steps_per_epoch: int, max_epochs: int, n_cycles: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs
        self.n_cycles = n_cycles

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **_: Any) -> None:
        """Set the learning rate of this step."""
        if not training:
            return
        epoch = len(net.history) - 1
        cycle = epoch * self.n_cycles // self.max_epochs
        first, end = (
            math.ceil(c * self.max_epochs / self.n_cycles) for c in (cycle, cycle + 1)
        )
        # the history has already opened this batch
        batch = len(net.history[-1]["batches"]) - 1
        step = (epoch - first) * self.steps_per_epoch + batch
        factor = self.factor(step, (end - first) * self.steps_per_epoch)
        for group, scale in zip(net.optimizer_.param_groups, net.scales_, strict=True):
            group["lr"] = net.lr * scale * factor

    @staticmethod
    def factor(step: int, total: int) -> float:
        """Return the share of the peak learning rate at `step` of `total`."""
        warmup = max(int(WARMUP_SHARE * total), 1)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(total - warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class _Stages(Callback):
    """Train one objective after the other, for equal shares of the epochs."""

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def on_epoch_begin(self, net: NeuralNet, **_: Any) -> None:
        """Name the objective of this epoch."""
        stages = net.module_.stages
        if net.module_.staged:
            epoch = min(len(net.history) - 1, self.max_epochs - 1)
            net.module_.stage = stages[epoch * len(stages) // self.max_epochs]


class _Finite(Callback):
    """Stop with an explanation when the loss is no longer a number."""

    def __init__(self, description: str, lr: float) -> None:
        self.description = description
        self.lr = lr

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Check the losses of this epoch."""
        for name in ("train_loss", "valid_loss"):
            loss = net.history[-1].get(name, 0.0)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"The loss of {self.description} became {loss} ({name}) in epoch "
                    f"{len(net.history)}. Lower `lr` (now {self.lr:g}), set "
                    "`standardize='zscore'`, use dtype='float32' instead of mixed "
                    "precision, or look for extreme values in the data."
                )


class _BestWeights(Callback):
    """Keep the weights of the epoch with the lowest validation loss."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.n_worse = 0
        self.weights: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Compare this epoch with the best one."""
        loss = net.history[-1].get("valid_loss")
        if loss is None:
            return
        if loss < self.loss:
            self.loss, self.n_worse = loss, 0
            self.weights = {
                name: value.detach().clone()
                for name, value in net.module_.state_dict().items()
            }
        else:
            self.n_worse += 1

    def restore(self, net: NeuralNet) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            net.module_.load_state_dict(self.weights)


class _Patience(Callback):
    """Stop when the validation loss has not improved for a while."""

    def __init__(self, best: _BestWeights, patience: int | None) -> None:
        self.best = best
        self.patience = patience

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """End training if patience is over."""
        if self.patience is not None and self.best.n_worse >= self.patience:
            raise StopTraining


class _ProgressBar(Callback):
    """Show epochs, losses and the time left."""

    def __init__(self, max_epochs: int, description: str) -> None:
        self.max_epochs = max_epochs
        self.description = description

    def on_train_begin(self, net: NeuralNet, **_: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(
            total=self.max_epochs,
            initial=len(net.history),
            desc=self.description,
            unit="epoch",
            leave=False,
        )

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Advance by one epoch."""
        losses = {
            name: f"{net.history[-1][name]:.3f}"
            for name in ("train_loss", "valid_loss")
            if name in net.history[-1]
        }
        self.bar.set_postfix(losses, refresh=False)
        self.bar.update()

    def on_train_end(self, net: NeuralNet, **_: Any) -> None:
        """Close the bar."""
        self.bar.close()


class _Checkpoint(Callback):
    """Keep the whole state of training after each epoch in one file.

    A killed fit continues to the same bits: weights, best weights, optimizer,
    both generators and the history are restored.
    """

    def __init__(
        self, path: Path | None, best: _BestWeights, patience: int | None
    ) -> None:
        self.path = path
        self.best = best
        self.patience = patience

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Write the state, atomically."""
        self._save(net, finished=False)

    def finish(self, net: NeuralNet) -> None:
        """Mark the fit as complete, so that repeating it only loads."""
        self._save(net, finished=True)

    def restore(self, net: NeuralNet) -> int:
        """Continue from the file, if there is one; return the epochs done."""
        if self.path is None or not self.path.exists():
            return 0
        tensors, metadata = load_state(self.path)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = value
        try:
            net.module_.load_state_dict(parts["weights"])
            state = net.optimizer_.state_dict()
            state["state"] = _nest(parts.get("optimizer", {}))
            net.optimizer_.load_state_dict(state)
            net.order_.set_state(parts["generators"]["order"])
            net.noise_.set_state(parts["generators"]["noise"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path.name} does not fit this training: {error}. Delete it or "
                "choose another `checkpoint_dir`."
            ) from error
        net.history_ = History(metadata["history"])
        best_loss = metadata["best_loss"]
        self.best.loss = math.inf if best_loss is None else best_loss
        self.best.n_worse = metadata["n_worse"]
        self.best.weights = parts.get("best")
        out_of_patience = self.patience is not None and (
            self.best.n_worse >= self.patience
        )
        done = metadata["finished"] or out_of_patience
        return net.max_epochs if done else len(net.history)

    def _save(self, net: NeuralNet, *, finished: bool) -> None:
        """Write everything that the rest of the training depends on."""
        if self.path is None:
            return
        tensors = _prefixed("weights", net.module_.state_dict())
        tensors |= _prefixed("best", self.best.weights or {})
        for index, moments in net.optimizer_.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer/{index}", moments)
        tensors["generators/order"] = net.order_.get_state()
        tensors["generators/noise"] = net.noise_.get_state()
        metadata = {
            "history": net.history.to_list(),
            "best_loss": self.best.loss if math.isfinite(self.best.loss) else None,
            "n_worse": self.best.n_worse,
            "finished": finished,
        }
        save_state(self.path, tensors, metadata)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put `prefix` before every name."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _nest(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Turn names such as ``"3/exp_avg"`` into the optimizer's nested state."""
    nested: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, _, key = name.partition("/")
        nested.setdefault(int(index), {})[key] = value
    return nested


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
