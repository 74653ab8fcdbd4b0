"""What children that are forked can do in torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
import torch

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.data import make_cohort
from bsym_sklearn.training import forks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def status_of_child(work: Callable[[], None]) -> int:
    """Call `work` in a forked child; return 0, 1 if it raises, or a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def test_a_fit_in_a_forked_child_makes_the_engine_anew_before_anything() -> None:
    X = make_cohort(n_scans=4, n_regions=5, n_timepoints=30).data
    model = BrainSymphonyEmbedder(dim=8, depth=1, n_heads=2, max_epochs=1)

    def work() -> None:
        assert forks._is_new_child
        assert torch.get_num_threads() == 1
        model.fit(X)
        assert not forks._is_new_child

    assert not forks._is_new_child
    assert status_of_child(work) == 0
    assert not forks._is_new_child


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    with forks._one_at_a_time:
        assert status_of_child(forks.renew_autograd) == 0
