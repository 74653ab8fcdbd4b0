from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.model.layers import set_generator

SIZES = {
    "patch_size": 5,
    "dim": 16,
    "depth": 2,
    "n_heads": 2,
    "mlp_dim": 24,
    "decoder_depth": 1,
}
N_REGIONS, WINDOW = 6, 30


def make_model(**parameters) -> BrainLM:
    model = BrainLM(N_REGIONS, WINDOW, **{**SIZES, **parameters}).eval()
    model.set_coordinates(draw(N_REGIONS, 3))
    return model


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n_regions", "n_timepoints"), [(6, 30), (9, 30), (6, 23)])
def test_one_embedding_per_region_and_one_per_scan(
    n_regions: int, n_timepoints: int
) -> None:
    model = BrainLM(n_regions, WINDOW, **SIZES).eval()
    out = model.embeddings(draw(2, n_timepoints, n_regions))
    assert out.regions.shape == (2, n_regions, 16)
    assert out.cls.shape == (2, 16)


def test_forward_returns_the_regions() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    assert torch.equal(model(fmri), model.embeddings(fmri).regions)


def test_published_number_of_parameters() -> None:
    model = BrainLM(424, **BrainLM.preset("13m"))
    assert sum(p.numel() for p in model.parameters()) == 13_035_308
    github = BrainLM(424, dim=256)  # what lies in the original repository
    assert round(sum(p.numel() for p in github.parameters()) / 1e6, 2) == 4.85


def test_weights_start_as_published() -> None:
    model = BrainLM(6, dim=128, mlp_dim=256)
    encoder, decoder = model.encoder, model.decoder
    block = encoder.stack.blocks[0].attention
    for layer in (encoder.embed, encoder.stack.places.project, block.out):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not layer.bias.any()
    assert block.convolution.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    block = decoder.stack.blocks[0].attention
    for layer, n_out in ((decoder.embed, 128), (block.query_key_value, 128)):
        bound = (6 / (128 + n_out)) ** 0.5  # Glorot, per query, key and value
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    bound = 65**-0.5
    assert block.convolution.weight.abs().max().item() == pytest.approx(bound, rel=0.1)


def test_all_weights_are_drawn_from_the_given_generator() -> None:
    before = torch.get_rng_state()
    first, second, other = (make_model(generator=seeded(i)) for i in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.encoder.embed.weight, other.encoder.embed.weight)


def test_config_rebuilds_the_model() -> None:
    model = make_model(mask_ratio=0.5, convolution_kernel=None, sort_visible=True)
    again = BrainLM(**json.loads(json.dumps(model.config))).eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    fmri = draw(2, WINDOW, N_REGIONS)
    assert torch.equal(again(fmri), model(fmri))


def test_embeddings_do_not_change_between_calls_or_with_the_batch() -> None:
    model, fmri = make_model(), draw(3, WINDOW, N_REGIONS)
    assert torch.equal(model(fmri), model(fmri))
    torch.testing.assert_close(model(fmri)[1:2], model(fmri[1:2]))


def test_coordinates_are_stored_with_the_weights_and_matter() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    before = model(fmri)
    assert "coordinates" in model.state_dict()
    model.set_coordinates(model.coordinates + 1)
    assert not torch.allclose(model(fmri), before)
    with pytest.raises(ValueError, match=r"of shape \(6, 3\). Got \(6, 2\)"):
        model.set_coordinates(torch.zeros(6, 2))


def test_coordinate_scale_is_a_factor() -> None:
    fmri = draw(2, WINDOW, N_REGIONS)
    scaled, plain = make_model(coordinate_scale=0.01), make_model()
    plain.set_coordinates(scaled.coordinates * 0.01)
    torch.testing.assert_close(scaled(fmri), plain(fmri))


@pytest.mark.parametrize("kernel", [None, 7, 65])
def test_padding_equals_a_shorter_input(kernel: int | None) -> None:
    model, fmri = make_model(convolution_kernel=kernel), draw(2, WINDOW, N_REGIONS)
    padding = torch.zeros(2, WINDOW, dtype=torch.bool)
    padding[:, 17:] = True  # in the middle of the fourth of six patches
    short = fmri[:, :20].clone()
    short[:, 17:] = 0
    padded, cut = model.embeddings(fmri, padding), model.embeddings(short)
    torch.testing.assert_close(padded.cls, cut.cls)
    torch.testing.assert_close(padded.regions, cut.regions)


def test_each_scan_of_a_batch_has_its_own_padding() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    padding = torch.zeros(2, WINDOW, dtype=torch.bool)
    padding[1, 10:] = True
    together = model(fmri, padding)
    torch.testing.assert_close(together[:1], model(fmri[:1]))
    torch.testing.assert_close(together[1:], model(fmri[1:, :10]))


def test_values_at_padding_do_not_matter_to_the_loss() -> None:
    model, fmri = make_model(), draw(2, WINDOW, N_REGIONS)
    padding = torch.zeros(2, WINDOW, dtype=torch.bool)
    padding[0, 12:] = True
    losses = [
        model.self_supervised_loss(values, seeded(), padding)
        for values in (fmri, fmri.masked_fill(padding.unsqueeze(-1), torch.nan))
    ]
    assert torch.isfinite(losses[0])
    assert torch.equal(*losses)


