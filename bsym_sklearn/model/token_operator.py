"""The token attention's sums as an operator that torch.compile takes as it is.

Without it, torch.compile would trace through the loops of a kernel. Only imported
while compiling: defining an operator takes seconds of imports.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bsym_sklearn.model.token_attention import (
    pull_back,
    save_for_gradients,
    token_gradients,
    token_sums,
)

apply = torch.library.custom_op("bsym_sklearn::token_sums", mutates_args=())(token_sums)
_gradients = torch.library.custom_op("bsym_sklearn::token_gradients", mutates_args=())(
    token_gradients
)
apply.register_autograd(
    partial(pull_back, _gradients), setup_context=save_for_gradients
)


@apply.register_fake
def _(
    alpha: Tensor,
    beta: Tensor,
    slope: Tensor,
    scale: Tensor,  # noqa: ARG001  (the names are the operator's)
    series: Tensor,  # noqa: ARG001
) -> tuple[Tensor, ...]:
    like = [torch.empty_like(x) for x in (alpha, beta, slope, alpha)]
    return (*like, alpha.new_empty(alpha.shape[:2]))


@_gradients.register_fake
def _(
    alpha: Tensor,
    beta: Tensor,
    slope: Tensor,
    scale: Tensor,
    series: Tensor,
    received: list[Tensor],  # noqa: ARG001
    with_series: bool,
) -> tuple[Tensor, ...]:
    like = [torch.empty_like(x) for x in (alpha, beta, slope, scale)]
    return (*like, torch.empty_like(series) if with_series else series.new_empty(0))
