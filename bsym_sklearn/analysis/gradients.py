"""Integrated gradients: which points of a series, or edges, an output comes from.

Shape letters: B windows, T time points, R regions, F features.
"""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state, check_scalar
from torch import Tensor

from bsym_sklearn.analysis.explained import Explained, select
from bsym_sklearn.data.cohort import Cohort
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.forks import renew_autograd
from bsym_sklearn.training.scans import Batch, Window

BASELINES = ("shifted", "zero")
MAX_SEED = np.iinfo(np.int32).max


class IntegratedGradients(NamedTuple):
    """Attributions that add up to a difference of outputs.

    Parameters
    ----------
    attributions : list of ndarray or None
        One per scan: (T_i, R) at the repetition time of the model, or (R, R),
        symmetric. None for scans without the modality.
    regions : ndarray of shape (n, R)
        Their sums over time, or over edges (each edge counts half for both ends).
    output, baseline : ndarray of shape (n,)
        What the model says about the scan and about its baseline.
    error : ndarray of shape (n,)
        Completeness: by how much the sum misses ``output - baseline``. Add steps if it
        is large.
    """

    attributions: list[np.ndarray | None]
    regions: np.ndarray
    output: np.ndarray
    baseline: np.ndarray
    error: np.ndarray


def integrated_gradients(
    model: Any,
    X: Any,
    y: ArrayLike | None = None,
    *,
    modality: str = "fmri",
    baseline: str = "shifted",
    n_steps: int = 32,
    n_baselines: int = 1,
    random_state: int | np.random.RandomState | None = 0,
) -> IntegratedGradients:
    r"""Attribute an output to the points of the series, or to the edges.

    With input x, baseline b and output F,

    .. math::
        a_i = (x_i - b_i) \int_0^1
            \frac{\partial F}{\partial x_i}(b + \alpha (x - b)) \, d\alpha,
        \qquad \sum_i a_i = F(x) - F(b)

    by Gauss-Legendre quadrature. F is the log-odds of a class, the value in units of
    the target, or, for an embedder, the features along the line from those of the
    baseline to those of the scan. The other modality stays as it is.

    Parameters
    ----------
    model : BrainSymphony estimator
        Fitted.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    y : array-like of shape (n,) or None, default=None
        Classifiers: the class whose log-odds are explained, by default the predicted
        one. Ignored by others.
    modality : {"fmri", "sc"}, default="fmri"
        What to attribute to. The baseline of a connectome has no edges.
    baseline : {"shifted", "zero"}, default="shifted"
        Of the series. ``"shifted"``: every region's own series, turned round by a
        random lag of its own, which keeps each spectrum and breaks what regions have
        in common. ``"zero"``: the mean of every region, for models with
        ``spatial_tokens="series"`` only: correlations do not change along a line to
        zero, so that nothing could be attributed to them.
    n_steps : int, default=32
        Gradients per baseline.
    n_baselines : int, default=1
        Draws of the shifted baseline to average over.
    random_state : int, RandomState instance or None, default=0
        Draws the lags.

    Returns
    -------
    IntegratedGradients

    Raises
    ------
    TypeError
        If the model is not a BrainSymphony estimator.
    ValueError
        If a parameter is unknown, or the output jumps on the way from the baseline.

    References
    ----------
    .. [1] Sundararajan, Taly & Yan (2017). Axiomatic attribution for deep networks.
       ICML. Equation 1 and Proposition 1.
    .. [2] Erion et al. (2021). Improving performance of deep learning models with
       axiomatic attribution priors and expected gradients. Nature Machine Intelligence
       3, 620-631: several baselines.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> found = integrated_gradients(model.fit(X), X, n_steps=8)
    >>> found.attributions[0].shape, found.regions.shape
    ((30, 5), (6, 5))
    """
    check_choice(baseline, BASELINES, "baseline")
    check_scalar(n_steps, "n_steps", Integral, min_val=1)
    check_scalar(n_baselines, "n_baselines", Integral, min_val=1)
    explained = Explained(model, "integrated_gradients")
    explained.modalities(modality)
    _check_path(model, modality, baseline)
    cohort = model._check_scans(X, reset=False)
    targets = explained.targets(X, y, len(cohort))
    seed = int(check_random_state(random_state).randint(MAX_SEED))
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    path = list(zip((nodes + 1) / 2, weights / 2, strict=True))
    draws = n_baselines if modality == "fmri" and baseline == "shifted" else 1

    renew_autograd()

    def attribute(batch: Batch, windows: list[Window]) -> Any:
        if modality not in batch:
            return None
        with torch.inference_mode(False), torch.enable_grad():
            chosen = torch.tensor([targets[row] for row, _ in windows])
            batch = {name: x.clone() for name, x in batch.items()}
            results = []
            for draw in range(draws):
                start = torch.zeros_like(batch[modality])
                if modality == "fmri" and baseline == "shifted":
                    start = _shift(batch, windows, (seed, draw))
                results.append(_follow(explained, batch, modality, start, chosen, path))
        return [
            torch.stack(part).mean(0).double().cpu()
            for part in zip(*results, strict=True)
        ]

    return _collect(explained, cohort, modality, attribute)


