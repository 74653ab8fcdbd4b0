"""What a computation takes of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psutil
import torch
from threadpoolctl import threadpool_limits


class PeakMemory:
    """Watch how much memory this process holds, from a thread beside the work.

    Parameters
    ----------
    interval : float, default=0.02
        Seconds between two looks; a shorter peak is missed.

    Attributes
    ----------
    megabytes : float
        Most memory that the process held within the block, Python and libraries
        included, in MB (10^6 bytes).

    Examples
    --------
    >>> with PeakMemory() as peak:
    ...     values = bytearray(10**6)
    >>> peak.megabytes > 1
    True
    """

    def __init__(self, interval: float = 0.02) -> None:
        self.interval = interval
        self.megabytes = 0.0

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._ended = Event()
        self._look()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(self.interval):
            self._look()

    def _look(self) -> None:
        held = self._process.memory_info().rss / 1e6
        self.megabytes = max(self.megabytes, held)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread in torch, BLAS and OpenMP, then as before.

    What runs side by side does not fight for cores, and sums keep their order, so that
    the results do not depend on how much runs at once.

    Yields
    ------
    None

    Examples
    --------
    >>> import torch
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
