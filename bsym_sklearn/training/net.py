"""The training loop, composed from skorch; the only importer of NeuralNet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
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
from bsym_sklearn.training.distributed import (
    Processes,
    cuda_of_process,
    find_processes,
)
from bsym_sklearn.training.forks import renew_autograd
from bsym_sklearn.training.memory import MicroBatch
from bsym_sklearn.training.scans import (
    Batch,
    RandomWindows,
    WindowDataset,
    is_cuda,
    make_loader,
    to_device,
)
from bsym_sklearn.training.settings import TrainingSettings

GRADIENT_CLIP_NORM = 1.0
ADAM_BETAS = (0.9, 0.95)  # the usual choice for transformers


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

    In a process that was launched with others, all train one task together: see
    :mod:`bsym_sklearn.training.distributed`.

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
    ConnectionError
        If another process of this fit has stopped.
    """
    renew_autograd()
    processes = find_processes()
    best = BestWeights()
    # every stage gets its epochs, whatever the loss of all stages does meanwhile
    patience = None if task.staged else settings.patience
    checkpoint = Checkpoint(
        settings.checkpoint, best, patience, settings.checkpoint_seconds
    )
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
    if settings.verbose and processes.is_first:
        # before all, so that it is open whatever the others raise
        loop.insert(0, ProgressBar(settings.max_epochs, description))
    net = make_net(task, settings, valid_set=valid_set, lr_scales=lr_scales)
    net.callbacks = loop
    net.initialize_callbacks()
    net.seed_ = seed
    net.order_ = torch.Generator().manual_seed(seed)
    net.noise_ = torch.Generator(settings.device).manual_seed(seed + 1)
    with processes.together():
        net.share_with(processes)
        if resume_from is not None:
            _go_on(net, resume_from)
            epochs = settings.max_epochs
        else:
            epochs = settings.max_epochs - checkpoint.restore(net)
        processes.require_same(_what_is_trained(net, [train_set, valid_set]))
        processes.copy_from_first([*task.parameters(), *task.buffers()])
        _fit(net, train_set, epochs)
        best.restore(net)
        checkpoint.finish(net)
    # Data, generators, callbacks and processes belong to the fit, not to the net.
    net.train_split = None
    net.callbacks, net.callbacks_ = None, []
    net.order_ = net.noise_ = net.epoch_order_ = None
    net.processes_ = Processes()
    return net


def _fit(net: _Net, train_set: WindowDataset, epochs: int) -> None:
    """Run the epochs; leave nothing of the fit in the task."""
    task = net.module_
    set_generator(task, net.noise_)
    task.generator = net.noise_
    try:
        net.notify("on_train_begin", X=train_set, y=None)
        with compiled(task) if net.settings_.compile else nullcontext():
            net.fit_loop(train_set, None, epochs=epochs)
    except StopTraining:
        pass
    finally:
        set_generator(task, None)
        task.generator = None
        task.stage = None
        net.notify("on_train_end", X=train_set, y=None)


def _go_on(net: _Net, earlier: NeuralNet) -> None:
    """Continue the optimizer and the history of an earlier net, at this one's rate."""
    net.optimizer_.load_state_dict(earlier.optimizer_.state_dict())
    for group, scale in zip(net.optimizer_.param_groups, net.scales_, strict=True):
        group["lr"] = net.lr * scale
    net.history_ = History(earlier.history)


def _what_is_trained(net: _Net, sets: Sequence[WindowDataset | None]) -> bytes:
    """Return what processes have to have in common, as they begin."""
    settings = net.settings_
    shapes = [(name, *p.shape) for name, p in net.module_.named_parameters()]
    numbers = (settings.max_epochs, settings.batch_size, settings.micro_batch_size)
    rates = (settings.lr, settings.weight_decay, settings.patience)
    done = (settings.checkpoint is None, len(net.history), len(net.done_))
    arrays = [net.order_.get_state().numpy()]
    for part in sets:
        if part is not None:
            arrays += [part.rows, part.reader.lengths]
            tensors = (part.targets, part.weights)
            arrays += [x.detach().cpu().numpy() for x in tensors if x is not None]
    text = repr((net.seed_, numbers, rates, done, shapes))
    return b"".join([text.encode(), *(array.tobytes() for array in arrays)])


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
    net.share_with(Processes())
    net.scales_by_name_ = dict(lr_scales or {})
    return net.initialize()


