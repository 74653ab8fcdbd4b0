from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bsym_sklearn.analysis.contrast import contrast, contrast_by_group, stability
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

N_PEOPLE, N_REGIONS = 9, 12
CHAIN = np.eye(N_REGIONS, k=1) + np.eye(N_REGIONS, k=-1)


def null_maps(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs that differ by noise alone, of neighbours that are correlated."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(N_PEOPLE, *shape))
    noise = rng.normal(size=(2, N_PEOPLE, *shape))
    noise += np.roll(noise, 1, axis=-1)
    if len(shape) == 2:
        people, noise = people + people.swapaxes(1, 2), noise + noise.swapaxes(2, 3)
    return people + noise[0], people + noise[1]


def false_positive_rate(n_simulations: int, shape=(N_REGIONS,), **options) -> float:
    """Return how often anything survives although there is nothing."""
    return float(
        np.mean(
            [
                contrast(*null_maps(seed, shape), **options).surviving().any()
                for seed in range(n_simulations)
            ]
        )
    )


# The upper 99.9 % limit of 300 draws at the level 0.05 is 0.093; sparse tests err less.
@pytest.mark.parametrize(
    "options",
    [
        {"correction": "max"},
        {"correction": "fdr"},
        {"correction": "cluster", "adjacency": CHAIN, "cluster_p": 0.05},
        {"correction": "max", "paired": False, "n_permutations": 200},
        {"correction": "max", "n_permutations": 200},
    ],
    ids=["max", "fdr", "cluster", "groups", "random flips"],
)
def test_nothing_is_found_where_there_is_nothing(options) -> None:
    assert false_positive_rate(300, **options) <= 0.093


@pytest.mark.parametrize("correction", ["max", "cluster"])
def test_nothing_is_found_among_edges_where_there_is_nothing(correction) -> None:
    assert false_positive_rate(100, (8, 8), correction=correction) <= 0.13


def test_without_correction_something_is_often_found() -> None:
    found = [contrast(*null_maps(seed, (N_REGIONS,))).p.min() for seed in range(100)]
    assert np.mean(np.array(found) < 0.05) > 0.25


@pytest.mark.parametrize(
    "options",
    [
        {"correction": "max"},
        {"correction": "fdr"},
        {"correction": "cluster", "adjacency": CHAIN},
        {"correction": "max", "paired": False},
    ],
    ids=["max", "fdr", "cluster", "groups"],
)
def test_a_planted_effect_is_found_in_its_place(options) -> None:
    rng = np.random.default_rng(1)
    effect = np.zeros(N_REGIONS)
    effect[3:6] = -2.0
    before = rng.normal(size=(16, N_REGIONS)) / 2
    after = rng.normal(size=(16, N_REGIONS)) / 2 + effect
    found = contrast(after, before, **options)
    np.testing.assert_array_equal(found.surviving(), effect < 0)
    assert (found.effect_size[3:6] < -1.5).all()
    assert (found.high[3:6] < 0).all()
    table = found.table(networks=np.repeat(["a", "b"], 6))
    assert set(table["region"][:3]) == {3, 4, 5}
    assert table["p_corrected"].is_monotonic_increasing
    assert table.loc[table["region"] == 3, "network"].item() == "a"


def test_nine_pairs_are_enumerated() -> None:
    after, before = null_maps(0, (N_REGIONS,))
    found = contrast(after, before)
    assert (found.n_arrangements, found.is_exact, found.n_units) == (256, True, (9,))
    np.testing.assert_array_equal(found.p * 256, np.rint(found.p * 256))
    exact = stats.permutation_test(
        (after - before,),
        lambda x, axis: np.abs(stats.ttest_1samp(x, 0, axis=axis).statistic),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    np.testing.assert_allclose(found.p, exact.pvalue)


def test_more_pairs_are_drawn_and_p_is_never_zero(rng) -> None:
    after = rng.normal(size=(30, 4)) + 5
    found = contrast(after, np.zeros((30, 4)), n_permutations=99)
    assert (found.n_arrangements, found.is_exact) == (100, False)
    np.testing.assert_array_equal(found.p_corrected, 0.01)
    again = contrast(after, np.zeros((30, 4)), n_permutations=99)
    np.testing.assert_array_equal(found.p, again.p)


def test_statistics_of_pairs_are_those_of_scipy(rng) -> None:
    a, b = rng.normal(size=(2, 10, 3))
    found = contrast(a, b)
    expected = stats.ttest_rel(a, b)
    np.testing.assert_allclose(found.t, expected.statistic)
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    np.testing.assert_allclose(
        found.effect_size, (a - b).mean(axis=0) / (a - b).std(axis=0, ddof=1)
    )


def test_statistics_of_groups_are_those_of_scipy(rng) -> None:
    a, b = rng.normal(size=(7, 3)), 3 * rng.normal(size=(5, 3)) + 1
    found = contrast(a, b, paired=False)
    expected = stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(found.t, expected.statistic)
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    pooled = np.sqrt((6 * a.var(axis=0, ddof=1) + 4 * b.var(axis=0, ddof=1)) / 10)
    hedges = (a.mean(axis=0) - b.mean(axis=0)) / pooled * (1 - 3 / (4 * 12 - 9))
    np.testing.assert_allclose(found.effect_size, hedges)
    assert found.n_units == (7, 5)
    assert found.n_arrangements == 792
    exact = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.abs(
            stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic
        ),
        alternative="greater",
        n_resamples=np.inf,
    )
    np.testing.assert_allclose(found.p, exact.pvalue)


@given(st.integers(0, 10_000), st.integers(3, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_turning_the_contrast_round_turns_signs_only(seed, n, paired) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, n + 3, 4))
    one, other = (contrast(*x, paired=paired) for x in ((a, b), (b, a)))
    np.testing.assert_allclose(one.difference, -other.difference)
    np.testing.assert_allclose(one.t, -other.t)
    np.testing.assert_allclose(one.low, -other.high)
    np.testing.assert_allclose(one.p, other.p)
    assert (one.p_corrected >= one.p).all()
    assert one.p_corrected.max() <= 1


def test_symmetric_maps_are_tested_once_per_edge(rng) -> None:
    a, b = null_maps(1, (6, 6))
    for maps in (a, b):
        maps[:, range(6), range(6)] = 1.0
    a[:, 1, 4] += 9
    a[:, 4, 1] += 9
    found = contrast(a, b)
    assert found.is_symmetric
    assert found.n_tested == 15
    assert np.isnan(np.diagonal(found.p)).all()
    np.testing.assert_array_equal(found.p, found.p.T)
    np.testing.assert_array_equal(np.diagonal(found.difference), np.nan)
    table = found.table(list("abcdef"), networks=[*"xxxyyy"])
    assert len(table) == 15
    first = table.loc[0, ["from", "to", "from_network", "to_network"]]
    assert first.tolist() == ["b", "e", "x", "y"]
    assert np.argwhere(found.surviving()).tolist() == [[1, 4], [4, 1]]
    one_way = contrast(a + np.triu(rng.normal(size=(9, 6, 6))), b)
    assert not one_way.is_symmetric
    assert one_way.n_tested == 36  # the diagonal differs now


def test_edges_that_share_a_region_make_one_cluster() -> None:
    a, b = null_maps(2, (10, 10))
    for i, j in ((0, 1), (1, 2), (2, 3), (8, 9)):
        for row, column in ((i, j), (j, i)):
            a[:, row, column] = b[:, row, column] + np.linspace(3, 4, 9)
    found = contrast(a, b, correction="cluster", cluster_p=0.001)
    assert found.clusters is not None
    assert found.clusters[0, 1] == found.clusters[2, 3] == found.clusters[3, 2] == 1
    assert found.clusters[8, 9] > 1
    assert found.surviving()[0, 1]
    assert found.p_corrected[4, 5] == 1
    assert list(found.table().loc[:2, "cluster"]) == [1, 1, 1]


def test_clusters_keep_to_neighbours_and_signs(rng) -> None:
    before = rng.normal(size=(12, 6)) / 9
    after = before + rng.normal(size=(12, 6)) / 9 + [2, 2, -2, 0, 2, 0]
    chain = np.eye(6, k=1) + np.eye(6, k=-1)
    found = contrast(after, before, correction="cluster", adjacency=chain)
    assert found.clusters is not None
    first, second, third, *_ = found.clusters
    assert first == second == 1
    assert third not in (0, first)
    assert found.clusters[[3, 5]].tolist() == [0, 0]
    assert found.clusters[4] not in (0, first, third)


def test_edges_may_be_neighbours_in_space(rng) -> None:
    a, b = rng.normal(size=(2, 9, 5, 5)) / 9
    a[:, 0, 2] += 2
    a[:, 1, 2] += 2  # regions 0 and 1 are neighbours
    a[:, 4, 2] += 2  # shares region 2 only
    adjacency = np.zeros((5, 5))
    adjacency[0, 1] = adjacency[1, 0] = 1
    found = contrast(a, b, correction="cluster", adjacency=adjacency)
    assert found.clusters is not None
    assert found.clusters[0, 2] == found.clusters[1, 2] == 1
    assert found.clusters[4, 2] > 1
    for maps in (a, b):
        maps += maps.swapaxes(1, 2)
    folded = contrast(a, b, correction="cluster", adjacency=adjacency.T)
    assert folded.is_symmetric
    assert folded.clusters is not None
    assert folded.clusters[0, 2] == folded.clusters[2, 1] == 1
    assert folded.clusters[2, 4] > 1


def test_it_can_be_said_which_cells_are_neighbours(rng) -> None:
    a, b = rng.normal(size=(2, 9, 5, 5)) / 9
    a[:, :2, 2] += 2
    a[:, 4, 2] += 2
    cells = np.zeros((25, 25))
    cells[2, 7] = cells[7, 2] = 1  # (0, 2) and (1, 2)
    found = contrast(a, b, correction="cluster", adjacency=cells)
    assert found.clusters is not None
    assert found.clusters[0, 2] == found.clusters[1, 2] == 1
    assert found.clusters[4, 2] > 1


def test_scans_of_a_participant_are_averaged_and_matched(rng) -> None:
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    order = [5, 3, 1, 0, 2, 4]
    people = np.array([*"abcdef"])
    expected = contrast(a, b)
    twice = np.concatenate([a + 1, a - 1])[::-1]
    found = contrast(
        twice, b[order], groups=(np.concatenate([people] * 2)[::-1], people[order])
    )
    np.testing.assert_allclose(found.t, expected.t)
    assert found.n_units == (6,)
    with pytest.raises(ValueError, match="in only one of them, first 'f'"):
        contrast(a[:5], b, groups=(people[:5], people))
    with pytest.raises(ValueError, match="Got participant 'a' in both"):
        contrast(a, b, groups=(people, people), paired=False)
    with pytest.raises(ValueError, match=r"Got shape \(5,\) for 6 rows"):
        contrast(a, b, groups=(people[:5], people))


def test_missing_values_are_refused_unless_always_missing(rng) -> None:
    a, b = rng.normal(size=(2, 8, 4))
    a[:, 2] = b[:, 2] = np.nan
    found = contrast(a, b)
    assert np.isnan(found.p).tolist() == [False, False, True, False]
    assert found.n_tested == 3
    b[5, 1] = np.nan
    message = r"Got nan in B at \[1\], first in scan 5. Leave out scans without"
    with pytest.raises(BrainDataError, match=message):
        contrast(a, b)
    b[5, 1] = np.inf
    with pytest.raises(BrainDataError, match=r"Got inf in B at \[1\]"):
        contrast(a, b)


def test_few_pairs_are_warned_about(rng) -> None:
    a, b = rng.normal(size=(2, 5, 4))
    with pytest.warns(BrainSymphonyWarning, match="Got 16 of 5 pairs"):
        contrast(a, b)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 3), (4, 2)), {}, r"Got shapes \(4, 3\) and \(4, 2\)"),
        (((4, 3), (3, 3)), {}, "Got 4 rows of A and 3 of B"),
        (((1, 3), (4, 3)), {"paired": False}, "Got 1 rows of A and 4 of B"),
        (((9, 3), (9, 3)), {"correction": "none"}, "correction"),
        (((9, 3), (9, 3)), {"cluster_p": 1.5}, "cluster_p"),
        (((9, 3), (9, 3)), {"correction": "cluster"}, r"`adjacency` of shape \(3, 3\)"),
        (
            ((9, 3), (9, 3)),
            {"correction": "cluster", "adjacency": np.eye(4)},
            r"Got \(4, 4\). Say which are neighbours",
        ),
    ],
)
def test_what_cannot_be_contrasted_is_refused(rng, shapes, options, message) -> None:
    a, b = (rng.normal(size=shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        contrast(a, b, **options)


def test_maps_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(BrainDataError, match="Got 18 that are all the same"):
        contrast(np.ones((9, 3)), np.ones((9, 3)))


def test_differences_that_are_all_equal_have_no_spread() -> None:
    a = np.arange(27.0).reshape(9, 3)
    found = contrast(a + np.array([0, 1, 0]), a)
    assert found.t.tolist() == [0, np.inf, 0]
    assert found.p.tolist() == [1, 1 / 256, 1]
    assert found.p_corrected.tolist() == [1, 1 / 256, 1]


def test_tables_need_a_name_per_region(rng) -> None:
    found = contrast(*rng.normal(size=(2, 8, 4)))
    with pytest.raises(ValueError, match=r"needs 4 names, one per region. Got \(3,\)"):
        found.table(list("abc"))


def test_an_effect_of_one_subgroup_is_an_interaction(rng) -> None:
    high = np.arange(20) % 2 == 0
    before = rng.normal(size=(20, 5))
    after = before + rng.normal(size=(20, 5)) / 2
    after[high, 1] += 2
    after[:, 3] += 2
    found = contrast_by_group(after, before, np.where(high, "high", "low"))
    assert list(found.within) == ["high", "low"]
    assert np.flatnonzero(found.within["high"].surviving()).tolist() == [1, 3]
    assert np.flatnonzero(found.within["low"].surviving()).tolist() == [3]
    assert np.flatnonzero(found.interaction.surviving()).tolist() == [1]
    np.testing.assert_allclose(
        found.interaction.difference,
        found.within["high"].difference - found.within["low"].difference,
    )
    with pytest.raises(ValueError, match="of which 3 are different"):
        contrast_by_group(after, before, np.arange(20) % 3)


def test_stability_counts_survivors_and_signs(rng) -> None:
    before = rng.normal(size=(10, 6, 6))
    before += before.swapaxes(1, 2)
    before[:, range(6), range(6)] = 0
    change = np.zeros((6, 6))
    change[0, 1] = change[1, 0] = 4
    seeds = []
    for _ in range(4):
        noise = rng.normal(size=before.shape) * (before != 0) / 3
        seeds.append(contrast(before + change + noise + noise.swapaxes(1, 2), before))
    found = stability(seeds)
    assert found.correlation.shape == (4, 4)
    np.testing.assert_allclose(np.diagonal(found.correlation), 1)
    assert found.correlation.min() > 0.8
    assert found.survival[0, 1] == found.survival[1, 0] == 1
    assert np.isnan(np.diagonal(found.survival)).all()
    assert found.same_sign[0, 1] == 1
    assert np.nanmin(found.same_sign) >= 0.5
    with pytest.raises(ValueError, match="Got 1 of the shapes"):
        stability(seeds[:1])
