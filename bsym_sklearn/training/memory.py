"""How many scans fit into memory at once, and steps in parts of that size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor, nn

from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.training.distributed import processes_here

N_MEASURED = 2  # scans of the measuring pass
# A step needs more than what it keeps for backward: gradients of that, and what
# operations use and free again.
SAFETY = 2.0
# Shares of the free memory to use. Others use the main memory too.
CUDA_SHARE, MAIN_SHARE = 0.8, 0.5
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
Result = TypeVar("Result")


class MicroBatch:
    """Compute a step in parts that fit into memory.

    Parameters
    ----------
    wanted : int, "auto" or None
        Scans to compute at once, at most. None computes all of them; ``"auto"``
        measures what a scan needs in the first step, and halves the number when CUDA
        runs out of memory.

    Examples
    --------
    >>> MicroBatch(6).part_size(16), MicroBatch(None).part_size(16)
    (6, 16)
    """

    def __init__(self, wanted: int | str | None) -> None:
        self.automatic = wanted == "auto"
        self.size = None if isinstance(wanted, str) else wanted

    def part_size(self, n_scans: int) -> int:
        """Return the size of parts of `n_scans` that are as equal as can be."""
        n_parts = 1 if self.size is None else ceil(n_scans / self.size)
        return ceil(n_scans / n_parts)

    def measure(
        self,
        n_scans: int,
        forward: Callable[[int], Any],
        module: nn.Module,
        inputs: Iterable[Tensor],
        generator: torch.Generator,
    ) -> None:
        """Choose the largest size that fits into memory, if that is asked for.

        Parameters
        ----------
        n_scans : int
            In the batch at hand.
        forward : callable
            Applies `module` to the first scans of the batch, so many.
        module : nn.Module
            Trained.
        inputs : iterable of Tensor
            The batch, which is there anyway.
        generator : torch.Generator
            What the pass draws from; left as it was.
        """
        if not self.automatic or self.size is not None:
            return
        n_measured = min(n_scans, N_MEASURED)
        parameters = [p for p in module.parameters() if p.requires_grad]
        there = [*module.parameters(), *module.buffers(), *inputs]
        state = generator.get_state()
        with torch.compiler.set_stance("force_eager"):  # no compiling for two scans
            kept = bytes_kept(lambda: forward(n_measured), there)
        generator.set_state(state)
        device = next(module.parameters()).device
        on_cuda = device.type == "cuda"
        share = CUDA_SHARE if on_cuda else MAIN_SHARE / processes_here()
        # gradients, and AdamW's two moments
        room = share * free_bytes(device) - 3 * sum(p.nbytes for p in parameters)
        needed = max(SAFETY * kept / n_measured, 1.0)
        self.size = max(int(room / needed), 1)

    def run(
        self,
        n_scans: int,
        step: Callable[[int], Result],
        generator: torch.Generator,
        undo: Callable[[], None],
    ) -> Result:
        """Do a step in parts; with ``"auto"``, again in smaller ones if need be.

        Parameters
        ----------
        n_scans : int
            In the batch.
        step : callable
            Does the step in parts of a given size.
        generator : torch.Generator
            What the step draws from; a step that is done again draws the same.
        undo : callable
            Forgets what an unfinished step has left.

        Returns
        -------
        Any
            What `step` returns.
        """
        while self.automatic:
            state = generator.get_state()
            size = self.part_size(n_scans)
            try:
                return step(size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            # not in the handler, which holds on to the tensors of the step
            undo()
            generator.set_state(state)
            torch.cuda.empty_cache()
            self.size = ceil(size / 2)
            warnings.warn(
                f"The device ran out of memory with {size} scans at once. Going on "
                f"with {self.size}; set `micro_batch_size` to begin with that.",
                BrainSymphonyWarning,
                stacklevel=2,
            )
        return step(self.part_size(n_scans))


def bytes_kept(forward: Callable[[], Any], there: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a forward pass keeps for the backward pass.

    Parameters
    ----------
    forward : callable
        Does the pass.
    there : iterable of Tensor, default=()
        Parameters and whatever else does not count.

    Returns
    -------
    int

    Examples
    --------
    >>> layer = nn.Linear(3, 1)
    >>> bytes_kept(lambda: layer(torch.ones(5, 3)).exp(), layer.parameters())
    80
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, _same):
        result = forward()  # alive until all is noted: no address is used twice
    del result
    own = {tensor.untyped_storage().data_ptr() for tensor in there}
    return sum(size for address, size in kept.items() if address not in own)


def free_bytes(device: torch.device | str) -> int:
    """Return how much more memory this process may use on a device.

    Parameters
    ----------
    device : torch.device or str
        CUDA, or anything that uses the main memory.

    Returns
    -------
    int
        For the main memory what is available, within the limits of the control groups
        (versions 1 and 2) that the process is in.

    Examples
    --------
    >>> free_bytes("cpu") > 1_000_000
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return min([psutil.virtual_memory().available, *_rooms_of_cgroups()])


def _rooms_of_cgroups() -> Iterable[int]:
    """Yield the bytes that each control group around this process has left."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):  # of version 2, of version 1
            continue
        root = CGROUPS / controllers
        own = root / path.lstrip("/")
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        # in a container the path may be the host's, and the root the container's
        for folder in {root, own, *own.parents}:
            if folder.is_relative_to(root):
                yield from _room(folder, *names)


def _room(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterable[int]:
    """Yield the bytes that one control group has left, if it has a limit."""
    try:
        allowed = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        rows = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or "max"
        return
    # Pages of files, such as memory-mapped scans, make room when it is needed.
    files = sum(int(n) for name, n in map(str.split, rows) if name == reclaimable)
    yield max(allowed - used + files, 0)


def _same(tensor: Tensor) -> Tensor:
    """Return a kept tensor as it is."""
    return tensor
