"""Kernels of the token attention, and which one to use.

The kernel compiled by numba (the extra ``fast``) is used on a CPU, torch alone
everywhere else. Both compute the same, to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module

import torch

from bsym_sklearn.exceptions import BrainSymphonyWarning
from bsym_sklearn.model.kernels import plain
from bsym_sklearn.model.kernels.interface import Kernel

KERNELS = ("auto", "torch", "compiled")
COMPILED = f"{__name__}.compiled"  # imports numba, so only when it is needed

_wanted: ContextVar[str] = ContextVar("kernel", default="auto")


@contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Use one kernel inside a ``with`` block, for comparisons and tests.

    A backward pass uses the kernel of the block it is in.

    Parameters
    ----------
    name : {"auto", "torch", "compiled"}
        ``"auto"`` takes the compiled kernel on a CPU if numba can be imported.

    Raises
    ------
    ValueError
        If there is no kernel of that name.

    Examples
    --------
    >>> with use_kernel("torch"):
    ...     pick_kernel(torch.device("cpu")).__name__
    'bsym_sklearn.model.kernels.plain'
    """
    if name not in KERNELS:
        raise ValueError(f"`name` must be one of {KERNELS}. Got {name!r}.")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def pick_kernel(device: torch.device) -> Kernel:
    """Return the kernel for tensors on `device`.

    Parameters
    ----------
    device : torch.device
        Of the inputs.

    Returns
    -------
    Kernel
        A module.

    Raises
    ------
    ImportError
        If the compiled kernel was asked for by name and numba cannot be imported.

    Examples
    --------
    >>> pick_kernel(torch.device("cuda")).__name__
    'bsym_sklearn.model.kernels.plain'
    """
    wanted = _wanted.get()
    if wanted == "compiled" or (
        wanted == "auto" and device.type == "cpu" and _can_compile()
    ):
        return import_module(COMPILED)
    return plain


@cache  # so that the message comes once
def _can_compile() -> bool:
    """Return whether the compiled kernel can be had, with a message if not."""
    try:
        import_module(COMPILED)
    except Exception as error:  # noqa: BLE001  (a broken numba fails in many ways)
        warnings.warn(
            "The compiled kernel is not available, so that BrainSymphony runs on "
            f"torch alone, two to five times slower on a CPU ({error!r}). Install "
            'it with `pip install "bsym_sklearn[fast]"`.',
            BrainSymphonyWarning,
            stacklevel=2,
        )
        return False
    return True
