"""What a fork breaks in torch, and what a child does about it.

**Threads of OpenMP** that a child has not, but waits for. A process whose parent has
computed with several threads hangs in the first sum or product that torch spreads over
threads, since GNU OpenMP takes the parent's threads for its own. With one thread it
asks for none. PyTorch does the same in the workers of its data loader, but not in the
processes of ``multiprocessing`` and ``os.fork``. Importing this module is enough; a
child may choose another number afterwards.

**The engine of autograd**, which a child makes anew at its first operation that can
have a gradient. Nothing keeps two threads from doing so at once, and then one of them
uses what the other destroys (``PythonEngine::get_python_engine`` in torch 2.13): a
segmentation fault in about one of a hundred forks. :func:`renew_autograd` lets one
thread do it, and everything here that takes gradients calls it first.
"""

from __future__ import annotations

import os
import threading

import torch

_one_at_a_time = threading.Lock()
_is_new_child = False


def compute_with_one_thread() -> None:
    """Make torch compute with one thread from now on.

    Examples
    --------
    >>> n_threads = torch.get_num_threads()
    >>> compute_with_one_thread()
    >>> torch.get_num_threads()
    1
    >>> torch.set_num_threads(n_threads)
    """
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def renew_autograd() -> None:
    """In a forked child, make the engine of autograd anew, unless that is done.

    Not in the moment of the fork: another thread of the parent may hold a lock of the
    old engine then, and most children never ask for a gradient.

    Examples
    --------
    >>> renew_autograd()
    """
    global _is_new_child
    with _one_at_a_time:
        if not _is_new_child:
            return
        with torch.inference_mode(False), torch.enable_grad():
            one = torch.ones((), requires_grad=True)
            _ = one * one  # keeps its inputs for a gradient, which asks for the engine
        _is_new_child = False


def _after_fork() -> None:
    """See to the threads at once, and note that the engine is that of the parent."""
    global _one_at_a_time, _is_new_child
    compute_with_one_thread()
    _one_at_a_time = threading.Lock()  # a thread of the parent may have held it
    _is_new_child = True


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
