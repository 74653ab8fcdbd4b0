from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bsym_sklearn.model.block_masking import (
    TokenList,
    list_tokens,
    sample_blocks,
)
from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.model.brain_jepa_layers import Encoder, Predictor

SIZES = {
    "patch_size": 5,
    "dim": 16,
    "depth": 2,
    "n_heads": 2,
    "predictor_dim": 8,
    "predictor_depth": 1,
    "n_gradients": 3,
}
N_REGIONS, WINDOW = 8, 40


def make_model(**parameters) -> BrainJEPA:
    model = BrainJEPA(N_REGIONS, WINDOW, **{**SIZES, **parameters}).eval()
    model.set_coordinates(draw(N_REGIONS, 3))
    return model


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n_regions", "n_timepoints"), [(8, 40), (5, 40), (8, 23)])
def test_one_embedding_per_region(n_regions: int, n_timepoints: int) -> None:
    model = BrainJEPA(n_regions, WINDOW, **SIZES).eval()
    embedded = model(draw(2, n_timepoints, n_regions))
    assert embedded.shape == (2, n_regions, 16)
    assert torch.isfinite(embedded).all()  # even before coordinates are set


@pytest.mark.parametrize(
    ("preset", "encoder_millions", "predictor_millions"),
    [("vit-s", 21.3, None), ("vit-b", 85.08, 11.245), ("vit-l", 302.3, None)],
)
def test_published_numbers_of_parameters(
    preset: str, encoder_millions: float, predictor_millions: float | None
) -> None:
    sizes = BrainJEPA.preset(preset)
    with torch.device("meta"):
        encoder = Encoder(10, 16, **sizes, n_gradients=30)
        predictor = Predictor(
            10, sizes["dim"], dim=384, depth=6, n_heads=12, n_gradients=30
        )
    n = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert n == pytest.approx(encoder_millions, abs=0.05)
    if predictor_millions is not None:
        n = sum(p.numel() for p in predictor.parameters()) / 1e6
        assert n == pytest.approx(predictor_millions, abs=0.001)


def test_weights_start_as_published() -> None:
    model = BrainJEPA(8, dim=128, depth=1, n_heads=2, predictor_dim=64)
    block = model.encoder.blocks[0]
    for layer in (model.encoder.embed, block.attention.out, block.feed_forward.expand):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not layer.bias.any()
    assert model.predictor.mask_token.std().item() == pytest.approx(0.02, rel=0.4)


def test_all_weights_are_drawn_from_the_given_generator() -> None:
    before = torch.get_rng_state()
    first, second, other = (make_model(generator=seeded(i)) for i in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.encoder.embed.weight, other.encoder.embed.weight)


def test_config_rebuilds_the_model() -> None:
    model = make_model(masking="published")
    again = BrainJEPA(**json.loads(json.dumps(model.config))).eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    fmri = draw(2, WINDOW, N_REGIONS)
    assert torch.equal(again(fmri), model(fmri))


def test_embeddings_do_not_change_between_calls_or_with_the_batch() -> None:
    model, fmri = make_model(), draw(3, WINDOW, N_REGIONS)
    assert torch.equal(model(fmri), model(fmri))
    torch.testing.assert_close(model(fmri)[1:2], model(fmri[1:2]))


def test_padding_equals_a_shorter_input() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    padding = torch.zeros(2, WINDOW, dtype=torch.bool)
    padding[:, 17:] = True  # in the middle of the fourth of eight patches
    short = fmri[:, :20].clone()
    short[:, 17:] = 0
    torch.testing.assert_close(model(fmri, padding), model(short))


@pytest.mark.parametrize("masking", ["published", "repaired"])
def test_values_at_padding_do_not_matter_to_the_loss(masking: str) -> None:
    model, fmri = make_model(masking=masking), draw(3, WINDOW, N_REGIONS)
    padding = torch.zeros(3, WINDOW, dtype=torch.bool)
    padding[0, 12:] = True
    padding[1, 2:] = True  # a single patch
    for seed in range(10):
        losses = [
            model.self_supervised_loss(values, seeded(seed), padding)
            for values in (fmri, fmri.masked_fill(padding.unsqueeze(-1), torch.nan))
        ]
        assert torch.isfinite(losses[0])
        assert torch.equal(*losses)


def test_places_join_time_and_gradients_in_one_range() -> None:
    model = make_model()
    places = model.encoder.places(model.coordinates)  # (R, P, D)
    assert places.shape == (N_REGIONS, 8, 16)
    time, region = places.chunk(2, dim=-1)
    assert torch.equal(time[0], time[1])
    assert torch.equal(region[:, 0], region[:, 1])
    assert (region.min().item(), region.max().item()) == (-1, 1)
    with pytest.raises(ValueError, match=r"of shape \(8, 3\). Got \(8, 2\)"):
        model.set_coordinates(torch.zeros(8, 2))


