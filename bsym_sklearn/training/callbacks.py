"""What happens around steps and epochs: rates, stages, checkpoints, stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackContext
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History
from torch import Tensor
from tqdm.auto import tqdm

from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.checkpoints import load_state, save_state

WARMUP_SHARE = 0.1  # of all steps


class StopTraining(Exception):  # noqa: N818  (a signal, not an error)
    """Raised by a callback to end the fit loop cleanly.

    Not KeyboardInterrupt, which skorch uses: a user's Ctrl-C must stop a
    cross-validation, not just the current fold.
    """


class CosineSchedule(Callback):
    """Warm up linearly, then decay along half a cosine, anew for each stage.

    Parameters
    ----------
    steps_per_epoch, max_epochs : int
        Length of the training.
    n_cycles : int
        Stages, of equal shares of the epochs.
    """

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


class Stages(Callback):
    """Train one objective after the other, for equal shares of the epochs.

    Parameters
    ----------
    max_epochs : int
        Length of the training.
    """

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def on_epoch_begin(self, net: NeuralNet, **_: Any) -> None:
        """Name the objective of this epoch."""
        stages = net.module_.stages
        if net.module_.staged:
            epoch = min(len(net.history) - 1, self.max_epochs - 1)
            net.module_.stage = stages[epoch * len(stages) // self.max_epochs]


class Finite(Callback):
    """Stop with an explanation when loss or weights are no longer numbers.

    Parameters
    ----------
    description : str
        What is trained.
    lr : float
        Peak learning rate.
    """

    def __init__(self, description: str, lr: float) -> None:
        self.description = description
        self.lr = lr

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Check the losses of this epoch, and what its last step has left."""
        for name in ("train_loss", "valid_loss"):
            loss = net.history[-1].get(name, 0.0)
            if not math.isfinite(loss):
                self._stop(f"loss of {self.description} became {loss} ({name})", net)
        finite = [weight.isfinite().all() for weight in net.module_.parameters()]
        if finite and not torch.stack(finite).all():
            self._stop(f"weights of {self.description} became NaN or infinite", net)

    def _stop(self, what: str, net: NeuralNet) -> NoReturn:
        """Raise with what to do."""
        raise FloatingPointError(
            f"The {what} in epoch {len(net.history)}. Lower `lr` (now {self.lr:g}), "
            "set `standardize='zscore'`, use dtype='float32' instead of mixed "
            "precision, or look for extreme values in the data."
        )


class BestWeights(Callback):
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


class Patience(Callback):
    """Stop when the validation loss has not improved for a while.

    Parameters
    ----------
    best : BestWeights
        Counts the epochs without improvement.
    patience : int or None
        How many to allow; None allows all.
    """

    def __init__(self, best: BestWeights, patience: int | None) -> None:
        self.best = best
        self.patience = patience

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """End training if patience is over."""
        if self.patience is not None and self.best.n_worse >= self.patience:
            raise StopTraining


class ProgressBar(Callback):
    """Show epochs, losses and the time left.

    Parameters
    ----------
    max_epochs : int
        Length of the training.
    description : str
        What is trained.
    """

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


