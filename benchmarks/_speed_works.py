"""What is timed: the same work by the official code and by ours.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from _speed_official import official_fmri, official_structural, with_its_weights
from _speed_standins import BRAIN_JEPA, BRAINLM, Shape, StandIn
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.model.kernels import use_kernel

# works
FORWARD = "fMRI forward"
BACKWARD = "fMRI forward + backward"
STEP = "fMRI training step"
SC_FORWARD = "SC forward"
SC_STEP = "SC masked-edge training step"
EMBED = "embed one scan"
FMRI_WORKS = (FORWARD, BACKWARD, STEP)
SC_WORKS = (SC_FORWARD, SC_STEP)

# variants
REFERENCE = "reference"
HELPER = "reference, masked helper"
TORCH = "torch"
COMPILED = "compiled"
OURS = (TORCH, COMPILED)
STAND_INS = {"BrainLM stand-in": BRAINLM, "Brain-JEPA stand-in": BRAIN_JEPA}

LR = 1e-4  # of the official train.py
HIDDEN_SHARE = 0.2  # of the edges, there too
EDGE_DENSITY = 0.3  # of the synthetic connectomes
PUBLISHED_DEPTH = 6

Call = Callable[[], object]


class Cell(NamedTuple):
    """A work at a size; its variants are timed side by side."""

    work: str
    n_regions: int
    n_timepoints: int
    n_scans: int
    depth: int = PUBLISHED_DEPTH  # blocks of a stream


class Subject(NamedTuple):
    """A model with its data: what it predicts, and what it should."""

    model: nn.Module
    predict: Callable[[], Tensor]
    target: Tensor


def make_calls(
    cell: Cell, variants: Sequence[str], reference: Path | None = None
) -> dict[str, Call]:
    """Return one function per variant that does the work of a cell once.

    With the official code in the folder `reference`, all models have the weights that
    it draws.
    """
    if cell.work == EMBED:
        return {variant: _embedding(cell, variant) for variant in variants}
    # a model each: a training step changes the weights
    return {
        variant: _in_context(
            variant, _do(cell.work, make_subject(cell, variant, reference))
        )
        for variant in variants
    }


def make_subject(cell: Cell, variant: str, reference: Path | None = None) -> Subject:
    """Return the model of one variant with data drawn from a seed."""
    official = None if reference is None else make_official(cell, reference)
    if variant not in OURS:
        if official is None:
            raise ValueError(f"The variant {variant!r} needs the official code.")
        return _their_subject(cell, variant, official)
    ours = make_ours(cell) if official is None else with_its_weights(official)
    if cell.work not in SC_WORKS:
        series = make_fmri(cell).transpose(1, 2).contiguous()  # (B, T, R)
        return Subject(ours, lambda: ours(fmri=series).fmri_reconstruction, series)
    sc, hidden = make_connectomes(cell)
    if cell.work == SC_FORWARD:
        return Subject(ours, lambda: ours(sc=sc).structural, sc)
    return Subject(ours, lambda: _hidden_edges(ours, sc, hidden), sc[hidden])


def _their_subject(cell: Cell, variant: str, official: nn.Module) -> Subject:
    if cell.work not in SC_WORKS:
        fmri = make_fmri(cell)
        return Subject(official, lambda: official(fmri)[0], fmri)
    sc, hidden = make_connectomes(cell)
    keep = (~hidden).to(sc)  # there 0 is hidden
    if cell.work == SC_FORWARD:
        return Subject(official, lambda: official(sc, sc)[0], sc)
    if variant == HELPER:
        return Subject(official, lambda: _by_helper(official, sc, keep), sc[hidden])
    # its train.py compares the predictions of two scans, which one scan does not have
    return Subject(official, lambda: official(sc, sc, keep)[1][hidden], sc[hidden])


def make_official(cell: Cell, reference: Path) -> nn.Module:
    """Return the official model for a cell, in evaluation mode."""
    if cell.work in SC_WORKS:
        return official_structural(reference, cell.n_regions, cell.depth)
    return official_fmri(reference, cell.n_regions, cell.n_timepoints, cell.depth)


def make_ours(cell: Cell) -> BrainSymphony:
    """Return our model for a cell, in evaluation mode."""
    modality = "sc" if cell.work in SC_WORKS else "fmri"
    model = BrainSymphony(
        cell.n_regions, cell.n_timepoints, modalities=(modality,), depth=cell.depth
    )
    return model.eval()


def _hidden_edges(model: BrainSymphony, sc: Tensor, hidden: Tensor) -> Tensor:
    """Return our predictions of the hidden edges, in the order of `sc[hidden]`."""
    embedded = model(sc=sc).structural
    _, row, column = hidden.nonzero(as_tuple=True)
    row, column = row.view(len(sc), -1), column.view(len(sc), -1)
    return model.sc.edges.pairs(embedded, row, column).flatten()


def _by_helper(model: nn.Module, sc: Tensor, keep: Tensor) -> Tensor:
    """Return theirs by the method that their forward pass does not use."""
    embedded, _, _ = model(sc, sc)
    return model.encoder.get_masked_edge_predictions(embedded, sc, keep)[0]


def _do(work: str, subject: Subject) -> Call:
    """Return a function that does the work with the subject."""
    model, predict, target = subject
    if work in (FORWARD, SC_FORWARD):
        return torch.no_grad()(predict)
    optimizer: torch.optim.Optimizer | None = None
    if work in (STEP, SC_STEP):
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def learn() -> float:
        model.zero_grad()
        loss = F.mse_loss(predict(), target)
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        return loss.item()

    return learn


def _embedding(cell: Cell, variant: str) -> Call:
    """Return a function that encodes one scan."""
    if variant in OURS:
        return _in_context(variant, _do(FORWARD, make_subject(cell, variant)))
    shape = stand_in_shape(variant, cell.depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = StandIn(shape).eval()
    fmri = make_fmri(
        cell._replace(n_regions=shape.n_regions, n_timepoints=shape.n_timepoints)
    )
    return torch.no_grad()(lambda: model(fmri))


def stand_in_shape(variant: str, depth: int) -> Shape:
    """Return the published shape, or a small one where our model is small too."""
    shape = STAND_INS[variant]
    if depth == PUBLISHED_DEPTH:
        return shape
    height, width = (2 * side for side in shape.patch)
    return shape._replace(
        n_regions=height, n_timepoints=width, image=(height, width), depth=depth
    )


def _in_context(variant: str, call: Call) -> Call:
    """Return a function that takes the path of a variant, backwards as well."""
    if variant not in OURS:
        return call

    def called() -> object:
        with use_kernel(variant):
            return call()

    return called


def largest_difference(
    cell: Cell, variants: Sequence[str], reference: Path
) -> dict[str, float]:
    """Return how far our embeddings of a cell are from the official ones.

    Of fMRI in float32, of connectomes in float64: the signed attention jumps where a
    score is zero, and rounding decides on which side it is.
    """
    official = make_official(cell, reference)
    ours = with_its_weights(official)
    with torch.no_grad():
        if cell.work in SC_WORKS:
            sc = make_connectomes(cell)[0].double()
            expected = official.double()(sc, sc)[0]
            ours.double()
            calls = {
                v: _in_context(v, lambda: ours(sc=sc).structural) for v in variants
            }
        else:
            fmri = make_fmri(cell)
            expected = official(fmri)[1]
            series = fmri.transpose(1, 2)
            calls = {v: _in_context(v, lambda: ours(series).latents) for v in variants}
        return {v: (call() - expected).abs().max().item() for v, call in calls.items()}


def make_fmri(cell: Cell) -> Tensor:
    """Return standard normal series (B, R, T)."""
    generator = torch.Generator().manual_seed(1)
    shape = (cell.n_scans, cell.n_regions, cell.n_timepoints)
    return torch.randn(shape, generator=generator)


def make_connectomes(cell: Cell) -> tuple[Tensor, Tensor]:
    """Return sparse symmetric weights in [0, 1) and which are hidden, (B, R, R).

    As many are hidden in every scan, in any of the two orders of their regions.
    """
    generator = torch.Generator().manual_seed(2)
    shape = (cell.n_scans, cell.n_regions, cell.n_regions)
    weights = torch.rand(shape, generator=generator)
    exists = torch.rand(shape, generator=generator) < EDGE_DENSITY
    upper = (weights * exists).triu(1)
    rank = torch.rand(shape, generator=generator).flatten(1).argsort().argsort()
    hidden = rank.view(shape) < int(HIDDEN_SHARE * cell.n_regions**2)
    return upper + upper.transpose(1, 2), hidden
