from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model import BrainSymphony, TaskHead
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.layers import set_generator
from bsym_sklearn.training.objectives import (
    FMRI_STAGES,
    FUSED_STAGES,
    SC_STAGES,
    HiddenPrediction,
    MaskedTask,
    SupervisedTask,
)

B, T, R = 3, 24, 8
SIZES: dict[str, Any] = {
    "dim": 8,
    "depth": 2,
    "perceiver_depth": 1,
    "n_heads": 2,
    "structural_heads": 2,
    "mlp_dim": 10,
    "context_dim": 3,
    "projection_dim": 5,
}
ALL_STAGES = FMRI_STAGES + SC_STAGES + FUSED_STAGES
MODALITIES = {
    ("fmri",): FMRI_STAGES,
    ("sc",): SC_STAGES,
    ("fmri", "sc"): ALL_STAGES,
}
every_token = pytest.mark.parametrize("tokens", ["series", "connectivity", "both"])
every_modality = pytest.mark.parametrize(
    ("modalities", "names"), MODALITIES.items(), ids=["fmri", "sc", "both"]
)
structural_options = pytest.mark.parametrize(
    "options",
    [
        {},
        {"structural_positions": "spectral", "edge_weights": "multi_hop"},
        {"structural_positions": "reference", "edge_weights": "diffusion"},
        {"absent_edges": "masked", "signed_attention": "continuous"},
    ],
    ids=["default", "spectral, hops", "reference, diffusion", "masked"],
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_fmri(n_scans: int = B) -> Tensor:
    return torch.randn(n_scans, T, R, generator=seeded(1), dtype=torch.float64)


def draw_sc(n_scans: int = B) -> Tensor:
    upper = torch.rand(n_scans, R, R, generator=seeded(2), dtype=torch.float64).triu(1)
    upper = upper.masked_fill(upper < 0.2, 0)  # some edges are absent
    return upper + upper.transpose(1, 2)


def both(n_scans: int = B) -> dict[str, Tensor]:
    return {"fmri": draw_fmri(n_scans), "sc": draw_sc(n_scans)}


def build_backbone(**options: Any) -> BrainSymphony:
    """Return a model whose every parameter has a value of its own, in float64."""
    model = BrainSymphony(R, T, **{**SIZES, "dropout": 0.0, **options})
    generator = seeded()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def build_task(
    *, mask_ratio: float = 0.15, span: int = 1, **options: Any
) -> MaskedTask:
    task = MaskedTask(
        build_backbone(**options), mask_ratio=mask_ratio, span=span, generator=seeded()
    )
    return task.double()


def predict(
    task: MaskedTask, batch: dict[str, Tensor], seed: int = 5
) -> dict[str, HiddenPrediction]:
    """Predict in training mode, masks and dropout drawn from `seed`."""
    task.train()
    task.generator = seeded(seed)
    set_generator(task, task.generator)
    return task(**batch)


@contextmanager
def spy(backbone: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Record what the backbone is called with."""
    calls: list[dict[str, Any]] = []
    hook = backbone.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(kwargs), with_kwargs=True
    )
    yield calls
    hook.remove()


def drawn_masks(task: MaskedTask, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return the masks that `predict` hides, as the backbone gets them."""
    with spy(task.backbone) as calls:
        predict(task, batch)
    return calls[0]


def assert_same_bits(
    left: dict[str, HiddenPrediction], right: dict[str, HiddenPrediction]
) -> None:
    assert left.keys() == right.keys()
    for name, made in left.items():
        assert torch.equal(made.prediction, right[name].prediction), name


def losses(task: MaskedTask, batch: dict[str, Tensor]) -> dict[str, float]:
    return {name: p.error().item() for name, p in predict(task, batch).items()}


# What is predicted


@every_modality
@every_token
def test_each_modality_has_its_objectives_and_each_is_judged(
    modalities: tuple[str, ...], names: tuple[str, ...], tokens: str
) -> None:
    task = build_task(modalities=modalities, spatial_tokens=tokens)
    made = predict(task, {name: both()[name] for name in modalities})
    assert task.stages == names
    assert set(made) == set(names)
    for prediction, target, hidden in made.values():
        assert prediction.shape == target.shape == hidden.shape
        assert hidden.dtype == torch.bool
        assert hidden.any()


def test_a_model_of_both_modalities_learns_from_batches_of_one() -> None:
    task = build_task()
    assert set(predict(task, {"fmri": draw_fmri()})) == set(FMRI_STAGES)
    assert set(predict(task, {"sc": draw_sc()})) == set(SC_STAGES)


def test_the_reconstruction_hides_what_the_streams_hide() -> None:
    made = predict(build_task(modalities=("fmri",)), {"fmri": draw_fmri()})
    regions = made["regions"].hidden.transpose(1, 2)
    times, points = made["time_points"].hidden, made["points"].hidden
    assert torch.equal(made["reconstruction"].hidden, regions | times | points)
    assert (regions.all(1).sum(1) == round(0.15 * R)).all()
    assert torch.equal(regions.any(1), regions.all(1))
    assert (times.all(2).sum(1) == round(0.15 * T)).all()
    assert torch.equal(times.any(2), times.all(2))
    assert (points.sum(1) == round(0.15 * T)).all()


def test_the_span_makes_runs_of_time_points_and_points() -> None:
    task = build_task(modalities=("fmri",), span=4, mask_ratio=0.25)
    made = predict(task, {"fmri": draw_fmri(20)})
    for name in ("time_points", "points"):
        changes = made[name].hidden.int().diff(dim=1).abs().sum(1)
        assert (changes <= 4).all()  # two runs of at most four, or one that is cut


# No leak


@every_token
@pytest.mark.parametrize(("decoder", "span"), [("reference", 1), ("temporal", 3)])
def test_hidden_values_change_no_prediction(
    tokens: str, decoder: str, span: int
) -> None:
    task = build_task(spatial_tokens=tokens, decoder=decoder, dropout=0.2, span=span)
    batch = both()
    masks = drawn_masks(task, batch)
    assert masks["fmri_mask"].any(2).any(1).all()
    garbage = torch.randn(B, T, R, generator=seeded(9)).double() * 100
    changed = batch | {
        "fmri": torch.where(masks["fmri_mask"], garbage, batch["fmri"]),
        "sc": batch["sc"].masked_fill(masks["sc_mask"], 7.0),
    }
    before, after = predict(task, batch), predict(task, changed)
    assert_same_bits(before, after)
    for name in ALL_STAGES:  # and the change was one: what is judged has changed
        target, other = before[name].target, after[name].target
        assert not torch.equal(target, other), name


@pytest.mark.parametrize(
    "options",
    [
        {"spatial_tokens": "series"},
        {"spatial_tokens": "connectivity"},
        {"spatial_tokens": "both"},
        {"temporal_kernel": 3},
        {"temporal_tokens": "states", "temporal_kernel": 3, "n_states": 6},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
@pytest.mark.parametrize("name", FMRI_STAGES)
def test_one_hidden_value_does_not_change_its_prediction(
    name: str, options: dict[str, Any]
) -> None:
    task = build_task(**options, modalities=("fmri",))
    batch = {"fmri": draw_fmri()}
    before = predict(task, batch)
    hidden = before[name].hidden
    if name == "regions":  # (B, R, T) or (B, R, R)
        hidden = hidden.any(2).unsqueeze(1).expand(B, T, R)
    for place in hidden.nonzero()[::40].tolist():
        fmri = batch["fmri"].clone()
        fmri[tuple(place)] += 50.0
        assert_same_bits(before, predict(task, {"fmri": fmri}))


@structural_options
def test_hidden_edges_change_no_prediction(options: dict[str, Any]) -> None:
    task, batch = build_task(dropout=0.2, **options), both()
    masks = drawn_masks(task, batch)
    before = predict(task, batch)
    for scan, row, column in masks["sc_mask"].nonzero()[::7].tolist():
        sc = batch["sc"].clone()
        sc[scan, row, column] += 5.0
        sc[scan, column, row] += 5.0
        assert_same_bits(before, predict(task, batch | {"sc": sc}))


@structural_options
def test_hidden_edges_are_hidden_from_features_attention_and_positions(
    options: dict[str, Any],
) -> None:
    task, batch = build_task(modalities=("sc",), **options), {"sc": draw_sc()}
    masks = drawn_masks(task, batch)
    hidden, stream = masks["sc_mask"], task.backbone.sc
    assert stream is not None
    changed = torch.where(hidden, 5.0 + batch["sc"], batch["sc"])
    tokens, hops = stream._embed(batch["sc"], hidden)
    other_tokens, other_hops = stream._embed(changed, hidden)
    assert torch.equal(tokens, other_tokens)
    assert torch.equal(hops, other_hops)
    assert torch.equal(
        stream.attention_maps(batch["sc"], hidden),
        stream.attention_maps(changed, hidden),
    )
    if not options:
        assert (hops[:, 0][hidden] == 0).all()


@every_token
def test_a_visible_value_changes_the_predictions_of_its_scan_only(tokens: str) -> None:
    task, batch = build_task(spatial_tokens=tokens), both()
    visible = ~drawn_masks(task, batch)["fmri_mask"][0]
    fmri = batch["fmri"].clone()
    fmri[0][visible] += torch.randn(int(visible.sum()), generator=seeded(3)).double()
    before, after = predict(task, batch), predict(task, batch | {"fmri": fmri})
    for name in (*FMRI_STAGES, "fused_reconstruction"):
        left, right = before[name], after[name]
        judged = left.hidden[0]
        assert (left.prediction[0] != right.prediction[0])[judged].any(), name
        assert torch.equal(left.prediction[1:], right.prediction[1:]), name
    assert torch.equal(before["edges"].prediction, after["edges"].prediction)
    assert not torch.equal(
        before["fused_edges"].prediction, after["fused_edges"].prediction
    )


def test_a_visible_edge_changes_the_predictions_of_its_scan_only() -> None:
    task, batch = build_task(), both()
    hidden = drawn_masks(task, batch)["sc_mask"]
    row, column = (~hidden[0]).triu(1).nonzero()[0].tolist()
    sc = batch["sc"].clone()
    sc[0, row, column] += 1.0
    sc[0, column, row] += 1.0
    before, after = predict(task, batch), predict(task, batch | {"sc": sc})
    n_edges = int(hidden[0].triu().sum())
    for name in ("edges", "fused_edges"):
        changed = before[name].prediction != after[name].prediction
        assert changed[:n_edges].any(), name
        assert not changed[n_edges:].any(), name
    fused = "fused_reconstruction"
    assert not torch.equal(before[fused].prediction[0], after[fused].prediction[0])
    for name in FMRI_STAGES:
        assert torch.equal(before[name].prediction, after[name].prediction)


@every_token
def test_a_point_is_predicted_from_its_neighbours(tokens: str) -> None:
    task, batch = build_task(modalities=("fmri",), spatial_tokens=tokens), both()
    batch.pop("sc")
    hidden = drawn_masks(task, batch)["fmri_mask"]
    points = predict(task, batch)["points"].hidden
    scan, time, region = (points[:, 1:] & ~hidden[:, :-1]).nonzero()[0].tolist()
    fmri = batch["fmri"].clone()
    fmri[scan, time, region] += 1.0  # the visible neighbour before
    left, right = (predict(task, x)["points"] for x in (batch, {"fmri": fmri}))
    changed = left.prediction != right.prediction
    assert changed[scan, time + 1, region]
    assert not changed[:, :, [r for r in range(R) if r != region]].any()


# What is judged


@every_token
@pytest.mark.parametrize("garbage", [0.0, 1e6, torch.nan])
def test_padding_is_never_judged(tokens: str, garbage: float) -> None:
    task, batch = build_task(spatial_tokens=tokens, mask_ratio=0.4), both()
    padding = torch.arange(T) >= torch.tensor([T, 15, 9]).unsqueeze(1)
    batch["padding"] = padding
    expected = losses(task, batch)
    batch["fmri"] = batch["fmri"].masked_fill(padding.unsqueeze(2), garbage)
    assert losses(task, batch) == expected
    made = predict(task, batch)
    for name in ("time_points", "points", "reconstruction", "fused_reconstruction"):
        assert made[name].hidden.any()
        assert not made[name].hidden[padding].any()
    if tokens != "connectivity":
        assert not made["regions"].hidden[..., :T].transpose(1, 2)[padding].any()
    total = task.loss(made, {})
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())


@every_token
@pytest.mark.parametrize("garbage", [0.0, 1e6, torch.nan])
def test_constant_regions_are_never_judged(tokens: str, garbage: float) -> None:
    task, batch = build_task(spatial_tokens=tokens, mask_ratio=0.4), both()
    constant = torch.zeros(B, R, dtype=torch.bool)
    constant[0, [1, 5]] = True
    constant[2, 0] = True
    mask = constant.unsqueeze(1).expand(B, T, R)
    batch["fmri_mask"] = mask
    expected = losses(task, batch)
    batch["fmri"] = batch["fmri"].masked_fill(mask, garbage)
    assert losses(task, batch) == expected
    made = predict(task, batch)
    for name in ("time_points", "points", "reconstruction", "fused_reconstruction"):
        assert made[name].hidden.any()
        assert not made[name].hidden[mask].any()
    assert made["regions"].hidden.any()
    assert not made["regions"].hidden[constant].any()  # as a row
    if tokens != "series":  # as a column
        assert not made["regions"].hidden[..., -R:].transpose(1, 2)[constant].any()
    task.loss(made, {}).backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())


@every_token
@pytest.mark.parametrize("garbage", [1.0, 1e6])
def test_missing_modalities_are_not_judged(tokens: str, garbage: float) -> None:
    task, batch = build_task(spatial_tokens=tokens), both(4)
    batch["has_fmri"] = torch.tensor([True, False, True, True])
    batch["has_sc"] = torch.tensor([True, True, False, True])
    expected = losses(task, batch)
    batch["fmri"][1] = garbage * torch.randn(T, R, generator=seeded(8))
    batch["sc"][2] = garbage
    assert losses(task, batch) == expected
    made = predict(task, batch)
    for name in FMRI_STAGES:
        assert made[name].hidden[[0, 2, 3]].any()
        assert not made[name].hidden[1].any()
    assert made["fused_reconstruction"].hidden.any((1, 2)).tolist() == [
        True,
        False,
        False,
        True,
    ]
    n_edges = len(made["edges"].hidden) // 4  # per scan
    per_scan = [made[name].hidden.view(4, n_edges) for name in ("edges", "fused_edges")]
    assert per_scan[0].all(1).tolist() == [True, True, False, True]
    assert per_scan[1].all(1).tolist() == [True, False, False, True]
    assert per_scan[1].any(1).tolist() == [True, False, False, True]


# The loss


@every_token
def test_the_loss_is_the_mean_squared_error_of_the_hidden_values(tokens: str) -> None:
    task, batch = build_task(spatial_tokens=tokens), both()
    batch["padding"] = torch.arange(T) >= torch.tensor([T, 18, T]).unsqueeze(1)
    batch["has_sc"] = torch.tensor([True, True, False])
    made = predict(task, batch)
    masks = drawn_masks(task, batch)
    with torch.no_grad():
        out = task.backbone(**masks)
    fmri, sc = (batch[name].numpy() for name in ("fmri", "sc"))
    exists = ~batch["padding"].numpy()
    expected = dict.fromkeys(ALL_STAGES, 0.0)

    # Each objective again, value by value.
    encoder, structural = task.backbone.fmri, task.backbone.sc
    assert encoder is not None
    assert structural is not None
    decoded = {
        "time_points": task.decoders["time_points"](out.temporal),
        "points": encoder.context.decode(
            encoder.context(
                FMRIInput(masks["fmri"], masks["fmri_mask"], batch["padding"])
            )
        ),
        "reconstruction": encoder.perceiver.decode(out.latents, out.temporal),
        "fused_reconstruction": encoder.perceiver.decode(out.fused, out.temporal),
    }
    hidden = {name: made[name].hidden.numpy() for name in decoded}
    for name, values in decoded.items():
        where = hidden[name.removeprefix("fused_")] & exists[..., None]
        if name == "fused_reconstruction":
            where = where & batch["has_sc"].numpy()[:, None, None]
        errors = [
            (values[place].item() - fmri[place]) ** 2
            for place in np.ndindex(B, T, R)
            if where[place]
        ]
        expected[name] = float(np.mean(errors))
    profiles = task.decoders["regions"](out.spatial).detach().numpy()
    hidden_regions = made["regions"].hidden.any(2).numpy()
    assert hidden_regions.sum(1).tolist() == [1, 1, 1]
    errors = []
    for b, r in np.argwhere(hidden_regions):
        seen = fmri[b][exists[b]]
        if tokens != "connectivity":
            series = profiles[b, r, :T]
            errors += ((series - fmri[b, :, r])[exists[b]] ** 2).tolist()
        if tokens != "series":
            correlation = np.corrcoef(seen.T)[r]
            correlation[r] = 0
            profile = profiles[b, r, -R:]
            errors += ((profile - np.arctanh(correlation)) ** 2).tolist()
    expected["regions"] = float(np.mean(errors))
    for name, x in (("edges", out.structural), ("fused_edges", out.fused)):
        weights = structural.edges(x).detach().numpy()
        errors = [
            (weights[b, i, j] - sc[b, i, j]) ** 2
            for b, i, j in np.ndindex(B, R, R)
            if i < j and masks["sc_mask"][b, i, j] and batch["has_sc"][b]
        ]
        expected[name] = float(np.mean(errors))

    assert {name: p.error().item() for name, p in made.items()} == pytest.approx(
        expected, rel=1e-9
    )
    assert task.loss(made, {}).item() == pytest.approx(sum(expected.values()), rel=1e-9)


def test_the_error_without_any_hidden_value_is_zero() -> None:
    prediction = torch.ones(2, 3, requires_grad=True)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    error = HiddenPrediction(prediction, torch.zeros(2, 3), nothing).error()
    error.backward()
    assert error.item() == 0
    assert (prediction.grad == 0).all()


# Gradients


@every_modality
@every_token
def test_every_parameter_gets_a_gradient(
    modalities: tuple[str, ...], names: tuple[str, ...], tokens: str
) -> None:
    task = build_task(modalities=modalities, spatial_tokens=tokens)
    made = predict(task, {name: both()[name] for name in modalities})
    task.loss(made, {}).backward()
    without = [
        name
        for name, parameter in task.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "gradient", "n_gradients": 3},
        {"decoder": "temporal"},
        {"final_norm": "layer", "perceiver_residual": "region"},
        {"structural_positions": "spectral", "edge_weights": "multi_hop"},
        {"edge_symmetry": "symmetric", "edge_weights": "diffusion"},
        {"absent_edges": "masked", "signed_attention": "continuous"},
        {"temporal_tokens": "states", "temporal_kernel": 3, "n_states": 6},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
def test_every_parameter_gets_a_gradient_with_every_option(
    options: dict[str, Any],
) -> None:
    task = build_task(**options)
    if options.get("positions") == "gradient":
        task.backbone.set_coordinates(torch.randn(R, 3, generator=seeded()))
    task.loss(predict(task, both()), {}).backward()
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())


def expected_to_move(stage: str) -> tuple[str, ...]:
    """Return the beginnings of the names that a stage trains."""
    streams = ("backbone.fmri.spatial.", "backbone.fmri.temporal.")
    latents = (
        *streams,
        "backbone.fmri.context.convolution.",
        "backbone.fmri.context.mask_token",
        "backbone.fmri.perceiver.",
    )
    structural = (
        "backbone.sc.embed.",
        "backbone.sc.mask_token",
        "backbone.sc.table",
        "backbone.sc.blocks.",
    )
    return {
        "regions": ("backbone.fmri.spatial.", "decoders.regions."),
        "time_points": ("backbone.fmri.temporal.", "decoders.time_points."),
        "points": ("backbone.fmri.context.",),
        "reconstruction": latents,
        "edges": ("backbone.sc.",),
        "fused_reconstruction": (*latents, *structural, "backbone.gate."),
        "fused_edges": (*latents, "backbone.sc.", "backbone.gate."),
    }[stage]


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_a_stage_trains_its_own_parts_only(stage: str) -> None:
    task = build_task()
    made = predict(task, both())
    task.stage = stage
    loss = task.loss(made, {})
    assert loss.item() == made[stage].error().item()
    loss.backward()
    moved = {
        name
        for name, parameter in task.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    possible = {
        name
        for name, _ in task.named_parameters()
        if name.startswith(expected_to_move(stage))
    }
    if stage == "fused_edges":  # decodes edges, not series
        head = "backbone.fmri.perceiver.head."
        possible = {name for name in possible if not name.startswith(head)}
    assert moved == possible


def test_validation_judges_every_objective_whatever_the_stage() -> None:
    task = build_task()
    task.stage = "points"
    task.eval()
    made = task(**both())
    total = sum(p.error().item() for p in made.values())
    assert task.loss(made, {}).item() == pytest.approx(total, rel=1e-12)


def test_a_batch_without_the_modality_of_the_stage_trains_nothing() -> None:
    task = build_task()
    task.stage = "edges"
    loss = task.loss(predict(task, {"fmri": draw_fmri()}), {})
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None for p in task.parameters())


# Masks in training and in validation


def test_validation_masks_are_the_same_every_time() -> None:
    task, batch = build_task().eval(), both()
    with spy(task.backbone) as calls:
        task(**batch)
        task.generator = seeded(3)
        task(**batch)
    for name in ("fmri_mask", "sc_mask"):
        assert torch.equal(calls[0][name], calls[1][name])


def test_training_masks_differ_from_step_to_step() -> None:
    task, batch = build_task().train(), both()
    task.generator = seeded()
    with spy(task.backbone) as calls:
        task(**batch)
        task(**batch)
    for name in ("fmri_mask", "sc_mask"):
        assert not torch.equal(calls[0][name], calls[1][name])


def test_the_same_generator_makes_the_same_task() -> None:
    first, second = (
        MaskedTask(BrainSymphony(R, T, **SIZES), generator=seeded(4)) for _ in range(2)
    )
    other = MaskedTask(BrainSymphony(R, T, **SIZES), generator=seeded(5))
    weight = "decoders.regions.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_making_and_running_a_task_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    predict(build_task(dropout=0.3), both())
    assert torch.equal(torch.get_rng_state(), state)


# Learning


@pytest.mark.parametrize(
    ("modalities", "tokens"),
    [
        (("fmri",), "series"),
        (("fmri",), "connectivity"),
        (("sc",), "series"),
        (("fmri", "sc"), "connectivity"),
    ],
    ids=["fmri", "connectivity", "sc", "both"],
)
def test_a_small_batch_is_learned_by_heart(
    modalities: tuple[str, ...], tokens: str
) -> None:
    options: dict[str, Any] = {**SIZES, "dim": 16, "depth": 1, "dropout": 0.0}
    backbone = BrainSymphony(
        R, T, modalities=modalities, spatial_tokens=tokens, **options
    )
    task = MaskedTask(backbone, generator=seeded())
    batch = {name: both(2)[name].float() for name in modalities}
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    history = []
    for _ in range(120):
        optimizer.zero_grad()
        made = predict(task, batch)  # the same masks
        task.loss(made, {}).backward()
        optimizer.step()
        history.append({name: p.error().item() for name, p in made.items()})
    for name in MODALITIES[modalities]:
        # a point sees its neighbours only, and none of them in a hidden region
        share = 0.7 if name == "points" else 0.2
        assert history[-1][name] < share * history[0][name], name


# Supervision


def build_supervised(
    kind: str = "classification",
    *,
    frozen: bool = False,
    n_outputs: int = 3,
    readouts: tuple[str, ...] = ("fused",),
    dropout: float = 0.3,
) -> SupervisedTask:
    backbone = build_backbone(dropout=dropout, temporal_tokens="states", n_states=6)
    head = TaskHead(R, backbone.dim, n_outputs, readouts=readouts, n_states=6)
    generator = seeded(6)
    for parameter in head.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    task = SupervisedTask(backbone, head.double(), kind=kind, frozen=frozen)
    return task.train()


def test_cross_entropy_is_the_mean_over_scans() -> None:
    task = build_supervised().eval()
    logits = torch.randn(4, 3, generator=seeded()).double()
    y = torch.tensor([0, 2, 1, 2])
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    expected = -np.log(shares[np.arange(4), y.numpy()])
    assert task.loss(logits, {"target": y}).item() == pytest.approx(expected.mean())
    weight = torch.tensor([2.0, 0.0, 0.5, 1.5]).double()
    weighted = task.loss(logits, {"target": y, "weight": weight}).item()
    assert weighted == pytest.approx((expected * weight.numpy()).mean())


def test_squared_error_is_the_mean_over_scans() -> None:
    task = build_supervised("regression", n_outputs=1).eval()
    made, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.0, 2.0, 5.0])
    assert task.loss(made, {"target": y}).item() == pytest.approx(5 / 3)
    weight = torch.tensor([1.0, 1.0, 0.5])
    weighted = task.loss(made, {"target": y, "weight": weight}).item()
    assert weighted == pytest.approx(1.0)


