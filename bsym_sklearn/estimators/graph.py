"""A fitted estimator as one torch module, from scans as they are to what it says.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bsym_sklearn.data.checks import CONSTANT_TOLERANCE
from bsym_sklearn.data.scaling import ROUNDING, ConnectomeScaler, RegionScaler
from bsym_sklearn.estimators.classifier import BrainSymphonyClassifier
from bsym_sklearn.estimators.embedder import BrainSymphonyEmbedder
from bsym_sklearn.estimators.regressor import BrainSymphonyRegressor
from bsym_sklearn.training.inference import Batch


class Output(NamedTuple):
    """What an estimator says of a scan.

    Parameters
    ----------
    name : str
        One word.
    columns : list
        Names of the numbers in a row.
    model : nn.Module
        Trained.
    read : callable
        From `model`, or a copy, and a batch to a tensor with one row per scan.
    """

    name: str
    columns: list[Any]
    model: nn.Module
    read: Callable[[nn.Module, Batch], Tensor]


def output_of(estimator: Any) -> Output:
    """Return what an estimator says, and how.

    Parameters
    ----------
    estimator : BrainSymphonyEmbedder, BrainSymphonyClassifier or \
BrainSymphonyRegressor
        Fitted.

    Returns
    -------
    Output

    Raises
    ------
    TypeError
        If it is none of the three BrainSymphony estimators.

    Examples
    --------
    >>> output_of("mean_mlp")
    Traceback (most recent call last):
    TypeError: A graph needs a BrainSymphony estimator. Got a str.
    """
    if isinstance(estimator, BrainSymphonyEmbedder):
        return Output(
            "embedding",
            estimator.get_feature_names_out().tolist(),
            estimator.backbone_,
            lambda model, batch: estimator._pool(model(**batch, decode=False).fused),
        )
    if isinstance(estimator, BrainSymphonyClassifier):
        return Output(
            "probabilities",
            estimator.classes_.tolist(),
            estimator.net_.module_,
            lambda model, batch: model(**batch).double().softmax(1),
        )
    if isinstance(estimator, BrainSymphonyRegressor):
        center, scale = estimator.y_mean_, estimator.y_scale_
        return Output(
            "prediction",
            ["prediction"],
            estimator.net_.module_,
            lambda model, batch: model(**batch).double() * scale + center,
        )
    raise TypeError(
        f"A graph needs a BrainSymphony estimator. Got a {type(estimator).__name__}."
    )


class ScanGraph(nn.Module):
    """Scale scans of one window, apply the model and return what it says of them.

    The operations of the estimator's own prediction, in torch alone: scaling in double
    precision, the model in its own.

    Parameters
    ----------
    estimator : BrainSymphonyEmbedder, BrainSymphonyClassifier or \
BrainSymphonyRegressor
        Fitted. Its weights are copied to the CPU.
    output : Output
        What to return of a scan.
    modalities : tuple of {"fmri", "sc"}
        What the scans have. Branches of the model for others are left out.
    scaled : bool, default=False
        Whether the scans come scaled.

    Examples
    --------
    >>> import numpy as np
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> Z = model.fit_transform(X)
    >>> scans = {name: torch.tensor(np.stack(X[name])) for name in ("fmri", "sc")}
    >>> out = ScanGraph(model, output_of(model), ("fmri", "sc"))(**scans)
    >>> bool(np.allclose(out.detach(), Z, atol=1e-5))
    True
    """

    def __init__(
        self,
        estimator: Any,
        output: Output,
        modalities: tuple[str, ...],
        *,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.read = output.read
        self.model = copy.deepcopy(output.model).cpu().eval()
        _drop_unused(getattr(self.model, "backbone", self.model), modalities)
        self.dtype = next(self.model.parameters()).dtype
        self.masks_constant = estimator.constant_regions == "mask"
        fitted = estimator.preprocessing_
        self.fmri_scaling: nn.Module = nn.Identity()
        self.sc_scaling: nn.Module = nn.Identity()
        if not scaled and fitted.fmri_scaler is not None:
            self.fmri_scaling = SeriesScaling(fitted.fmri_scaler, fitted.window)
        if not scaled and fitted.sc_scaler is not None:
            self.sc_scaling = ConnectomeScaling(fitted.sc_scaler)

    def forward(self, fmri: Tensor | None = None, sc: Tensor | None = None) -> Tensor:
        """Return one row per scan.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R) or None
            Series of one window each, at the repetition time of the model.
        sc : Tensor of shape (B, R, R) or None
            Connectomes.

        Returns
        -------
        Tensor of shape (B, n_columns)
        """
        batch: Batch = {}
        if fmri is not None:
            series = self.fmri_scaling(fmri.double()).to(self.dtype)
            batch["fmri"] = series
            if self.masks_constant:
                mask = constant_regions(series.double()).unsqueeze(1)
                batch["fmri_mask"] = mask.expand_as(series)
        if sc is not None:
            batch["sc"] = self.sc_scaling(sc.double()).to(self.dtype)
        return self.read(self.model, batch)


class SeriesScaling(nn.Module):
    """What a fitted :class:`~bsym_sklearn.data.RegionScaler` does, in torch.

    Parameters
    ----------
    scaler : RegionScaler
        Fitted.
    window : int
        Time points T.

    Examples
    --------
    >>> import numpy as np
    >>> scaler = RegionScaler().fit([np.eye(2)])
    >>> SeriesScaling(scaler, 2)(torch.tensor([[[1.0, 5.0], [3.0, 5.0]]]))
    tensor([[[-1.,  0.],
             [ 1.,  0.]]])
    """

    center: Tensor
    scale: Tensor

    def __init__(self, scaler: RegionScaler, window: int) -> None:
        super().__init__()
        self.by_itself = scaler.per == "scan" and window > 1
        self.robust = scaler.method == "robust"
        if not self.by_itself:
            self.register_buffer("center", torch.tensor(scaler.center_))
            self.register_buffer("scale", torch.tensor(scaler.scale_))

    def forward(self, series: Tensor) -> Tensor:
        """Return `series` (B, T, R) scaled, zero where a region never changes."""
        center, scale = self._statistics(series)
        varies = (scale > 0) & ~constant_regions(series).unsqueeze(1)
        scaled = (series - center) / torch.where(varies, scale, 1.0)
        return torch.where(varies, scaled, 0.0)

    def _statistics(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Return center and scale, (B, 1, R) or (R,)."""
        if not self.by_itself:
            return self.center, self.scale
        scale = series.std(1, correction=0, keepdim=True)
        if not self.robust:
            return series.mean(1, keepdim=True), scale
        lower, center, upper = quartiles(series).split(1, dim=1)
        scale = torch.where(upper > lower, upper - lower, scale)
        return center, torch.where(scale > ROUNDING * center.abs(), scale, 0.0)