class _Net(NeuralNet):
    """Skorch's loop over our tasks, windows and generators.

    What the first part of a batch draws, masks and dropout, comes from one stream,
    `noise_`: it is all there is where batches are computed at once. Every other part
    has a stream of its own, so that it draws the same in whatever process it is.
    """

    seed_ = 0
    step_ = (0, 0)  # epochs begun, batches begun in this one

    def share_with(self, processes: Processes) -> None:
        """Compute the own part of every batch, with these processes."""
        self.processes_ = processes
        self.done_: list[dict[str, Any]] = []  # batches of an epoch to go on with
        self.waiting_: list[Tensor] = []  # losses that are not in the history yet
        at_once = self.settings_.micro_batch_size
        share = math.ceil(self.batch_size / processes.count)
        automatic = at_once == "auto"
        self.dealt_ = MicroBatch(
            share if automatic or at_once is None else min(at_once, share)
        )
        self.micro_batch_ = MicroBatch("auto") if automatic else self.dealt_

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
            own=lambda n: self.processes_.own(n, self.dealt_.part_size(n)),
            persistent=True,
        )

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **_: Any
    ) -> None:
        """Do the steps of an epoch, without waiting for the device in between."""
        if iterator is None:
            return
        batches = iterator.batch_sampler
        batches.first = 0
        if training:
            self.epoch_order_ = self.order_.get_state()
            batches.first = len(self.done_)
            self.history[-1]["batches"].extend(self.done_)
            self.done_ = []
        sizes = batches.sizes()
        for batch, n_scans in zip(iterator, sizes, strict=True):
            self.notify("on_batch_begin", batch=batch, training=training)
            self.step_ = len(self.history), len(self.history[-1]["batches"])
            step = step_fn(batch, n_scans=n_scans)
            self.waiting_.append(step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", n_scans)
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.settle_losses(prefix)
        self.history.record(f"{prefix}_batch_count", batches.first + len(sizes))
        if training:  # running statistics are those of the first process
            self.processes_.copy_from_first(self.module_.buffers())

    def settle_losses(self, prefix: str) -> None:
        """Bring the losses of the last batches over, and write them down."""
        losses = torch.stack(self.waiting_).tolist() if self.waiting_ else []
        self.waiting_ = []
        records = self.history[-1]["batches"]
        waiting = records[len(records) - len(losses) :]
        values = self.processes_.sum(losses)
        for record, value in zip(waiting, values, strict=True):
            record[f"{prefix}_loss"] = value

    def train_step_single(
        self, batch: tuple[Batch, Batch], n_scans: int | None = None, **_: Any
    ) -> dict[str, Any]:
        """Compute the gradients of one batch, at once or in parts."""
        self._set_training(True)
        inputs, target = (to_device(part, self.device) for part in batch)
        n_own = len(target["row"])
        n_scans = n_own if n_scans is None else n_scans
        if n_own:
            self.micro_batch_.measure(
                n_own,
                lambda n: self._loss_of(inputs, target, slice(n)),
                self.module_,
                inputs.values(),
                self.noise_,
            )

        def step(size: int) -> Tensor:
            total = []
            for loss in self._losses(inputs, target, size, n_scans):
                loss.backward()
                total.append(loss.detach())
                del loss  # and all that it holds, before the next part
            return self._added(total)

        loss = self.micro_batch_.run(
            self._to_cut(n_own, n_scans), step, self.noise_, self._zero_grad_optimizer
        )
        self.processes_.sum_gradients(self.module_.parameters())
        # not the predictions: nobody asks for them, and parts have no common ones
        return {"loss": loss, "y_pred": None}

    def validation_step(
        self, batch: tuple[Batch, Batch], n_scans: int | None = None, **_: Any
    ) -> dict[str, Any]:
        """Compute the loss of one batch, at once or in parts."""
        self._set_training(False)
        inputs, target = (to_device(part, self.device) for part in batch)
        n_own = len(target["row"])
        n_scans = n_own if n_scans is None else n_scans
        size = self.micro_batch_.part_size(self._to_cut(n_own, n_scans))
        with torch.no_grad():
            losses = list(self._losses(inputs, target, size, n_scans))
        return {"loss": self._added(losses), "y_pred": None}

    def _to_cut(self, n_own: int, n_scans: int) -> int:
        """Return how many scans to cut into parts: those of all processes.

        Where memory decides, each process cuts its own.
        """
        return max(n_own, 1) if self.micro_batch_.automatic else n_scans

    def _losses(
        self, inputs: Batch, target: Batch, size: int, n_scans: int
    ) -> Iterator[Tensor]:
        """Yield losses of the own parts of a batch; all parts add up to that of it."""
        n_own = len(target["row"])
        first = self.processes_.own(n_scans, self.dealt_.part_size(n_scans)).start
        for start in range(0, n_own, size):
            part = slice(start, start + size)
            share = len(target["row"][part]) / n_scans
            with self._stream_of(first + start):
                loss = self._loss_of(inputs, target, part)
            yield loss * share

    @contextmanager
    def _stream_of(self, start: int) -> Iterator[None]:
        """Draw for the part of a batch that begins with scan `start`."""
        if start == 0 or not self.module_.training:
            yield
            return
        state = self.noise_.get_state()
        key = np.random.SeedSequence((self.seed_, *self.step_, start))
        self.noise_.manual_seed(int(key.generate_state(1, np.uint64)[0]))
        try:
            yield
        finally:
            self.noise_.set_state(state)

    def _added(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the sum of the losses of the own parts, 0 without any."""
        if not losses:
            return torch.zeros((), device=self.device)
        return torch.stack(losses).sum()  # type: ignore[arg-type]

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
        Of several processes that fit together on one machine, each has its own GPU.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = str(torch.device(device))
    return cuda_of_process() if device == "cuda" else device
