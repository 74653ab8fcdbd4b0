"""Work in a forked child that may be killed, crash, hang or take too much memory.

A fork costs milliseconds where a new Python costs seconds to import torch, but only a
process of one thread can be forked safely: see :func:`check_one_thread`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, NoReturn

import psutil
from threadpoolctl import threadpool_limits

RETURNED, RAISED = "returned", "raised"
KILLED, CRASHED, HUNG = "killed", "crashed", "hung"
PATIENCE = 300.0  # seconds until a child is said to hang
LONGEST = 10_000  # characters of a message that are kept


class End(NamedTuple):
    """How a child ended.

    `value` is what it returned, the name and text of what it raised, or its status and
    where it was.
    """

    how: str
    value: Any
    seconds: float


def check_one_thread() -> None:
    """Refuse to go on where a fork could take over a lock that nobody gives back."""
    threadpool_limits(1)
    limit = time.perf_counter() + 2  # a thread that was joined may still be there
    while count_threads() > 1 and time.perf_counter() < limit:
        time.sleep(0.01)
    if count_threads() > 1:
        raise SystemExit(
            f"The campaigns need a process of one thread. Got {count_threads()}. "
            "Start them with OMP_NUM_THREADS=1 in the environment."
        )


def count_threads() -> int:
    """Return the threads of this process, without those that see to forks themselves.

    The latter are of jemalloc, which comes with pyarrow, if pandas finds that.
    """
    tasks = Path("/proc/self/task").iterdir()
    names = [(task / "comm").read_text().strip() for task in tasks]
    return sum(not name.startswith("jemalloc") for name in names)


def in_child(
    work: Callable[..., Any],
    *arguments: Any,
    kill_after: float | None = None,
    patience: float = PATIENCE,
    megabytes: int | None = None,
) -> End:
    """Call `work` in a child; what it returns must be what JSON can hold.

    With `kill_after`, the child and its own children get SIGKILL after so many seconds.
    With `megabytes`, it may map that much more memory than its parent has.
    """
    reading, writing = os.pipe()
    begun = time.perf_counter()
    with TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _live(work, arguments, writing, errors.fileno(), megabytes)
        os.close(writing)
        with suppress(OSError):
            os.setpgid(pid, pid)  # the child does the same: whoever comes first
        said = _read(reading, begun + (patience if kill_after is None else kill_after))
        os.close(reading)
        if said is None:
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        seconds = time.perf_counter() - begun
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    if said is None:
        return End(HUNG if kill_after is None else KILLED, None, seconds)
    if os.WIFSIGNALED(status) or not said:
        where = text[max(text.find("Current thread"), 0) :][:LONGEST]
        return End(CRASHED, [status, where], seconds)
    how, value = json.loads(said)
    return End(how, value, seconds)


def _live(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    writing: int,
    errors: int,
    megabytes: int | None,
) -> NoReturn:
    """Be the child."""
    code = 1
    try:
        os.setpgid(0, 0)
        for descriptor in (1, 2):
            os.dup2(errors, descriptor)
        faulthandler.enable(2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if megabytes is not None:
            most = psutil.Process().memory_info().vms + megabytes * 10**6
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            answer = [RETURNED, work(*arguments)]
        except BaseException as error:  # noqa: BLE001  (which one is the result)
            answer = [RAISED, [type(error).__name__, str(error)[:LONGEST]]]
        with os.fdopen(writing, "w") as file:
            json.dump(answer, file)
        code = 0
    finally:
        os._exit(code)


def _read(descriptor: int, limit: float) -> bytes | None:
    """Return all that a child says until it ends, None if it does not in time."""
    said = b""
    while True:
        left = limit - time.perf_counter()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        part = os.read(descriptor, 1 << 16)
        if not part:
            return said
        said += part


def temporary_files(folder: Path) -> list[Path]:
    """Return what a write that was stopped has left: files whose names begin so."""
    return [path for path in folder.rglob(".*") if path.name.startswith(".")]
