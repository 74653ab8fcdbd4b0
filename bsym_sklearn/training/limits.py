"""Build no module that is much larger than the weights that it will hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

FACTOR = 4  # copies of the weights, such as in another precision
ALLOWANCE = 2**28  # bytes for what is fixed
# Making a tensor takes some twenty calls of torch: more are those of an endless loop.
CALLS_PER_TENSOR = 100
ALLOWED_CALLS = 2_000


class SizeLimit(TorchFunctionMode):
    """Stop torch within this context once it has made far more than `tensors`.

    Sizes come from a file of settings and weights from another: settings that ask for
    a module of terabytes are refused before its memory is filled.

    Parameters
    ----------
    tensors : iterable of Tensor
        Weights that the module is built for.

    Raises
    ------
    MemoryError
        From the call of torch that passes the limit; or a RuntimeError of torch, if the
        machine does not have that much.

    Examples
    --------
    >>> import torch
    >>> with SizeLimit([torch.zeros(2)]):
    ...     torch.empty(10**4, 10**4)
    Traceback (most recent call last):
    MemoryError: the sizes are far larger than the weights
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
        self.bytes_left = ALLOWANCE + FACTOR * sum(sizes)
        self.calls_left = ALLOWED_CALLS + CALLS_PER_TENSOR * len(sizes)
        self._counted: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call torch and subtract the memory that it has taken."""
        made = func(*args, **(kwargs or {}))
        self.calls_left -= 1
        if isinstance(made, Tensor) and not made.is_meta:
            memory = made.untyped_storage()
            if memory.data_ptr() not in self._counted:
                self._counted.add(memory.data_ptr())
                self.bytes_left -= memory.nbytes()
        if self.bytes_left < 0 or self.calls_left < 0:
            raise MemoryError("the sizes are far larger than the weights")
        return made