def test_target_encoder_starts_equal_and_gets_no_gradient() -> None:
    model = make_model()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(model.target_encoder.state_dict()[name], value)
    model.self_supervised_loss(draw(2, WINDOW, N_REGIONS), seeded()).backward()
    assert all(p.grad is None for p in model.target_encoder.parameters())
    model.requires_grad_(False).requires_grad_(True)
    assert not any(p.requires_grad for p in model.target_encoder.parameters())
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert "target_encoder.embed.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("progress", "momentum"), [(0.0, 0.996), (0.5, 0.998), (1.0, 1.0)]
)
def test_target_moves_by_the_published_momentum(
    progress: float, momentum: float
) -> None:
    model = make_model()
    before = model.target_encoder.embed.weight.clone()
    with torch.no_grad():
        model.encoder.embed.weight.add_(1)
    model.update_target(progress)
    moved = model.target_encoder.embed.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - momentum))
    if progress == 1:
        assert torch.equal(model.target_encoder.embed.weight, before)


def test_adopted_target_is_what_forward_uses_and_stays_apart() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    before = model(fmri)
    with torch.no_grad():
        model.encoder.embed.weight.add_(1)
    assert not torch.allclose(model(fmri), before)
    model.adopt_target()
    assert torch.equal(model(fmri), before)
    with torch.no_grad():
        model.encoder.embed.weight.add_(1)
    assert not torch.equal(
        model.encoder.embed.weight, model.target_encoder.embed.weight
    )


def test_loss_draws_from_the_given_generator_only() -> None:
    model, fmri = make_model().train(), draw(2, WINDOW, N_REGIONS)
    before = torch.get_rng_state()
    first, second, other = (
        model.self_supervised_loss(fmri, seeded(seed)).item() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second != other


def test_no_value_is_needed_on_the_host() -> None:
    """On a GPU, nothing waits for it: tensors without values are enough."""
    model = make_model()
    with FakeTensorMode(allow_non_fake_inputs=True):
        fmri = torch.zeros(2, WINDOW, N_REGIONS)
        padding = torch.zeros(2, WINDOW, dtype=torch.bool)
        absent = padding.unflatten(1, (8, 5)).all(-1)
        blocks = sample_blocks(2, N_REGIONS, 8, seeded(), absent=absent)
        assert blocks.context.shape == (2, N_REGIONS, 8)
        lists = [
            TokenList(torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 7) > 0)
            for _ in range(2)
        ]
        assert model.prediction_loss(fmri, *lists, padding).shape == ()


def test_places_beyond_the_end_of_a_list_do_not_change_the_loss() -> None:
    """As lists are on a GPU, where nobody waits for their true length."""
    model, fmri = make_model(), draw(3, WINDOW, N_REGIONS)
    context, targets = sample_blocks(3, N_REGIONS, 8, seeded())
    lists = [list_tokens(context, longest=99), list_tokens(*targets, longest=99)]
    longer = [
        type(chosen)(
            torch.nn.functional.pad(chosen.tokens, (0, 4)),
            torch.nn.functional.pad(chosen.absent, (0, 4), value=True),
        )
        for chosen in lists
    ]
    torch.testing.assert_close(
        model.prediction_loss(fmri, *longer), model.prediction_loss(fmri, *lists)
    )


def test_unseen_values_reach_the_loss_through_the_target_encoder_only() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    context, targets = sample_blocks(2, N_REGIONS, 8, seeded())
    lists = [list_tokens(context, longest=99), list_tokens(*targets, longest=99)]
    unseen = ~context.repeat_interleave(5, dim=2).transpose(1, 2)  # (B, T, R)
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.zero_()
    losses = [model.prediction_loss(x, *lists) for x in (fmri, fmri + 100 * unseen)]
    assert torch.equal(*losses)


def test_every_parameter_learns_and_the_loss_falls() -> None:
    model = make_model().train()
    fmri = draw(4, WINDOW, N_REGIONS)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=2e-3)
    losses = []
    for step in range(30):
        loss = model.self_supervised_loss(fmri, seeded(step % 3))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in trained)
        optimizer.step()
        model.update_target(step / 29)
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_runs_in_double_precision_and_under_autocast() -> None:
    fmri = draw(2, WINDOW, N_REGIONS)
    assert make_model().double()(fmri.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(make_model().self_supervised_loss(fmri, seeded()))


def test_blocks_by_depth_covers_every_parameter() -> None:
    model = make_model()
    covered = {id(p) for _, part in model.blocks_by_depth() for p in part.parameters()}
    assert covered == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"masking": "random"}, "`masking` must be one of"),
        ({"predictor_dim": 6}, "multiples of 4. Got 6"),
        ({"patch_size": 41}, "at most `window`. Got patch_size=41, window=40"),
        ({"n_heads": 3}, "multiple of the number of heads. Got dim=16, n_heads=3"),
    ],
)
def test_impossible_sizes_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**parameters)
    with pytest.raises(ValueError, match=r"`n_regions` must be at least 3\. Got 2"):
        BrainJEPA(2, WINDOW, **SIZES)
