from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from bsym_sklearn.training import memory
from bsym_sklearn.training.memory import MicroBatch, bytes_kept, free_bytes


@pytest.mark.parametrize(
    ("wanted", "n_scans", "expected"),
    [(None, 16, 16), (16, 16, 16), (99, 16, 16), (8, 16, 8), (15, 16, 8), (1, 5, 1)],
)
def test_parts_are_as_equal_as_can_be(
    wanted: int | None, n_scans: int, expected: int
) -> None:
    assert MicroBatch(wanted).part_size(n_scans) == expected


def test_bytes_kept_are_those_that_backward_needs() -> None:
    x = torch.ones(10, 100, requires_grad=True)
    assert bytes_kept(lambda: x + 1) == 0
    assert bytes_kept(lambda: x.exp()) == 4000
    assert bytes_kept(lambda: x.exp().exp()) == 8000
    assert bytes_kept(lambda: x * x, [x]) == 0
    y = x.double().detach()
    assert bytes_kept(lambda: (x * y) + (x * y[:, :50].repeat(1, 2)), [x]) == 16000
    with torch.no_grad():
        assert bytes_kept(lambda: x.exp()) == 4000


def test_what_a_pass_keeps_grows_with_the_scans() -> None:
    layer = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 2))
    x = torch.ones(64, 20)
    there = [*layer.parameters(), x]
    one, eight = (bytes_kept(lambda n=n: layer(x[:n]), there) for n in (1, 8))
    assert eight == 8 * one == 8 * 2 * 30 * 4


def measured(
    monkeypatch: pytest.MonkeyPatch, free: int, *, n_scans: int = 16
) -> MicroBatch:
    """Measure a module that keeps 4000 bytes per scan and has 4000 of weights."""
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    layer = nn.Linear(1000, 1, bias=False)
    x, generator = torch.ones(n_scans, 1000), torch.Generator()
    state = generator.get_state()
    n_asked = []

    def forward(n: int) -> torch.Tensor:
        n_asked.append(n)
        noise = torch.rand(n, 1000, generator=generator)
        return layer((x[:n] + noise).square_())

    micro_batch = MicroBatch("auto")
    for _ in range(2):
        micro_batch.measure(n_scans, forward, layer, [x], generator)
    assert n_asked == [min(2, n_scans)]  # once, on the first scans
    assert torch.equal(generator.get_state(), state)
    return micro_batch


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, 1), (40_000, 1), (24_000 + 2 * 8 * 8_000, 8), (10**9, 62_498)],
)
def test_a_micro_batch_fits_into_a_share_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    micro_batch = measured(monkeypatch, free)
    # half of it, less 3 x 4000 bytes; 2 x 4000 bytes per scan
    assert micro_batch.size == expected


def test_one_scan_is_enough_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, 24_000 + 2 * 5 * 8_000, n_scans=1).size == 5


def test_nothing_is_measured_unless_asked_for() -> None:
    for wanted in (None, 3):
        micro_batch = MicroBatch(wanted)
        micro_batch.measure(
            4, lambda n: pytest.fail("measured"), nn.Linear(1, 1), [], torch.Generator()
        )
        assert micro_batch.size == wanted


def write_group(folder: Path, version: int, limit: str, usage: int, files: int) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {files}\nother 7\n")


@pytest.mark.parametrize(
    ("version", "own", "folder"),
    [
        (2, "0::/a/b", "a/b"),
        (2, "0::/a/b", "a"),  # the limit is that of a group around it
        (2, "0::/of/the/host", ""),  # seen from inside a container
        (1, "4:memory:/a", "memory/a"),
        (1, "7:blkio:/\n4:memory:/of/the/host\n0::/", "memory"),
    ],
)
def test_free_memory_ends_at_the_limit_of_the_control_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, own: str, folder: str
) -> None:
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    available = psutil.virtual_memory().available
    assert free_bytes("cpu") > available / 2  # no group at all
    write_group(tmp_path / "groups" / folder, version, "1000", 700, 200)
    assert free_bytes("cpu") == 500
    write_group(tmp_path / "groups" / folder, version, "1000", 1700, 200)
    assert free_bytes("cpu") == 0
    write_group(tmp_path / "groups" / folder, version, "max", 700, 200)
    assert free_bytes("cpu") > available / 2


def test_without_control_groups_what_is_available_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "absent")
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=123)
    )
    assert free_bytes(torch.device("cpu")) == 123
