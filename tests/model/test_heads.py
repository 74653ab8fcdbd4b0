from __future__ import annotations

import pytest
import torch

from bsym_sklearn.model import BrainSymphonyOutput, TaskHead
from bsym_sklearn.model.heads import POOLINGS, mean_over_time

B, T, R, DIM, C = 3, 6, 4, 5, 2


def head(**options: object) -> TaskHead:
    module = TaskHead(R, DIM, C, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module.eval()


def output(temporal: bool = True) -> BrainSymphonyOutput:
    generator = torch.Generator().manual_seed(1)
    fused = torch.randn(B, R, DIM, generator=generator)
    over_time = torch.randn(B, T, DIM, generator=generator)
    return BrainSymphonyOutput(fused=fused, temporal=over_time if temporal else None)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_untrained_head_says_nothing(pooling: str) -> None:
    before = torch.get_rng_state()
    logits = TaskHead(R, DIM, C, pooling=pooling)(output())
    assert logits.shape == (B, C)
    assert not logits.any()
    assert torch.equal(torch.get_rng_state(), before)


def test_mean_pooling_is_region_weights_that_are_all_equal() -> None:
    mean, regions = head(pooling="mean"), head(pooling="regions")
    regions.load_state_dict(
        {
            **mean.state_dict(),
            "regions.weight": mean.regions.weight.repeat(1, R) / R,
        }
    )
    torch.testing.assert_close(mean(output()), regions(output()))


def test_two_streams_are_averaged() -> None:
    module, out = head(), output()
    expected = (
        module.regions(out.fused.flatten(1)) + module.temporal(out.temporal.mean(1))
    ) / 2
    torch.testing.assert_close(module(out), expected)


def test_scans_without_fmri_are_read_from_their_regions_alone() -> None:
    module = head()
    has_fmri = torch.tensor([True, False, True])
    mixed = module(output(), has_fmri=has_fmri)
    torch.testing.assert_close(mixed[~has_fmri], module(output(False))[~has_fmri])
    torch.testing.assert_close(mixed[has_fmri], module(output())[has_fmri])


def test_padding_has_no_say() -> None:
    x = output().temporal
    padding = (torch.arange(T) >= 4).expand(B, T)
    torch.testing.assert_close(mean_over_time(x, padding), x[:, :4].mean(1))
    module, out = head(), output()
    short = BrainSymphonyOutput(fused=out.fused, temporal=x[:, :4])
    torch.testing.assert_close(module(out, padding), module(short))


def test_head_without_embeddings_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs fused embeddings"):
        TaskHead(R, DIM, C)(BrainSymphonyOutput())


def test_unknown_pooling_is_an_error() -> None:
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        TaskHead(R, DIM, C, pooling="other")