def _check_path(model: Any, modality: str, baseline: str) -> None:
    """Refuse paths on which the output jumps, as the sums would not be complete."""
    config = model.backbone_.config
    if modality == "fmri":
        smooth = baseline == "shifted" or config["spatial_tokens"] == "series"
        needs, advice = 'spatial_tokens="series"', 'use baseline="shifted"'
    else:
        first_hop = config["edge_weights"] == "first_hop"
        smooth = first_hop and config["signed_attention"] == "continuous"
        needs = 'edge_weights="first_hop" and signed_attention="continuous"'
        advice = "use occlusion"
    if not smooth:
        raise ValueError(
            f"integrated_gradients needs a model with {needs} to go to zero in "
            f"{modality!r} without a jump. Got another. Fit such a model or {advice}."
        )


def _shift(batch: Batch, windows: list[Window], seed: tuple[int, int]) -> Tensor:
    """Return the series (B, T, R), each turned round by a lag of its own."""
    fmri = batch["fmri"]
    n_times, n_regions = fmri.shape[1:]
    times = np.arange(n_times)
    index = np.empty(fmri.shape, dtype=np.int64)
    padding = batch.get("padding")
    for i, window in enumerate(windows):
        length = n_times if padding is None else int((~padding[i]).sum())
        # the same for a window whatever batch it is in
        lags = np.random.default_rng((*seed, *window)).integers(1, length, n_regions)
        turned = (times[:, None] + lags) % length
        index[i] = np.where(times[:, None] < length, turned, times[:, None])
    return fmri.gather(1, torch.from_numpy(index).to(fmri.device))


def _follow(
    explained: Explained,
    batch: Batch,
    modality: str,
    start: Tensor,
    chosen: Tensor,
    path: list[tuple[float, float]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return attributions, and the outputs (B,) at the end and at the start."""
    end = batch[modality]
    with torch.no_grad():
        first, last = (explained.outputs({**batch, modality: x}) for x in (start, end))
    score = partial(select, chosen=chosen)
    if explained.kind == "embedding":
        score = partial(_along, torch.nn.functional.normalize(last - first, dim=1))
    slope = torch.zeros_like(end)
    for place, weight in path:
        point = torch.lerp(start, end, place).requires_grad_()
        total = score(explained.outputs({**batch, modality: point})).sum()
        slope += weight * torch.autograd.grad(total, point, materialize_grads=True)[0]
    values = (end - start) * slope
    if modality == "sc":  # an edge stands in the connectome twice
        values = (values + values.mT) / 2
    return values, score(last), score(first)


def _along(direction: Tensor, features: Tensor) -> Tensor:
    """Return where features (B, F) lie along a direction, (B,)."""
    return (features * direction).sum(1)


def _collect(
    explained: Explained, cohort: Cohort, modality: str, attribute: Any
) -> IntegratedGradients:
    """Average attributions over the windows of each scan."""
    n_scans, n_regions = len(cohort), cohort.n_regions
    lengths = explained.model._dataset(cohort).reader.lengths
    if modality == "sc":
        lengths = np.full(n_scans, n_regions)
    values = [
        None if cell is None else np.zeros((length, n_regions))
        for cell, length in zip(getattr(cohort, modality), lengths, strict=True)
    ]
    ends = np.zeros((2, n_scans))
    count = np.zeros(n_scans)
    for windows, found in explained.windows(cohort, attribute):
        if found is None:
            continue
        parts, *outputs = (part.numpy() for part in found)
        for i, (row, first) in enumerate(windows):
            scan = values[row]
            if scan is None:
                continue
            place = scan[first:] if modality == "fmri" else scan
            place[: len(parts[i])] += parts[i][: len(place)]
            ends[:, row] += [output[i] for output in outputs]
            count[row] += 1
    nothing = np.full(n_regions, np.nan)
    with np.errstate(invalid="ignore"):  # scans without the modality: 0 / 0
        output, start = ends / count
    averaged = [
        None if scan is None else scan / n
        for scan, n in zip(values, count, strict=True)
    ]
    regions = np.stack([nothing if v is None else v.sum(axis=0) for v in averaged])
    return IntegratedGradients(
        averaged, regions, output, start, regions.sum(axis=1) - (output - start)
    )
