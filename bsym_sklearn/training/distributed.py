"""One fit over several processes: who computes what, and what they tell each other.

Every process holds the whole model and the list of all scans. Each computes some parts
of every batch; their gradients are added up, so that all take the same step. This is
what DistributedDataParallel does, and not it: a process may have no part of a batch,
stages train different parameters, and parameters without a gradient must stay as they
are, in all processes. One sum of all gradients per step is right in each of these
cases.

What is agreed on goes from host to host. A process that stops closes its connections,
and the others notice at the next step; nobody waits on a device for one that is gone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from math import ceil

import torch
from torch import Tensor, distributed, nn

TIMEOUT = timedelta(minutes=30)  # for a process that is there and does not answer
# Given by torchrun and `accelerate launch`; others are read by torch.
COUNT, COUNT_HERE, RANK_HERE = "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"
RANK = "RANK"


@dataclass(frozen=True)
class Processes:
    """The processes of one fit, seen from one of them.

    Parameters
    ----------
    rank : int, default=0
        Of this process. The first one writes checkpoints and shows progress.
    count : int, default=1
        How many there are. One alone asks nobody.

    Examples
    --------
    >>> Processes().any(False), Processes().sum([1.0, 2.0])
    (False, [1.0, 2.0])
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and shows what one has to."""
        return self.rank == 0

    def own(self, n_scans: int, part: int) -> slice:
        """Return which scans of a batch this process computes: whole parts.

        Parameters
        ----------
        n_scans : int
            In the batch of all processes.
        part : int
            Scans of a part; the last part may have fewer.

        Returns
        -------
        slice
            Empty where there are fewer parts than processes before this one.

        Examples
        --------
        >>> [Processes(rank, 3).own(10, 2) for rank in range(3)]
        [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
        """
        each = ceil(ceil(n_scans / part) / self.count) * part
        first = min(self.rank * each, n_scans)
        return slice(first, min(first + each, n_scans))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in all of them.

        Parameters
        ----------
        parameters : iterable of nn.Parameter
            The same ones everywhere. One that has no gradient in any process keeps
            none, so that the optimizer leaves it alone.
        """
        if self.count == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        found = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
        with _others(self.count):
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        used = [
            p for p, any_has in zip(trained, found.tolist(), strict=True) if any_has
        ]
        if not used:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        total = torch.cat([gradient.flatten() for gradient in gradients])
        del gradients
        with _others(self.count):
            distributed.all_reduce(total)
        parts = total.split([p.numel() for p in used])
        for parameter, gradient in zip(used, parts, strict=True):
            parameter.grad = gradient.view_as(parameter)

    def sum(self, values: list[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.count == 1 or not values:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        with _others(self.count):
            distributed.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Say if any process says so."""
        return any(self.sum([float(flag)]))

    def of_first(self, text: str) -> str:
        """Return the text of the first process."""
        if self.count == 1:
            return text
        content = text.encode()
        length = torch.tensor(len(content))
        self._copy(length)
        received = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_first:
            received = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self._copy(received)
        return received.numpy().tobytes().decode()

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process, to the bit."""
        if self.count == 1:
            return
        for tensor in tensors:
            copy = tensor.detach().clone(memory_format=torch.contiguous_format)
            self._copy(copy.flatten().view(torch.uint8))
            tensor.detach().copy_(copy)

    def require_same(self, content: bytes) -> None:
        """Refuse to go on unless all processes have the same content.

        Raises
        ------
        ValueError
            In all processes, if one differs from the first.
        """
        if self.count == 1:
            return
        own = torch.frombuffer(bytearray(sha256(content).digest()), dtype=torch.uint8)
        all_of_them = [torch.empty_like(own) for _ in range(self.count)]
        with _others(self.count):
            distributed.all_gather(all_of_them, own)
        for rank, other in enumerate(all_of_them):
            if not torch.equal(other, all_of_them[0]):
                raise ValueError(
                    f"A fit over {self.count} processes needs the same scans, targets, "
                    "parameters and checkpoint in each. Got others than in process 0, "
                    f"first in process {rank}. Pass all scans to every process, which "
                    "share them out by themselves, and a `checkpoint_dir` that each "
                    "can read."
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let no process wait for this one if the block fails here alone.

        A loss that is no number is the sum over all processes, which therefore fail
        together and can fit again. Anything else ends their connections.
        """
        try:
            yield
        except FloatingPointError:
            raise
        except BaseException:
            if self.count > 1 and distributed.is_initialized():
                distributed.destroy_process_group()
            raise

    def _copy(self, tensor: Tensor) -> None:
        """Overwrite one contiguous tensor with that of the first process."""
        with _others(self.count):
            distributed.broadcast(tensor, src=0)


def fits_together() -> bool:
    """Say if this process was launched to fit together with others.

    Fits of threads and of the processes that joblib, Dask or multiprocessing start
    inside of it are their own: they come in any order, and fit alone.

    Returns
    -------
    bool

    Examples
    --------
    >>> fits_together()
    False
    """
    return (
        int(os.environ.get(COUNT, "1")) > 1
        and multiprocessing.parent_process() is None
        and threading.current_thread() is threading.main_thread()
    )


def is_first_process() -> bool:
    """Say if this process writes what one of those that fit together has to.

    Returns
    -------
    bool
        True where it fits alone. Connects to nobody.

    Examples
    --------
    >>> is_first_process()
    True
    """
    return not fits_together() or int(os.environ.get(RANK, "0")) == 0


def find_processes() -> Processes:
    """Return the processes to fit with; connect to them the first time.

    Returns
    -------
    Processes
        This one alone unless it was launched by ``torchrun`` or a similar tool.

    Raises
    ------
    ImportError
        If there are several and Accelerate is not installed.
    RuntimeError
        If they are not connected, or no longer.

    Examples
    --------
    >>> find_processes()
    Processes(rank=0, count=1)
    """
    if not fits_together():
        return Processes()
    count = int(os.environ[COUNT])
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            f"A fit over {count} processes needs accelerate. Install it with: "
            'pip install "bsym_sklearn[distributed]". To fit in each process by '
            f"itself, unset the environment variable {COUNT}."
        ) from error
    known = distributed.is_initialized()
    if not known:
        _require_new_store()
    on_cuda = torch.cuda.is_available()
    state = PartialState(
        cpu=not on_cuda,
        # numbers of the host, such as losses, travel without a GPU
        backend="cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        timeout=TIMEOUT,
    )
    if not distributed.is_initialized() or (
        "cpu:gloo" not in distributed.get_backend_config()
    ):
        raise RuntimeError(
            f"A fit over {count} processes needs connections between them, by gloo for "
            "the CPU. Got none: one was lost in an earlier fit, or something else has "
            "made others. Start all processes again, and fit first."
        )
    if not known:
        atexit.register(_disconnect)
    return Processes(state.process_index, state.num_processes)


def processes_here() -> int:
    """Return how many processes of a fit share the memory of this machine.

    Examples
    --------
    >>> processes_here()
    1
    """
    return int(os.environ.get(COUNT_HERE, "1")) if fits_together() else 1


def cuda_of_process() -> str:
    """Return the name of the GPU for this process among those of its machine.

    Examples
    --------
    >>> cuda_of_process()
    'cuda'
    """
    if not fits_together():
        return "cuda"
    index = int(os.environ.get(RANK_HERE, "0")) % torch.cuda.device_count()
    return f"cuda:{index}"


def _require_new_store() -> None:
    """Refuse the store of an earlier start, where old addresses would be waited for."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # https://github.com/pytorch/pytorch/issues/135712
        raise RuntimeError(
            "Processes that torchrun starts again need a new store for their "
            "addresses. Got the one of the start before. Set the environment variable "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun."
        )


@contextmanager
def _others(count: int) -> Iterator[None]:
    """Explain an exchange that failed."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            f"A fit over {count} processes needs all of them. Got no answer from one: "
            f"{error} Look for its error, and start all processes again; with "
            "`checkpoint_dir` the fit goes on from its last checkpoint."
        ) from error


def _disconnect() -> None:
    """End the connections at the end of the program, unless a failure did."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
