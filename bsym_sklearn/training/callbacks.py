"""Bridge from scikit-learn's callbacks to epochs of training."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.callback import CallbackContext

from bsym_sklearn.training.net import Callback, NeuralNet, StopTraining


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
        if stop:
            raise StopTraining
