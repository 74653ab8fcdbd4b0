"""What a fork breaks: threads of OpenMP that a child has not, but waits for.

A process whose parent has computed with several threads hangs in the first sum or
product that torch spreads over threads, since GNU OpenMP takes the parent's threads
for its own. With one thread it asks for none. PyTorch does the same in the workers of
its data loader, but not in the processes of ``multiprocessing`` and ``os.fork``.

Importing this module is enough; a child may choose another number afterwards.
"""

from __future__ import annotations

import os

import torch


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


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=compute_with_one_thread)
