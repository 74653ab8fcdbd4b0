"""What a prediction rests on: regions hidden in turn, and integrated gradients.

Attention says where a model looks, not what its output depends on (Jain & Wallace
2019). `occlusion` and `integrated_gradients` ask the output itself, and `agreement`
compares the answers.

Shape letters: B windows, T time points, R regions, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.utils import check_random_state
from torch import Tensor

from bsym_sklearn.analysis.explained import Explained, select
from bsym_sklearn.analysis.gradients import IntegratedGradients, integrated_gradients
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.training.scans import Batch, Window

__all__ = ["IntegratedGradients", "agreement", "integrated_gradients", "occlusion"]

DISTANCES = ("euclidean", "cosine")


def occlusion(
    model: Any,
    X: Any,
    y: ArrayLike | None = None,
    *,
    networks: ArrayLike | None = None,
    modality: str | None = None,
    distance: str = "euclidean",
) -> np.ndarray:
    """Hide one region at a time and return what that does to the output.

    A region is hidden as in self-supervised training: its series, its correlations
    and its edges are absent, not zero.

    Parameters
    ----------
    model : BrainSymphony estimator
        Fitted.
    X : cohort of n scans
        See :func:`~bsym_sklearn.data.check_cohort`.
    y : array-like of shape (n,) or None, default=None
        Classifiers: the class whose log-odds are explained, by default the predicted
        one. Ignored by others.
    networks : array-like of str of shape (R,) or None, default=None
        Hide all regions of a network at once instead.
    modality : {"fmri", "sc"} or None, default=None
        Where to hide it. None: in all that the model reads.
    distance : {"euclidean", "cosine"}, default="euclidean"
        Between the features of an embedder with and without a region.

    Returns
    -------
    ndarray of shape (n, R) or (n, N)
        Averaged over windows; networks in the order of their names. Classifiers:
        log-odds lost, so that a positive value speaks for the class. Regressors: the
        same in units of the target. Embedders: the distance, at least 0, that of the
        region's own features included. NaN for scans that lack what would be hidden.

    Raises
    ------
    TypeError
        If the model is not a BrainSymphony estimator.
    ValueError
        If a parameter is unknown, or `y` or `networks` do not fit.

    References
    ----------
    .. [1] Zeiler & Fergus (2014). Visualizing and understanding convolutional
       networks. ECCV. Section 4.2.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> occlusion(model.fit(X), X).shape
    (6, 5)
    """
    check_choice(distance, DISTANCES, "distance")
    explained = Explained(model, "occlusion")
    hidden_in = explained.modalities(modality)
    groups = _groups(networks, model.n_regions_)
    cohort = model._check_scans(X, reset=False)
    targets = explained.targets(X, y, len(cohort))

    def drops(batch: Batch, windows: list[Window]) -> Tensor:
        chosen = torch.tensor([targets[row] for row, _ in windows])
        before = explained.outputs(batch)
        changes = []
        for group in groups:
            seen, sc_mask = _hide(batch, group, hidden_in)
            after = explained.outputs(seen, sc_mask)
            if explained.kind == "embedding":
                changes.append(_distance(before, after, distance))
            else:
                changes.append(select(before - after, chosen))
        return torch.stack(changes, dim=1)

    total = np.zeros((len(cohort), len(groups)))
    count = np.zeros(len(cohort))
    for windows, output in explained.windows(cohort, drops):
        rows = [row for row, _ in windows]
        np.add.at(total, rows, output.double().cpu().numpy())
        np.add.at(count, rows, 1)
    present = [getattr(cohort, m) for m in hidden_in]
    absent = [all(cells[i] is None for cells in present) for i in range(len(cohort))]
    total[absent] = np.nan
    return total / count[:, None]


def agreement(
    maps: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    n_bootstraps: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """Compare maps of importance by the order in which they put the regions.

    Parameters
    ----------
    maps : mapping of str to array-like of shape (n, R)
        At least two, of the same scans, such as incoming attention, occlusion and
        integrated gradients. Compare magnitudes with magnitudes: attention has no sign.
    groups : array-like of shape (n,) or None, default=None
        Participant of each scan; drawn as a whole.
    n_bootstraps : int, default=1000
        Draws of scans with replacement.
    confidence : float, default=0.95
        Of the percentile interval, in (0, 1).
    random_state : int, RandomState instance or None, default=0
        Draws the scans.

    Returns
    -------
    DataFrame, one row per pair
        ``first``, ``second``; ``spearman`` of the maps averaged over scans, in
        [-1, 1], with its interval ``low``, ``high`` over scans; ``within``, the mean
        of the correlations of single scans; ``n_scans`` with both.

    Raises
    ------
    ValueError
        If there are fewer than two maps, or their shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).random((20, 5))
    >>> found = agreement({"attention": x, "squared": x**2, "negative": -x})
    >>> found["within"].tolist()
    [1.0, -1.0, -1.0]
    """
    arrays = {name: np.asarray(values, float) for name, values in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(arrays) < 2 or len(shapes) > 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            "agreement needs at least two maps of one shape (n, R). Got "
            f"{ {name: array.shape for name, array in arrays.items()} }."
        )
    n_scans = next(iter(shapes))[0]
    persons = np.arange(n_scans) if groups is None else np.asarray(groups)
    rng = check_random_state(random_state)
    rows = []
    for first, second in combinations(arrays, 2):
        both = np.isfinite(arrays[first] + arrays[second]).all(axis=1)
        if not both.any():
            raise ValueError(
                f"agreement needs a scan with {first!r} and {second!r}. Got none "
                "without NaN. Leave one of them out."
            )
        a, b = arrays[first][both], arrays[second][both]
        _, codes = np.unique(persons[both], return_inverse=True)
        counts = _draws(codes, n_bootstraps, rng)  # (n_bootstraps, n)
        resampled = _spearman(counts @ a, counts @ b)
        low, high = np.nanquantile(
            resampled, [(1 - confidence) / 2, (1 + confidence) / 2]
        )
        rows.append(
            {
                "first": first,
                "second": second,
                "spearman": float(_spearman(a.mean(0), b.mean(0))),
                "low": low,
                "high": high,
                "within": float(np.nanmean(_spearman(a, b))),
                "n_scans": int(both.sum()),
            }
        )
    return pd.DataFrame(rows)


def _groups(networks: ArrayLike | None, n_regions: int) -> list[Tensor]:
    """Return the regions (R,) to hide together, one by one or network by network."""
    if networks is None:
        return list(torch.eye(n_regions, dtype=torch.bool))
    names = np.asarray(networks, dtype=str)
    if names.shape != (n_regions,):
        raise ValueError(
            f"occlusion needs one network per region. Got {names.size} for {n_regions}."
        )
    _, codes = np.unique(names, return_inverse=True)
    return [torch.from_numpy(codes == code) for code in range(codes.max() + 1)]


def _hide(
    batch: Batch, group: Tensor, modalities: Sequence[str]
) -> tuple[Batch, Tensor | None]:
    """Return the batch without these regions, and the mask (B, R, R) of their edges."""
    sc_mask = None
    if "fmri" in modalities and "fmri" in batch:
        mask = group.to(batch["fmri"].device).expand_as(batch["fmri"])
        if "fmri_mask" in batch:
            mask = mask | batch["fmri_mask"]
        batch = {**batch, "fmri_mask": mask}
    if "sc" in modalities and "sc" in batch:
        ends = group.unsqueeze(0) | group.unsqueeze(1)
        ends = ends.fill_diagonal_(False).to(batch["sc"].device)  # not an edge
        sc_mask = ends.expand_as(batch["sc"])
    return batch, sc_mask


def _distance(before: Tensor, after: Tensor, kind: str) -> Tensor:
    """Return the distance (B,) of two sets of features (B, F)."""
    if kind == "euclidean":
        return (before - after).norm(dim=1)
    return 1 - torch.cosine_similarity(before, after, dim=1)


def _draws(groups: np.ndarray, n_draws: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how often each scan is drawn, (n_draws, n), group by group."""
    n_groups = int(groups.max()) + 1
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_draws)[
        :, groups
    ]


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return rank correlations over the last axis, NaN where all are alike."""
    x, y = (rankdata(v, axis=-1) - (v.shape[-1] + 1) / 2 for v in (a, b))
    spread = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.clip((x * y).sum(-1) / spread, -1, 1)
