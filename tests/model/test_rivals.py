from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nilearn.connectome import ConnectivityMeasure
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.layers import Dropout, initialize_weights, set_generator
from bsym_sklearn.model.rivals import (
    BrainGNN,
    BrainNetCNN,
    BrainNetworkTransformer,
    MeanMLP,
    Rival,
    TimePointTransformer,
)
from bsym_sklearn.model.rivals.bnt import OrthonormalClusters
from bsym_sklearn.model.rivals.brainnetcnn import EdgeToEdge
from bsym_sklearn.model.rivals.graph_layers import (
    BatchNorm,
    RegionConvolution,
    RegionPooling,
    consistency_loss,
)
from bsym_sklearn.model.rivals.graphs import partial_correlations, strongest_edges
from bsym_sklearn.model.rivals.rival import EncoderLayer, correlations, zero_padding

B, T, R, C = 4, 12, 6, 3
SMALL: list[tuple[type[Rival], dict[str, Any]]] = [
    (MeanMLP, {"dim": 8}),
    (TimePointTransformer, {"dim": 8, "mlp_dim": 10, "depth": 2}),
    (TimePointTransformer, {"dim": 8, "mlp_dim": 10, "depth": 1, "readout": "first"}),
    (BrainNetCNN, {"edge_dims": (3, 4), "node_dim": 5, "graph_dim": 7}),
    (BrainNetworkTransformer, {"mlp_dim": 10, "n_clusters": 3}),
    (BrainGNN, {"dims": (4, 5), "edge_share": 0.4, "n_communities": 3}),
]
every_rival = pytest.mark.parametrize(
    ("cls", "sizes"),
    SMALL,
    ids=[cls.__name__ + sizes.get("readout", "") for cls, sizes in SMALL],
)
TOLERANCE: dict[str, float] = {"rtol": 0, "atol": 1e-9}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def build(cls: type[Rival], sizes: dict[str, Any], **options: Any) -> Rival:
    """Return a small network in float64, ready to predict."""
    return cls(R, C, **{**sizes, **options}).double().eval()  # type: ignore[call-arg]


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------ all of them


@every_rival
@pytest.mark.parametrize("n_regions", [2, 3, 7])
@pytest.mark.parametrize("n_scans", [1, 3])
def test_output_has_a_row_per_scan_from_two_regions_on(
    cls: type[Rival], sizes: dict[str, Any], n_regions: int, n_scans: int
) -> None:
    rival = cls(n_regions, C, **sizes).double().train()  # type: ignore[call-arg]
    outputs, loss = rival.outputs_and_loss(normal(n_scans, T, n_regions))
    assert outputs.shape == (n_scans, C)
    assert loss.shape == ()
    assert outputs.isfinite().all()
    assert loss.isfinite()


