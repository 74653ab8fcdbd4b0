"""A fitted BrainSymphony estimator as a function of one batch, to be explained.

Shape letters: B windows, R regions, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.estimators.backbone import BaseBrainSymphony
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.objectives import SupervisedTask
from bsym_sklearn.training.scans import Batch, Window


class Explained:
    """What a model says about a batch, differentiable in the batch.

    Parameters
    ----------
    model : BrainSymphony estimator
        Fitted.
    who : str
        Name used in errors.

    Raises
    ------
    TypeError
        If it is another estimator.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=0, random_state=0)
    >>> Explained(model.fit(X), "explain").kind
    'embedding'
    """

    def __init__(self, model: Any, who: str) -> None:
        if not isinstance(model, BaseBrainSymphony):
            raise TypeError(
                f"{who} needs a BrainSymphony estimator. Got {type(model).__name__}. "
                "For others use sklearn.inspection.permutation_importance."
            )
        check_is_fitted(model)
        self.model: Any = model
        self.module = model.net_.module_
        is_supervised = isinstance(self.module, SupervisedTask)
        self.kind = self.module.kind if is_supervised else "embedding"

    def modalities(self, modality: str | None) -> tuple[str, ...]:
        """Return one modality of the model, or with None all of them."""
        if modality is None:
            return self.model.modalities_
        check_choice(modality, self.model.modalities_, "modality")
        return (modality,)

    def targets(self, X: Any, y: ArrayLike | None, n_scans: int) -> np.ndarray:
        """Return the output to explain of each scan, (n,): the class in `y`."""
        if self.kind != "classification":
            return np.zeros(n_scans, dtype=int)
        classes = self.model.classes_
        labels = self.model.predict(X) if y is None else np.asarray(y)
        if labels.shape != (n_scans,) or not np.isin(labels, classes).all():
            raise ValueError(
                f"`y` needs one of the classes {classes.tolist()} per scan. Got an "
                f"array of shape {labels.shape} for {n_scans} scans, with "
                f"{sorted(map(str, np.unique(labels)))[:5]}."
            )
        return np.searchsorted(classes, labels)

    def outputs(self, batch: Batch, sc_mask: Tensor | None = None) -> Tensor:
        """Return what is explained.

        Parameters
        ----------
        batch : dict of str to Tensor
            Keyword arguments of the model.
        sc_mask : bool Tensor of shape (B, R, R) or None
            True where an edge is hidden.

        Returns
        -------
        Tensor of shape (B, C)
            The log-odds of each class, the value in the units of the target, or
            the features of `transform`.
        """
        backbone = self.module.backbone
        if self.kind == "embedding":
            return self.model._pool(
                backbone(**batch, sc_mask=sc_mask, decode=False).fused
            )
        head = self.module.head
        flags = ("padding", "has_fmri", "has_sc")
        raw = head(
            backbone(**batch, sc_mask=sc_mask, only=head.needs, decode=False),
            *(batch.get(name) for name in flags),
        )
        if self.kind == "classification":
            return log_odds(raw)
        return raw * self.model.y_scale_ + self.model.y_mean_

    def windows(
        self, cohort: Cohort, apply: Callable[[Batch, list[Window]], Any]
    ) -> Any:
        """Yield the windows of each batch and what `apply` makes of it."""
        model = self.model
        return model._loop().iterate(self.module, model._dataset(cohort), apply)


def log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of each class against all others.

    Parameters
    ----------
    logits : Tensor of shape (B, C)
        Of C >= 2 classes.

    Returns
    -------
    Tensor of shape (B, C)

    Examples
    --------
    >>> import torch
    >>> log_odds(torch.tensor([[3.0, 1.0]]))
    tensor([[ 2., -2.]])
    """
    n_classes = logits.shape[1]
    itself = torch.eye(n_classes, dtype=torch.bool, device=logits.device)
    others = logits.unsqueeze(1).expand(-1, n_classes, -1)
    return logits - others.masked_fill(itself, -torch.inf).logsumexp(-1)


def select(values: Tensor, chosen: Tensor) -> Tensor:
    """Return one output per window.

    Parameters
    ----------
    values : Tensor of shape (B, C)
        Outputs.
    chosen : int64 Tensor of shape (B,)
        Which one of each window.

    Returns
    -------
    Tensor of shape (B,)

    Examples
    --------
    >>> import torch
    >>> select(torch.tensor([[3.0, 1.0]]), torch.tensor([1]))
    tensor([1.])
    """
    return values.gather(1, chosen.to(values.device).unsqueeze(1)).squeeze(1)
