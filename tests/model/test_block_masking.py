from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bsym_sklearn.model.block_masking import (
    MASKINGS,
    list_tokens,
    longest_lists,
    sample_blocks,
)

N_BATCHES, N_SCANS, N_REGIONS, N_PATCHES = 40, 16, 450, 10  # the last two published


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def visibility(masking: str) -> Tensor:
    """Return how often the encoder sees each token, (R, P), after listing."""
    generator = seeded()
    seen = torch.zeros(N_REGIONS * N_PATCHES)
    longest = longest_lists(N_REGIONS, N_PATCHES)[0]
    for _ in range(N_BATCHES):
        context, _ = sample_blocks(
            N_SCANS, N_REGIONS, N_PATCHES, generator, masking=masking
        )
        tokens, absent = list_tokens(context, longest=longest, masking=masking)
        seen.index_add_(0, tokens[~absent], torch.ones(int((~absent).sum())))
    return (seen / (N_BATCHES * N_SCANS)).view(N_REGIONS, N_PATCHES)


def test_published_masking_never_shows_the_last_patch_and_few_last_regions() -> None:
    seen = visibility("published")
    assert (seen[:, -1] == 0).all()
    assert (seen[:, 3:7] > 0).any(dim=0).all()
    assert seen[-45:].mean() < 0.25 * seen[:45].mean()


def test_repaired_masking_shows_every_patch_and_region_alike() -> None:
    seen = visibility("repaired")
    assert (seen.mean(0) > 0.05).all()
    first, last = seen[:, 0].mean().item(), seen[:, -1].mean().item()
    assert last == pytest.approx(first, rel=0.35)
    deciles = seen.mean(1).view(10, 45).mean(1)
    assert deciles.max() < 1.15 * deciles.min()


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("n_regions", [3, 4, 7, 20])
@pytest.mark.parametrize("n_patches", [1, 2, 3, 5, 10, 13])
def test_context_is_never_empty_and_overlaps_no_target(
    masking: str, n_regions: int, n_patches: int
) -> None:
    generator = seeded()
    for _ in range(20):
        context, targets = sample_blocks(
            8, n_regions, n_patches, generator, masking=masking
        )
        asked = targets[0] | targets[1] | targets[2]
        assert context.flatten(1).any(1).all()
        assert asked.flatten(1).any(1).all()
        assert not (context & asked).any()


def test_only_published_targets_are_asked_twice() -> None:
    for masking, most in (("published", 2), ("repaired", 1)):
        generator, asked = seeded(), 0
        for _ in range(10):
            _, targets = sample_blocks(8, 50, 10, generator, masking=masking)
            asked = max(asked, int(sum(t.int() for t in targets).max()))
        assert asked == most


def test_patches_that_do_not_exist_are_in_no_block() -> None:
    absent = torch.zeros(4, 10, dtype=torch.bool)
    for scan, n_patches in enumerate((10, 6, 2, 1)):
        absent[scan, n_patches:] = True
    for seed in range(20):
        context, targets = sample_blocks(4, 20, 10, seeded(seed), absent=absent)
        for block in (context, *targets):
            assert not (block & absent.unsqueeze(1)).any()
        assert context.flatten(1).any(1).all()


@pytest.mark.parametrize("masking", MASKINGS)
def test_bounds_of_the_lists_hold(masking: str) -> None:
    for n_regions, n_patches in ((3, 1), (7, 4), (20, 10), (450, 10)):
        bounds = longest_lists(n_regions, n_patches)
        for seed in range(30):
            context, targets = sample_blocks(
                4, n_regions, n_patches, seeded(seed), masking=masking
            )
            assert context.flatten(1).sum(1).max() <= bounds[0]
            assert sum(t.flatten(1).sum(1) for t in targets).max() <= bounds[1]


def test_lists_hold_exactly_the_chosen_tokens() -> None:
    context, _ = sample_blocks(4, 20, 10, seeded())
    tokens, absent = list_tokens(context, longest=500)
    for scan in range(4):
        chosen = context[scan].flatten().nonzero().squeeze(1)
        assert torch.equal(tokens[scan][~absent[scan]], chosen)


def test_published_lists_end_with_the_shortest() -> None:
    context, _ = sample_blocks(4, 20, 10, seeded())
    count = context.flatten(1).sum(1)
    tokens, absent = list_tokens(context, longest=500, masking="published")
    assert count.min() < count.max()
    assert tokens.shape == (4, int(count.min()))
    assert not absent.any()


def test_same_seed_gives_the_same_blocks_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, second = (sample_blocks(4, 20, 10, seeded(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.context, second.context)