def test_weights_of_one_change_nothing() -> None:
    task = build_supervised()
    target = {"target": torch.tensor([0, 1, 2])}
    made = task(**both())
    plain = task.loss(made, target)
    ones = task.loss(made, target | {"weight": torch.ones(3).double()})
    assert torch.equal(plain, ones)


def test_a_low_precision_prediction_is_judged_in_single_precision() -> None:
    logits = torch.randn(4, 3, generator=seeded()).bfloat16()
    target = {"target": torch.tensor([0, 2, 1, 2])}
    loss = build_supervised().eval().loss(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == F.cross_entropy(logits.float(), target["target"]).item()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_fine_tuning_reaches_the_backbone_and_the_head(kind: str) -> None:
    task = build_supervised(kind, n_outputs=3 if kind == "classification" else 1)
    y = torch.tensor([0, 1, 2])
    y = y if kind == "classification" else y.double()
    task.loss(task(**both()), {"target": y}).backward()
    without = {n for n, p in task.named_parameters() if p.grad is None}
    # Supervision hides nothing and decodes nothing.
    assert {name.removeprefix("backbone.") for name in without} == {
        *(f"{stream}.mask_token" for stream in ("fmri.spatial", "fmri.temporal", "sc")),
        "fmri.context.mask_token",
        *decoder_names(task.backbone),
    }


def decoder_names(backbone: BrainSymphony) -> set[str]:
    decoders = ("fmri.context.decoder.", "fmri.perceiver.head.", "sc.edges.")
    return {n for n, _ in backbone.named_parameters() if n.startswith(decoders)}


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_frozen_backbone_gets_no_gradient_and_no_dropout(kind: str) -> None:
    task = build_supervised(
        kind, frozen=True, n_outputs=3 if kind == "classification" else 1
    )
    assert task.training
    assert task.head.training
    assert not any(part.training for part in task.backbone.modules())
    y = torch.tensor([0, 1, 2])
    made = task(**both())
    y = y if kind == "classification" else y.double()
    task.loss(made, {"target": y}).backward()
    assert all(p.grad is None for p in task.backbone.parameters())
    assert all(p.grad is not None and p.grad.any() for p in task.head.parameters())
    assert torch.equal(made[0], task(**both())[0])  # nothing random is left


READOUTS = ("spatial", "states", "structural", "fused")
HAS_FMRI = torch.tensor([True, True, False])
HAS_SC = torch.tensor([False, True, True])


def draw_target(kind: str) -> Tensor:
    y = torch.tensor([2, 0, 1])
    return y if kind == "classification" else y.double()


def one_loss(kind: str, output: Tensor, y: Tensor) -> Tensor:
    """Return the loss of one scan, of outputs (C,)."""
    if kind == "classification":
        return F.cross_entropy(output[None], y[None])
    return (output[0] - y).square()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.25]])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_in_training_each_readout_has_a_loss_of_its_own(
    kind: str, weights: list[float] | None
) -> None:
    """Their mean over those that a scan has, then over scans."""
    n_outputs = 3 if kind == "classification" else 1
    task = build_supervised(kind, n_outputs=n_outputs, readouts=READOUTS, dropout=0)
    y, missing = draw_target(kind), {"has_fmri": HAS_FMRI, "has_sc": HAS_SC}
    outputs, say = made = task(**both(), **missing)
    assert outputs.shape == (B, len(READOUTS), n_outputs)
    speak = [[0, 1, 3], [0, 1, 2, 3], [2, 3]]
    scans = (
        torch.ones(B).double() if weights is None else torch.tensor(weights).double()
    )
    each = [
        torch.stack([one_loss(kind, outputs[i, k], y[i]) for k in ks]).mean()
        for i, ks in enumerate(speak)
    ]
    expected = (torch.stack(each) * scans).mean()
    target = {"target": y} | ({} if weights is None else {"weight": scans})
    torch.testing.assert_close(task.loss(made, target), expected)
    task.eval()
    average = task(**both(), **missing)
    torch.testing.assert_close(average, (outputs * say.unsqueeze(-1)).sum(1))
    judged = torch.stack([one_loss(kind, average[i], y[i]) for i in range(B)])
    torch.testing.assert_close(task.loss(average, target), (judged * scans).mean())


