from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bsym_sklearn.model import BrainSymphonyOutput, TaskHead
from bsym_sklearn.model.heads import OVER_TIME, POOLINGS, READOUTS, mean_over_time

B, T, R, DIM, S, C = 3, 6, 4, 5, 7, 2
SHAPES = {
    "spatial": (R, DIM),
    "temporal": (T, DIM),
    "states": (T, S),
    "structural": (R, DIM),
    "fused": (R, DIM),
}
HAS_FMRI = torch.tensor([True, False, True])
HAS_SC = torch.tensor([True, True, False])


def head(*readouts: str, pooling: str = "regions", dropout: float = 0.0) -> TaskHead:
    """Return a head whose every weight has a value of its own."""
    options = {"pooling": pooling, "dropout": dropout, "n_states": S}
    module = TaskHead(R, DIM, C, readouts=readouts or ("fused",), **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module.eval()


def output(*streams: str) -> BrainSymphonyOutput:
    generator = torch.Generator().manual_seed(1)
    every = {
        name: torch.randn(B, *shape, generator=generator)
        for name, shape in SHAPES.items()
    }
    return BrainSymphonyOutput(**{name: every[name] for name in streams or SHAPES})


def said(module: TaskHead, name: str, vector: Tensor) -> Tensor:
    return module.readouts[name](vector)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_untrained_head_says_nothing(pooling: str) -> None:
    before = torch.get_rng_state()
    module = TaskHead(R, DIM, C, readouts=READOUTS, pooling=pooling, n_states=S)
    logits = module(output())
    assert logits.shape == (B, C)
    assert not logits.any()
    assert torch.equal(torch.get_rng_state(), before)


def test_mean_pooling_is_region_weights_that_are_all_equal() -> None:
    mean, regions = head(pooling="mean"), head(pooling="regions")
    weights = mean.state_dict()
    name = "readouts.fused.weight"
    regions.load_state_dict({**weights, name: weights[name].repeat(1, R) / R})
    torch.testing.assert_close(mean(output()), regions(output()))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_stream_is_read_by_itself_and_averaged(pooling: str) -> None:
    module, out = head(*READOUTS, pooling=pooling), output()
    read = {name: getattr(out, name) for name in READOUTS}
    pooled = {
        name: x.mean(1)
        if pooling == "mean" or name in ("temporal", "states")
        else x.flatten(1)
        for name, x in read.items()
    }
    expected = torch.stack([said(module, n, x) for n, x in pooled.items()], dim=1)
    outputs, weights = module.each(out)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(weights, torch.full((B, len(READOUTS)), 0.2))
    torch.testing.assert_close(module(out), expected.mean(1))


def test_a_stream_that_was_not_computed_has_no_say() -> None:
    module, out = head("spatial", "states"), output("states")
    outputs, weights = module.each(out)
    assert outputs.shape == (B, 1, C)
    assert torch.equal(weights, torch.ones(B, 1))
    expected = said(module, "states", out.states.mean(1))
    torch.testing.assert_close(module(out), expected)


def test_a_modality_that_a_scan_lacks_has_no_say() -> None:
    names = ("spatial", "states", "structural", "fused")
    module, out = head(*names), output()
    outputs, weights = module.each(out, has_fmri=HAS_FMRI, has_sc=HAS_SC)
    expected = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1]])
    torch.testing.assert_close(weights, expected / expected.sum(1, keepdim=True))
    mixed = module(out, has_fmri=HAS_FMRI, has_sc=HAS_SC)
    torch.testing.assert_close(mixed[0], outputs[0].mean(0))
    torch.testing.assert_close(mixed[1], outputs[1, 2:].mean(0))
    torch.testing.assert_close(mixed[2], outputs[2, [0, 1, 3]].mean(0))


def test_the_weights_of_every_scan_sum_to_one() -> None:
    module = head("spatial", "structural")
    _, weights = module.each(output(), has_fmri=HAS_FMRI, has_sc=HAS_SC)
    torch.testing.assert_close(weights.sum(1), torch.ones(B))


def test_padding_has_no_say() -> None:
    module, out = head("temporal", "states", "fused"), output()
    padding = (torch.arange(T) >= 4).expand(B, T)
    torch.testing.assert_close(
        mean_over_time(out.temporal, padding), out.temporal[:, :4].mean(1)
    )
    short = BrainSymphonyOutput(
        fused=out.fused, temporal=out.temporal[:, :4], states=out.states[:, :4]
    )
    torch.testing.assert_close(module(out, padding), module(short))


def test_dropout_hides_what_is_read_in_training_only() -> None:
    module, out = head(*READOUTS, dropout=0.5), output()
    assert torch.equal(module(out), module(out))
    assert not torch.equal(module.train()(out), module.eval()(out))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_averages_lose_at_most_half(pooling: str) -> None:
    """Ones become zero or one over the share that is kept; over time, before it."""
    n_points = 4
    module = TaskHead(200, DIM, 1, readouts=READOUTS, pooling=pooling, dropout=0.8)
    kept: dict[str, set[float]] = {}
    for name, readout in module.readouts.items():
        readout.register_forward_pre_hook(
            lambda _, read, name=name: kept.update(
                {name: set(read[0].unique().tolist())}
            )
        )
    ones = {name: torch.ones(B, 200, DIM) for name in SHAPES}
    ones |= {"temporal": torch.ones(B, n_points, DIM)}
    ones |= {"states": torch.ones(B, n_points, 160)}
    module.train()(BrainSymphonyOutput(**ones))
    wide = {"spatial", "structural", "fused"} if pooling == "regions" else set()
    for name, values in kept.items():
        if name in OVER_TIME:  # means of 4 values that are 0 or 2
            assert {*values} <= {0, 0.5, 1, 1.5, 2}
            assert {0.5, 1, 1.5} <= {*values}
        else:
            assert sorted(values) == pytest.approx([0, 5 if name in wide else 2])


def test_a_head_knows_what_its_backbone_has_to_compute() -> None:
    assert head().needs is None
    assert head("spatial", "fused").needs is None
    assert head("spatial", "states").needs == ("spatial", "states")


def test_head_without_embeddings_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"needs one of \['states', 'fused'\]. Got none"
    ):
        head("states", "fused")(BrainSymphonyOutput())


def test_unknown_pooling_or_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        TaskHead(R, DIM, C, pooling="other")
    with pytest.raises(ValueError, match=r"`readouts` must be one of .* Got 'context'"):
        TaskHead(R, DIM, C, readouts=("context",))