@every_rival
def test_weights_come_from_the_generator_alone(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        cls(R, C, **sizes, generator=seeded(seed)).state_dict()  # type: ignore[call-arg]
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_rival
def test_weights_do_not_depend_on_the_default_dtype(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    expected = cls(R, C, **sizes).state_dict()  # type: ignore[call-arg]
    torch.set_default_dtype(torch.float64)
    try:
        got = cls(R, C, **sizes).state_dict()  # type: ignore[call-arg]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@every_rival
def test_every_weight_is_drawn(cls: type[Rival], sizes: dict[str, Any]) -> None:
    rival = cls(R, C, **sizes)  # type: ignore[call-arg]
    expected = {k: v.clone() for k, v in rival.state_dict().items()}
    for value in rival.state_dict().values():
        value.fill_(7)
    initialize_weights(rival, seeded())
    assert all(torch.equal(expected[k], v) for k, v in rival.state_dict().items())


@every_rival
def test_dropout_draws_from_the_generator_that_was_set(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival = build(cls, sizes, dropout=0.5).train()
    fmri, outputs = normal(B, T, R), []
    for seed in (0, 0, 1):
        set_generator(rival, seeded(seed))
        outputs.append(rival(fmri))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@every_rival
def test_padding_equals_a_shorter_series(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[1, 9:] = True
    filled = fmri.clone()
    filled[1, 9:] = torch.nan
    out = rival(filled, padding)
    torch.testing.assert_close(out[1:2], rival(fmri[1:2, :9]), **TOLERANCE)
    torch.testing.assert_close(out[2:], rival(fmri[2:]), **TOLERANCE)


@every_rival
def test_scans_do_not_see_each_other_at_prediction(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    one_by_one = torch.cat([rival(fmri[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(rival(fmri), one_by_one, **TOLERANCE)


@every_rival
def test_order_of_time_points_matters_only_to_the_transformer(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    unchanged = torch.allclose(rival(fmri), rival(fmri.flip(1)), **TOLERANCE)
    assert unchanged is (cls is not TimePointTransformer)


@every_rival
def test_gradients_reach_every_parameter(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival = build(cls, sizes).train()
    fmri = normal(B, T, R).requires_grad_()
    outputs, loss = rival.outputs_and_loss(fmri, labels=torch.tensor([0, 0, 1, 1]))
    (outputs.square().sum() + loss).backward()
    assert fmri.grad is not None
    assert fmri.grad.isfinite().all()
    without = [
        name
        for name, p in rival.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert without == []


@every_rival
def test_constant_region_gives_finite_outputs_and_gradients(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    fmri[0] = 0  # a window that never changes
    fmri[1, :, 2] = 0
    fmri.requires_grad_()
    rival(fmri).sum().backward()
    assert fmri.grad is not None
    assert fmri.grad.isfinite().all()


@every_rival
def test_config_and_state_rebuild_the_network(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    copy = cls(**json.loads(json.dumps(rival.config)), generator=seeded(9)).double()
    assert copy.config == rival.config
    copy.load_state_dict(rival.state_dict(), strict=True)
    assert torch.equal(copy.eval()(fmri), rival(fmri))


@every_rival
def test_learns_a_toy_problem(cls: type[Rival], sizes: dict[str, Any]) -> None:
    rival = build(cls, sizes, dropout=0.0).train()
    labels = torch.arange(16) % 2
    shared = normal(16, T, 1, seed=2) * labels[:, None, None]
    fmri = normal(16, T, R) + 2 * shared + labels[:, None, None]
    optimizer = torch.optim.Adam(rival.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        outputs, auxiliary = rival.outputs_and_loss(fmri, labels=labels)
        loss = F.cross_entropy(outputs, labels) + auxiliary
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@every_rival
def test_only_braingnn_adds_to_the_loss(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival, fmri = build(cls, sizes), normal(B, T, R)
    outputs, loss = rival.outputs_and_loss(fmri)
    assert torch.equal(outputs, rival(fmri))
    assert (loss.item() != 0) is (cls is BrainGNN)


# ----------------------------------------------------------------- shared parts


def test_correlations_are_pearsons() -> None:
    fmri = normal(2, 50, R) + normal(2, 50, 1, seed=3)
    expected = np.stack([np.corrcoef(x, rowvar=False) for x in fmri.numpy()])
    np.testing.assert_allclose(correlations(fmri).numpy(), expected, atol=1e-12)


def test_padding_is_zeroed_without_touching_the_input() -> None:
    fmri = torch.full((1, 2, 1), torch.nan)
    fmri[0, 0] = 1
    assert zero_padding(fmri, torch.tensor([[False, True]])).tolist() == [[[1], [0]]]
    assert fmri[0, 1].isnan()


def test_encoder_layer_equals_torchs() -> None:
    layer = EncoderLayer(8, 2, 16, dropout=0.1).double().eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    names = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "out.",
        "linear1.": "expand.",
        "linear2.": "contract.",
        "norm1.": "attention_norm.",
        "norm2.": "feed_forward_norm.",
    }
    state = {}
    for i, (name, value) in enumerate(theirs.state_dict().items()):
        value.copy_(0.3 * normal(*value.shape, seed=i))
        old = next(old for old in names if name.startswith(old))
        state[name.replace(old, names[old])] = value
    layer.load_state_dict(state, strict=True)
    x, absent = normal(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    absent[0, 3:] = True
    expected = theirs(x, src_key_padding_mask=absent)
    torch.testing.assert_close(layer(x, absent)[~absent], expected[~absent])


# ---------------------------------------------------------------------- meanMLP


def test_mean_mlp_has_the_published_parameters() -> None:
    # Linear(53, 160), LayerNorm(160), Linear(160, 2): the ICA components of the paper
    assert n_parameters(MeanMLP(53, 2)) == 53 * 160 + 160 + 2 * 160 + 160 * 2 + 2
    assert MeanMLP(53, 2).dropout.p == 0.49


def test_mean_mlp_averages_what_it_says_of_each_time_point() -> None:
    rival, fmri = build(MeanMLP, {"dim": 8}), normal(B, T, R)
    alone = torch.stack([rival(fmri[:, t : t + 1]) for t in range(T)])
    torch.testing.assert_close(rival(fmri), alone.mean(0), **TOLERANCE)


# ------------------------------------------------------------------ transformer


def test_transformer_has_the_published_parameters() -> None:
    embed, head = 53 * 80 + 80, 80 * 2 + 2
    attention = 4 * (80 * 80 + 80)
    feed_forward = 2 * 80 * 2048 + 2048 + 80
    layer = attention + feed_forward + 4 * 80
    assert n_parameters(TimePointTransformer(53, 2)) == embed + 2 * layer + head


def test_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`readout` must be one of .* Got 'last'"):
        TimePointTransformer(R, C, readout="last")


# ------------------------------------------------------------------ BrainNetCNN


def test_edge_to_edge_equals_a_naive_loop() -> None:
    layer = EdgeToEdge(4, 2, 3).double()
    x = normal(2, 4, 4, 2)
    row = layer.row.weight.detach().view(3, 4, 2)
    column = layer.column.weight.detach().view(3, 4, 2)
    bias = layer.row.bias.detach() + layer.column.bias.detach()
    expected = torch.zeros(2, 4, 4, 3, dtype=torch.float64)
    for b, i, j, d in np.ndindex(2, 4, 4, 3):
        total = bias[d].clone()
        for k, c in np.ndindex(4, 2):
            total += row[d, k, c] * x[b, i, k, c] + column[d, k, c] * x[b, k, j, c]
        expected[b, i, j, d] = total
    torch.testing.assert_close(layer(x).detach(), expected, **TOLERANCE)


def test_edge_to_edge_equals_the_two_convolutions_of_the_torch_port() -> None:
    layer = EdgeToEdge(5, 2, 3).double()
    x = normal(2, 5, 5, 2)
    image = x.permute(0, 3, 1, 2)  # (B, I, R, R)
    row = layer.row.weight.view(3, 5, 2).permute(0, 2, 1).unsqueeze(2)
    column = layer.column.weight.view(3, 5, 2).permute(0, 2, 1).unsqueeze(3)
    expected = F.conv2d(image, row, layer.row.bias)
    expected = expected + F.conv2d(image, column, layer.column.bias)
    torch.testing.assert_close(layer(x).permute(0, 3, 1, 2), expected, **TOLERANCE)


def test_brainnetcnn_parameters_add_up() -> None:
    n = 90
    edges = 2 * (n * 32 + 32) + 2 * (n * 32 * 32 + 32)
    nodes, graph = n * 32 * 64 + 64, n * 64 * 256 + 256
    dense = 256 * 128 + 128 + 128 * 30 + 30 + 30 * 2 + 2
    assert n_parameters(BrainNetCNN(n, 2)) == edges + nodes + graph + dense


def test_brainnetcnn_reaches_the_size_in_the_brainsymphony_table() -> None:
    # "2M" at 450 regions is the widespread torch port, not the paper's own sizes
    port = BrainNetCNN(450, 2, edge_dims=(32, 64), node_dim=1)
    assert round(n_parameters(port) / 1e6) == 2


def test_brainnetcnn_drops_out_only_in_training() -> None:
    rival, fmri = build(BrainNetCNN, {}), normal(B, T, R)
    assert torch.equal(rival(fmri), rival(fmri))
    rival.train()
    assert not torch.equal(rival(fmri), rival(fmri))


# -------------------------------------------------------------------------- BNT


def test_bnt_has_the_published_size_on_cc200() -> None:
    n = 200
    layer = 4 * (n * n + n) + 2 * n * 1024 + 1024 + n + 4 * n
    encode = n * n * 32 + 32 + 32 * 32 + 32 + 32 * n * n + n * n
    head = n * 8 + 8 + 800 * 256 + 256 + 256 * 32 + 32 + 32 * 2 + 2
    got = n_parameters(BrainNetworkTransformer(n, 2))
    assert got == 2 * layer + encode + head
    assert 3.9e6 < got < 4.1e6


def test_cluster_centres_are_orthonormal_and_not_trained() -> None:
    centres = BrainNetworkTransformer(30, 2, n_clusters=10).clusters.centres
    torch.testing.assert_close(centres @ centres.T, torch.eye(10))
    assert not centres.requires_grad


def test_more_clusters_than_channels_are_cut_to_the_channels() -> None:
    rival = BrainNetworkTransformer(5, 2, n_heads=4, n_clusters=100)
    assert rival.clusters.centres.shape == (8, 8)  # 5 regions and 3 zeros
    with pytest.raises(ValueError, match=r"1 to 8 clusters .* Got 9\. Use"):
        OrthonormalClusters(9, 8)


def test_cluster_shares_sum_to_one_and_do_not_depend_on_signs() -> None:
    clusters = OrthonormalClusters(3, 4).double()
    initialize_weights(clusters, seeded())
    x = normal(2, 5, 4)
    shares = clusters.assignments(x)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(shares, clusters.assignments(-x))
    expected = torch.einsum("brk,brd->bkd", shares, x)
    torch.testing.assert_close(clusters(x), expected)


# --------------------------------------------------------------------- BrainGNN


@pytest.mark.parametrize("n_timepoints", [5, 40])
def test_partial_correlations_are_nilearns(n_timepoints: int) -> None:
    fmri = normal(3, n_timepoints, R) + 2 * normal(3, n_timepoints, 1, seed=3)
    measure = ConnectivityMeasure(kind="partial correlation", standardize=False)
    expected = measure.fit_transform(list(fmri.numpy()))
    diagonal = np.arange(R)
    expected[:, diagonal, diagonal] = 0
    np.testing.assert_allclose(partial_correlations(fmri), expected, atol=1e-9)


@pytest.mark.parametrize("connect", [correlations, partial_correlations])
def test_connectivity_does_not_lose_precision_under_autocast(
    connect: Callable[[Tensor], Tensor],
) -> None:
    fmri = normal(2, 300, R).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = connect(fmri)
    assert torch.equal(got, connect(fmri))


@every_rival
def test_mixed_precision_gives_finite_gradients(
    cls: type[Rival], sizes: dict[str, Any]
) -> None:
    rival = cls(R, C, **sizes).train()  # type: ignore[call-arg]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, loss = rival.outputs_and_loss(normal(B, T, R).float())
    (outputs.float().sum() + loss.float()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in rival.parameters()
    )


def test_graph_keeps_the_share_of_positive_edges() -> None:
    weights = normal(3, R, R)
    weights = weights + weights.transpose(1, 2)
    kept = strongest_edges(weights, 0.2)  # 3 of 15 edges
    assert torch.equal(kept, kept.transpose(1, 2))
    assert (kept >= 0).all()
    for graph, values in zip(kept, weights, strict=True):
        upper = values[np.triu_indices(R, 1)]
        expected = upper.sort(descending=True).values[:3].clamp(min=0)
        got = graph[np.triu_indices(R, 1)].sort(descending=True).values
        assert torch.equal(got[:3], expected)
        assert not got[3:].any()


def test_region_convolution_equals_a_naive_loop() -> None:
    layer = RegionConvolution(5, 2, 3, 4).double()
    initialize_weights(layer, seeded())
    layer = layer.double()
    regions = torch.tensor([[4, 0, 2]])
    x, edges = normal(1, 3, 3), normal(1, 3, 3).abs()
    edges = (edges + edges.transpose(1, 2)) * (1 - torch.eye(3))
    edges[0, 0, 1] = edges[0, 1, 0] = 0
    theta = layer.communities.weight.detach()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for i in range(3):
        around = [j for j in range(3) if j == i or edges[0, i, j] > 0]
        weight = torch.stack(
            [edges[0, i, j] if j != i else torch.tensor(1.0) for j in around]
        )
        for share, j in zip(weight.double().softmax(0), around, strict=True):
            mixing = theta[:, regions[0, j]].relu()
            kernel = layer.kernels(mixing).detach().view(3, 4)
            expected[i] += share * x[0, j] @ kernel
    expected += layer.bias.detach()
    got = layer(x, edges, regions)[0].detach()
    torch.testing.assert_close(got, expected, **TOLERANCE)


@pytest.mark.parametrize(("ratio", "n_kept"), [(0.5, 3), (0.3, 2), (1.0, 5)])
def test_pooling_keeps_the_best_share_rounded_up(ratio: float, n_kept: int) -> None:
    pooling = RegionPooling(4, ratio).double()
    initialize_weights(pooling, seeded())
    x = normal(2, 5, 4)
    kept, index, scores = pooling(x)
    assert kept.shape == (2, n_kept, 4)
    raw = (x @ pooling.weight / pooling.weight.norm()).detach()
    torch.testing.assert_close(index, raw.argsort(dim=1, descending=True)[:, :n_kept])
    z = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(scores.detach(), z, rtol=0, atol=1e-4)
    expected = x[1, index[1, 0]] * z[1, index[1, 0]].sigmoid()
    torch.testing.assert_close(kept[1, 0].detach(), expected, rtol=0, atol=1e-4)


def test_pooling_losses_by_hand() -> None:
    pooling = RegionPooling(2, 0.5)
    with torch.no_grad():
        pooling.weight.copy_(torch.tensor([3.0, 4.0]))
    assert pooling.unit_loss().item() == 16
    scores = torch.tensor([[-1.0, 2.0, 0.0]])
    p = scores.sigmoid()[0]
    expected = -(p[1].log() + p[2].log() + (1 - p[0]).log()) / 3
    torch.testing.assert_close(pooling.separation_loss(scores), expected)


def test_consistency_loss_equals_the_published_trace() -> None:
    scores, labels = normal(6, R), torch.tensor([0, 1, 0, 2, 1, 0])
    expected = torch.zeros((), dtype=torch.float64)
    for c in range(3):
        s = scores[labels == c].sigmoid()
        n = len(s)
        laplacian = n * torch.eye(n, dtype=torch.float64) - 1
        expected += torch.trace(s.T @ laplacian @ s) / n**2
    torch.testing.assert_close(consistency_loss(scores, labels), expected)


def test_consistency_loss_is_added_only_with_labels_and_weight() -> None:
    fmri, labels = normal(B, T, R), torch.tensor([0, 0, 1, 1])
    plain = build(BrainGNN, {}).outputs_and_loss(fmri, labels=labels)[1]
    rival = build(BrainGNN, {}, consistency_weight=1.0)
    assert torch.equal(rival.outputs_and_loss(fmri)[1], plain)
    assert rival.outputs_and_loss(fmri, labels=labels)[1] > plain


def test_braingnn_parameters_add_up() -> None:
    n, k = 200, 8
    first = n * k + k * n * 32 + n * 32 + 32
    second = n * k + k * 32 * 32 + 32 * 32 + 32
    dense = 128 * 32 + 32 + 32 * 512 + 512 + 512 * 2 + 2
    norms = 2 * 32 + 2 * 512
    expected = first + second + 32 + 32 + dense + norms
    assert n_parameters(BrainGNN(n, 2)) == expected


def test_batch_norm_of_one_scan_uses_and_keeps_the_running_statistics() -> None:
    norm = BatchNorm(2).train()
    norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    one = torch.tensor([[5.0, 6.0]])
    trained = norm(one)
    assert torch.equal(trained, norm.eval()(one))
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())


@pytest.mark.parametrize("name", ["ratio", "edge_share"])
@pytest.mark.parametrize("share", [0, 1.5])
def test_braingnn_refuses_shares_out_of_range(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be in \(0, 1\]. Got {share}"):
        BrainGNN(R, C, **{name: share})  # type: ignore[arg-type]


def test_braingnn_does_not_depend_on_the_order_of_its_graph() -> None:
    """Renaming the regions, with their weights, changes nothing."""
    rival, fmri = build(BrainGNN, {"edge_share": 0.4}), normal(B, T, R)
    expected = rival(fmri)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for i, layer in enumerate(_convolutions(rival)):
        weight = layer.communities.weight.data
        weight.copy_(weight[:, order].clone())
        if i == 0:  # its input channels are correlations with the regions
            for tensor in (layer.kernels.weight.data, layer.kernels.bias.data):
                blocks = tensor.unflatten(0, layer.dims)
                tensor.copy_(blocks[order].flatten(0, 1).clone())
    torch.testing.assert_close(rival(fmri[:, :, order]), expected, **TOLERANCE)


def _convolutions(rival: nn.Module) -> Iterator[RegionConvolution]:
    for module in rival.modules():
        if isinstance(module, RegionConvolution):
            yield module


def test_dropout_rates_are_the_published_ones() -> None:
    rates = {
        cls.__name__: {m.p for m in cls(R, C).modules() if isinstance(m, Dropout)}  # type: ignore[call-arg]
        for cls, _ in SMALL
    }
    assert rates == {
        "MeanMLP": {0.49},
        "TimePointTransformer": {0.3, 0.1},
        "BrainNetCNN": {0.5},
        "BrainNetworkTransformer": {0.1},
        "BrainGNN": {0.5},
    }


def test_weights_of_a_layer_start_within_its_fan_in() -> None:
    weight = BrainNetCNN(R, C).nodes.weight
    assert weight.abs().max() <= math.sqrt(1 / weight.shape[1])