def test_one_readout_is_trained_as_without_others() -> None:
    """Half the loss is its own, so that its gradient is half of that alone."""
    gradients = []
    for readouts in (("states",), ("states", "structural")):
        task = build_supervised(readouts=readouts, dropout=0)
        for name, readout in task.head.readouts.items():
            generator, size = seeded(7), 0.1 if name == "states" else 5.0
            for parameter in readout.parameters():
                parameter.data.normal_(0, size, generator=generator)
        task.loss(task(**both()), {"target": draw_target("classification")}).backward()
        part = [*task.head.readouts["states"].parameters()]
        part += [*task.backbone.fmri.temporal.states.parameters()]
        gradients.append([parameter.grad for parameter in part])
    for alone, beside in zip(*gradients, strict=True):
        assert alone.any()
        torch.testing.assert_close(beside, alone / 2)


def test_only_what_is_read_is_computed_and_trained() -> None:
    task = build_supervised(readouts=("spatial", "states"))
    with spy(task.backbone) as calls:
        made = task(**both())
    assert calls[0]["only"] == ("spatial", "states")
    task.loss(made, {"target": draw_target("classification")}).backward()
    trained = {n for n, p in task.named_parameters() if p.grad is not None}
    parts = ("backbone.fmri.spatial.", "backbone.fmri.temporal.states.", "head.")
    norms = ("backbone.fmri.norms.spatial",)
    assert all(name.startswith(parts + norms) for name in trained)
    assert {p for p in parts if any(n.startswith(p) for n in trained)} == set(parts)


def test_a_backbone_that_was_frozen_can_be_trained_again() -> None:
    frozen = build_supervised(frozen=True)
    task = SupervisedTask(frozen.backbone, frozen.head, kind="classification").train()
    assert all(part.training for part in task.backbone.modules())
    assert all(p.requires_grad for p in task.parameters())
    assert not task.eval().backbone.training


def test_values_under_padding_change_no_supervised_prediction() -> None:
    task, batch = build_supervised().eval(), both()
    padding = torch.arange(T) >= torch.tensor([T, 15, 9]).unsqueeze(1)
    has_fmri = torch.tensor([True, True, False])
    garbage = batch["fmri"].masked_fill(padding.unsqueeze(2), 1e6)
    garbage[2] = 1.0
    made = [
        task(x, batch["sc"], padding=padding, has_fmri=has_fmri)
        for x in (batch["fmri"], garbage)
    ]
    assert made[0].shape == (B, 3)
    assert torch.equal(made[0], made[1])