class ConnectomeScaling(nn.Module):
    """What a fitted :class:`~bsym_sklearn.data.ConnectomeScaler` does, in torch.

    Parameters
    ----------
    scaler : ConnectomeScaler
        Fitted; it keeps no diagonal and symmetrises nothing.

    Examples
    --------
    >>> import numpy as np
    >>> scaler = ConnectomeScaler(method="linear").fit([np.array([[0, 2], [2, 0]])])
    >>> ConnectomeScaling(scaler)(torch.tensor([[[9.0, 4.0], [4.0, 9.0]]]))
    tensor([[[0., 2.],
             [2., 0.]]])
    """

    def __init__(self, scaler: ConnectomeScaler) -> None:
        super().__init__()
        self.logarithmic = scaler.method == "log"
        self.scale, self.spread = float(scaler.scale_), float(scaler.spread_)

    def forward(self, sc: Tensor) -> Tensor:
        """Return `sc` (B, R, R) scaled, its diagonal zero."""
        itself = torch.eye(sc.shape[-1], dtype=torch.bool, device=sc.device)
        magnitudes = sc.masked_fill(itself, 0).abs() / self.scale
        if self.logarithmic:
            magnitudes = magnitudes.log1p()
        return magnitudes * sc.sign() / self.spread


def _drop_unused(backbone: Any, modalities: tuple[str, ...]) -> None:
    """Take branches of other modalities off `backbone`, and all decoders."""
    if "fmri" not in modalities:
        backbone.fmri = None
    elif backbone.fmri is not None:
        backbone.fmri.dynamics = backbone.fmri.context.decoder = None
        backbone.fmri.perceiver.head = None
    if "sc" not in modalities:
        backbone.sc = None
    elif backbone.sc is not None:
        backbone.sc.edges = None


def constant_regions(series: Tensor) -> Tensor:
    """Say which regions never change, as `find_constant_regions` does.

    Parameters
    ----------
    series : Tensor of shape (B, T, R)
        In double precision.

    Returns
    -------
    bool Tensor of shape (B, R)

    Examples
    --------
    >>> constant_regions(torch.tensor([[[1.0, 5.0], [2.0, 5.0]]]))
    tensor([[False,  True]])
    """
    if series.shape[1] < 2:
        return torch.zeros_like(series[:, 0], dtype=torch.bool)
    largest = series.abs().amax((1, 2)).unsqueeze(1)
    return series.amax(1) - series.amin(1) <= CONSTANT_TOLERANCE * largest


def quartiles(series: Tensor) -> Tensor:
    """Return the three quartiles over time, (B, 3, R), as `numpy.quantile` does.

    Examples
    --------
    >>> quartiles(torch.tensor([[[0.0], [4.0], [1.0], [2.0]]]))[0, :, 0]
    tensor([0.7500, 1.5000, 2.5000])
    """
    ordered = series.sort(1).values
    last = series.shape[1] - 1
    found = []
    for share in (0.25, 0.5, 0.75):
        below, part = divmod(share * last, 1)
        low, high = ordered[:, int(below)], ordered[:, min(int(below) + 1, last)]
        found.append(low + (high - low) * part)
    return torch.stack(found, dim=1)