def test_loss_of_a_padded_scan_is_that_of_a_shorter_one() -> None:
    model = make_model(convolution_kernel=None)  # the decoder's would meet gaps
    fmri = draw(2, WINDOW, N_REGIONS)
    padding = torch.zeros(2, WINDOW, dtype=torch.bool)
    padding[:, 20:] = True
    noise = torch.rand(2, N_REGIONS, 6, generator=seeded())
    padded = model.predict_hidden(fmri, noise.flatten(1), padding)
    cut = model.predict_hidden(fmri[:, :20], noise[..., :4].flatten(1))
    assert int(padded.hidden.sum()) == int(cut.hidden.sum())
    torch.testing.assert_close(padded.error(), cut.error())


@pytest.mark.parametrize("ratio", [0.2, 0.75, 0.9])
def test_as_many_tokens_are_hidden_as_published(ratio: float) -> None:
    model = make_model(mask_ratio=ratio)
    n_tokens = N_REGIONS * WINDOW // SIZES["patch_size"]
    noise = torch.rand(3, n_tokens, generator=seeded())
    hidden = model.predict_hidden(draw(3, WINDOW, N_REGIONS), noise).hidden
    assert hidden.shape == (3, N_REGIONS, 6, 5)
    visible = (~hidden[..., 0]).sum((1, 2))
    assert visible.tolist() == [int(n_tokens * (1 - ratio))] * 3
    by_noise = noise.argsort(1).argsort(1) >= int(n_tokens * (1 - ratio))
    assert torch.equal(hidden[..., 0].flatten(1), by_noise)


@pytest.mark.parametrize("kernel", [None, 5])
@pytest.mark.parametrize("sort_visible", [True, False])
def test_hidden_values_do_not_reach_the_prediction(
    kernel: int | None, sort_visible: bool
) -> None:
    model = make_model(convolution_kernel=kernel, sort_visible=sort_visible)
    fmri, noise = draw(2, WINDOW, N_REGIONS), torch.rand(2, 36, generator=seeded())
    first = model.predict_hidden(fmri, noise)
    at = first.hidden.flatten(2).transpose(1, 2)  # (B, T, R)
    second = model.predict_hidden(fmri + 100 * at, noise)
    assert torch.equal(first.values, second.values)


def test_order_of_visible_tokens_matters_to_the_convolution_only() -> None:
    fmri, noise = draw(2, WINDOW, N_REGIONS), torch.rand(2, 36, generator=seeded())
    for kernel, same in ((None, True), (5, False)):
        errors = [
            make_model(convolution_kernel=kernel, sort_visible=choice)
            .predict_hidden(fmri, noise)
            .error()
            .item()
            for choice in (True, False)
        ]
        assert (errors[0] == pytest.approx(errors[1], abs=1e-6)) == same


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
    model = make_model(sort_visible=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fmri = torch.zeros(2, WINDOW, N_REGIONS)
        padding = torch.zeros(2, WINDOW, dtype=torch.bool)
        assert model.self_supervised_loss(fmri, seeded(), padding).shape == ()
        assert model(fmri, padding).shape == (2, N_REGIONS, 16)


def test_position_dropout_acts_in_training_only() -> None:
    model, fmri = make_model(position_dropout=0.5), draw(2, WINDOW, N_REGIONS)
    noise = torch.rand(2, 36, generator=seeded())
    errors = []
    for training in (False, True):
        model.train(training)
        set_generator(model, seeded())
        errors.append(model.predict_hidden(fmri, noise).error().item())
    assert (
        errors[0]
        == make_model(position_dropout=0).predict_hidden(fmri, noise).error().item()
    )
    assert errors[0] != errors[1]


def test_every_parameter_learns_and_the_loss_falls() -> None:
    model = make_model(position_dropout=0, coordinate_scale=0.1).train()
    time = torch.arange(WINDOW) / 3
    fmri = (time[:, None] + torch.arange(N_REGIONS)).sin().expand(4, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = model.self_supervised_loss(fmri, seeded())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_blocks_by_depth_covers_every_parameter() -> None:
    model = make_model()
    parts = list(model.blocks_by_depth())
    covered = {id(p) for _, part in parts for p in part.parameters()}
    assert covered == {id(p) for p in model.parameters()}
    depths = [depth for depth, part in parts if part in set(model.blocks)]
    assert depths == [1 / 3, 2 / 3]


def test_runs_in_double_precision_and_under_autocast() -> None:
    fmri = draw(2, WINDOW, N_REGIONS)
    double = make_model().double()
    assert double(fmri.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(make_model().self_supervised_loss(fmri, seeded()))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mask_ratio": 0.0}, r"`mask_ratio` must be in \(0, 1\). Got 0.0"),
        ({"convolution_kernel": 4}, "must be odd or None. Got 4"),
        ({"patch_size": 31}, "at most `window`. Got patch_size=31, window=30"),
        ({"n_heads": 3}, "multiple of the number of heads. Got dim=16, n_heads=3"),
    ],
)
def test_impossible_sizes_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**parameters)


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of \('toy', '13m'\). Got '111m'"):
        BrainLM.preset("111m")
