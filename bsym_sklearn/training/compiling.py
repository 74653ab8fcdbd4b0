"""Train a module compiled by torch, and leave it as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

COMPILERS = ("g++", "clang++", "c++", "cl")


@contextmanager
def compiled(module: nn.Module) -> Iterator[None]:
    """Compile `module` in place for the length of a ``with`` block.

    The names of its weights stay. Afterwards it computes as it will when it is loaded
    again, to the same bits.

    Parameters
    ----------
    module : nn.Module
        Compiled by torch when it is first called, and again for new shapes.

    Raises
    ------
    RuntimeError
        If there is no C++ compiler.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> with compiled(layer):  # doctest: +SKIP
    ...     layer(torch.ones(1, 2))  # needs a compiler, takes seconds
    """
    names = (os.environ.get("CXX"), *COMPILERS)
    if not any(shutil.which(name) for name in names if name):
        raise RuntimeError(
            "compile=True needs a C++ compiler. Got none on the PATH. Install g++, "
            "clang or Visual Studio's build tools, name one in the environment "
            "variable CXX, or use compile=False."
        )
    module.compile()
    try:
        yield
    finally:
        module._compiled_call_impl = None  # torch compiles in place, but only one way
