"""One fitted model in many threads and processes: the bits of one call at a time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _reliability_children import RETURNED, in_child
from _reliability_models import (
    TINY,
    digest,
    fitted,
    fitted_classifier,
    scans,
    weights_digest,
)
from _reliability_trials import Row, Trial

import bsym_sklearn

N_THREADS, N_PROCESSES, N_FITS = 64, 2, 4
SAME = "same bits"
# What a fitted model is asked for; each call has scans of its own.
QUESTIONS = {
    "predict": lambda X: digest(fitted_classifier().predict(X)),
    "predict_proba": lambda X: digest(fitted_classifier().predict_proba(X)),
    "transform": lambda X: digest(fitted().transform(X)),
    "transform_regions": lambda X: digest(fitted().transform_regions(X)),
    "reconstruct": lambda X: digest(*fitted().reconstruct(X)),
    "attention": lambda X: digest(fitted().attention(X, "spatial")),
}


def concurrency_trials(
    n_trials: int, n_threads: int = N_THREADS, starts: tuple[str, ...] = ()
) -> Iterator[Trial]:
    """Yield what to try, each part as often; `starts` of fork, spawn, forkserver."""
    parts: dict[str, Callable[[int], int]] = {
        f"{question} in {n_threads} threads": partial(ask, question, n_threads)
        for question in QUESTIONS
    }
    parts[f"{N_FITS} fits in {N_FITS} threads"] = fit_in_threads
    for n in (1, 2):
        part = f"{N_PROCESSES} forks of a process that has computed with {n} threads"
        parts[part] = partial(fork_after, n)
    for start in starts:
        parts[f"{N_PROCESSES} processes by {start}, pickled across"] = partial(
            across_processes, start
        )
    for part, work in parts.items():
        for number in range(n_trials):
            yield Trial(part, number, partial(_run, work, number))


def _run(work: Callable[[int], int], number: int, _: Path) -> Row:
    """Return how many results there were, if all had the bits of one at a time."""
    end = in_child(work, number)
    if end.how == RETURNED:
        return {"outcome": SAME, "results": end.value}
    return {"outcome": f"{end.how}: {end.value}", "results": 0}


def ask(question: str, n_threads: int, number: int) -> int:
    """Ask from all threads at once, some rows in another order in each."""
    X = scans()[0]
    parts = [X.sample(6, random_state=1000 * number + i) for i in range(n_threads)]
    expected = [QUESTIONS[question](part) for part in parts]
    barrier = threading.Barrier(n_threads)

    def together(part: Any) -> str:
        barrier.wait()
        return QUESTIONS[question](part)

    with ThreadPoolExecutor(n_threads) as pool:
        return _agree(list(pool.map(together, parts)), expected)


def fit_in_threads(number: int) -> int:
    """Fit models of different seeds, one after the other and all at once."""
    seeds = [10 * number + i for i in range(N_FITS)]
    expected = [fit(seed) for seed in seeds]
    with ThreadPoolExecutor(N_FITS) as pool:
        return _agree(list(pool.map(fit, seeds)), expected)


def fit(seed: int) -> str:
    """Fit a model and return the hash of its weights."""
    settings = TINY | {"max_epochs": 2, "random_state": seed}
    model = bsym_sklearn.BrainSymphonyEmbedder(**settings)
    return weights_digest(model.fit(scans()[0]))


def fork_after(n_threads: int, number: int) -> int:
    """Compute with some threads, then fork: the children compute with one."""
    torch.set_num_threads(1)
    expected = compute(number)
    torch.set_num_threads(n_threads)
    compute(number)
    ends = [in_child(compute, number, patience=60.0) for _ in range(N_PROCESSES)]
    for end in ends:
        if end.how != RETURNED:
            raise RuntimeError(f"a child {end.how}: {end.value}")
    return sum(_agree(end.value, expected) for end in ends)


def compute(number: int) -> list[str]:
    """Return hashes of an embedding, a fit and a sum over all threads."""
    large = torch.linspace(0, 1, 1 << 18).reshape(1 << 9, 1 << 9)
    values = (large @ large).sin().sum().numpy()
    return [digest(fitted().transform(scans()[0])), fit(number), digest(values)]


def across_processes(start: str, number: int) -> int:
    """Send a fitted model to other processes; some send it back."""
    model, X = fitted(number), scans()[0]
    context = multiprocessing.get_context(start)
    pool: Executor = ProcessPoolExecutor(N_PROCESSES, mp_context=context)
    with pool:
        back = list(pool.map(embed_there, [model] * 4, [X] * 4))
    embedded = [there for there, _ in back]
    again = [digest(returned.transform(X)) for _, returned in back]
    return _agree(embedded + again, [digest(model.transform(X))] * 8)


def embed_there(model: Any, X: Any) -> tuple[str, Any]:
    """Return the hash of an embedding and the model, pickled by hand once more."""
    os.environ["OMP_NUM_THREADS"] = "1"
    model = pickle.loads(pickle.dumps(model))  # noqa: S301  (our own, of this moment)
    return digest(model.transform(X)), model


def _agree(found: list[str], expected: list[str]) -> int:
    """Return how many results there are, or raise."""
    if found != expected:
        pairs = zip(found, expected, strict=True)
        n_wrong = sum(one != other for one, other in pairs)
        raise RuntimeError(f"{n_wrong} of {len(expected)} results differ")
    return len(found)