class Checkpoint(Callback):
    """Keep the whole state of training in one file, after each epoch and in long ones.

    A killed fit continues to the same bits: weights, best weights, optimizer,
    both generators and the history are restored, and the batches of an epoch that
    are done are not done again. Of several processes, the first one writes.

    Parameters
    ----------
    path : Path or None
        File; None keeps nothing.
    best : BestWeights
        Kept too.
    patience : int or None
        As in :class:`Patience`: a fit that ran out of it is not continued.
    seconds : float
        To wait, at most, until the state is kept within an epoch.
    """

    def __init__(
        self,
        path: Path | None,
        best: BestWeights,
        patience: int | None,
        seconds: float,
    ) -> None:
        self.path = path
        self.best = best
        self.patience = patience
        self.seconds = seconds

    def on_train_begin(self, net: NeuralNet, **_: Any) -> None:
        """Start the clock."""
        self.saved = time.monotonic()

    def on_batch_end(self, net: NeuralNet, training: bool = False, **_: Any) -> None:
        """Write the state in the middle of an epoch, if the last time is long ago."""
        if self.path is None or not training:
            return
        due = time.monotonic() - self.saved >= self.seconds
        if net.processes_.any(due):
            net.settle_losses("train")
            self._save(net, n_epochs=len(net.history) - 1)

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Write the state, atomically."""
        self._save(net, n_epochs=len(net.history))

    def finish(self, net: NeuralNet) -> None:
        """Mark the fit as complete, so that repeating it only loads."""
        self._save(net, n_epochs=len(net.history), finished=True)

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
        net.done_ = metadata.get("batches", [])  # not in files of older versions
        best_loss = metadata["best_loss"]
        self.best.loss = math.inf if best_loss is None else best_loss
        self.best.n_worse = metadata["n_worse"]
        self.best.weights = parts.get("best")
        out_of_patience = self.patience is not None and (
            self.best.n_worse >= self.patience
        )
        done = metadata["finished"] or out_of_patience
        return net.max_epochs if done else len(net.history)

    def _save(self, net: NeuralNet, *, n_epochs: int, finished: bool = False) -> None:
        """Write everything that the rest of the training depends on."""
        self.saved = time.monotonic()
        if self.path is None or not net.processes_.is_first:
            return
        history = net.history.to_list()
        begun = history[n_epochs:]  # an epoch that is not over, or none
        tensors = _prefixed("weights", net.module_.state_dict())
        tensors |= _prefixed("best", self.best.weights or {})
        for index, moments in net.optimizer_.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer/{index}", moments)
        # in the middle of an epoch its order is drawn again
        order = net.epoch_order_ if begun else net.order_.get_state()
        tensors["generators/order"] = order
        tensors["generators/noise"] = net.noise_.get_state()
        metadata = {
            "history": history[:n_epochs],
            "batches": begun[0]["batches"] if begun else [],
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


class EpochCallbacks(Callback):
    """Open a scikit-learn callback task per epoch and stop when one asks for it.

    Parameters
    ----------
    estimator : BaseEstimator
        Being fitted.
    context : CallbackContext
        Of its fit.
    X, y : Any
        What fit was called with.
    """

    def __init__(
        self, estimator: BaseEstimator, context: CallbackContext, X: Any, y: Any
    ) -> None:
        self.estimator = estimator
        self.context = context
        self.X = X
        self.y = y

    def on_epoch_begin(self, net: NeuralNet, **_: Any) -> None:
        """Tell scikit-learn that an epoch begins."""
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.estimator, X=self.X, y=self.y)

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Tell scikit-learn that an epoch ended; it may ask to stop."""
        fitted = {k: v for k, v in vars(self.estimator).items() if k.endswith("_")}
        stop = self.epoch.call_on_fit_task_end(
            estimator=self.estimator,
            X=self.X,
            y=self.y,
            reconstruction_attributes=fitted | {"net_": net},
        )
        # Scoring a callback's copy of the estimator has set the net to evaluation;
        # the next epoch sets it back to training.
        if net.processes_.any(stop):
            raise StopTraining


class UpdateTarget(Callback):
    """Let the target encoder follow the encoder after each step, as published."""

    def on_train_begin(self, net: NeuralNet, X: Any = None, **_: Any) -> None:
        """Count the steps to come."""
        self.n_steps = math.ceil(len(X) / net.batch_size) * net.max_epochs

    def on_batch_end(self, net: NeuralNet, training: bool = False, **_: Any) -> None:
        """Move the target encoder by what the schedule says."""
        if training:
            per_epoch = self.n_steps // net.max_epochs
            epoch, batch = len(net.history), len(net.history[-1]["batches"])
            done = (epoch - 1) * per_epoch + batch
            net.module_.backbone.update_target(min(done / self.n_steps, 1.0))
