"""Kill training, comparisons, searches and saves at random moments, and go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from _reliability_children import KILLED, RETURNED, End, in_child, temporary_files
from _reliability_models import (
    compare_counted,
    counted,
    digest,
    fine_tune,
    fitted,
    pretrain,
    scans,
    tune_counted,
)
from _reliability_trials import Row, Trial
from joblib import parallel_config

import bsym_sklearn

SAME = "same bits"
SAVE = "a save over an older one"
MOST_SECONDS_OF_SAVES = 0.3  # some ten saves of a small model


class Victim(NamedTuple):
    """Something to kill: `work` goes on in a folder and returns a hash of all.

    `files` matches what is finished for good. One kill may cost `most_lost` units at
    most, where that is said, and a run is killed `most_kills` times at most.
    """

    name: str
    work: Callable[[Path], str]
    unit: str
    files: str = "nothing"
    most_lost: int | None = None
    most_kills: int = 20


def compare_in_threads(folder: Path) -> str:
    """Compare with two workers."""
    with parallel_config("threading", n_jobs=2):
        return compare_counted(folder)


CELLS = "store/cells/*.json"
VICTIMS = [
    Victim("pretraining", pretrain, "batches"),
    Victim("pretraining, then fine-tuning", fine_tune, "batches"),
    Victim("a comparison", compare_counted, "cells", CELLS, 1),
    Victim("a comparison by two workers", compare_in_threads, "cells", CELLS, 2),
]
if find_spec("optuna") is not None:
    # A trial has two fits; what was at work at two kills counts as a bad trial.
    VICTIMS.append(Victim("a search", tune_counted, "fits", most_lost=2, most_kills=1))


def kill_trials(n_trials: int, seed: int) -> Iterator[Trial]:
    """Yield what to try, each part as often."""
    for victim in VICTIMS:
        for number in range(n_trials):
            run = partial(kill_until_done, victim, [seed, number])
            yield Trial(victim.name, number, run)
    for number in range(n_trials):
        yield Trial(SAVE, number, partial(kill_a_save, [seed, number]))


def kill_until_done(victim: Victim, seed: list[int], folder: Path) -> Row:
    """Kill some work, start it again and kill it again, until it ends by itself."""
    whole, seconds, n_needed = reference(victim)
    rng = np.random.default_rng(seed)
    finished: dict[Path, int] = {}  # when its file was written
    lost, n_changed = [], 0
    while True:
        unfinished = counted(folder) - len(finished)
        delay = None
        if len(lost) < victim.most_kills:
            delay = rng.uniform(0, seconds)
        end = in_child(victim.work, folder, kill_after=delay)
        if end.how == RETURNED and not lost:
            _empty(folder)  # it was faster this time: from the beginning
            continue
        now = {path: path.stat().st_mtime_ns for path in folder.glob(victim.files)}
        n_changed += sum(now.get(path) != time for path, time in finished.items())
        finished = now
        if end.how != KILLED:
            break
        lost.append(counted(folder) - len(finished) - unfinished)
    return {
        "outcome": _outcome(end, whole),
        "kills": len(lost),
        "unit": victim.unit,
        "needed": n_needed,
        "repeated": counted(folder) - n_needed,
        "lost_at_once": _most_lost(victim, lost, counted(folder) - n_needed),
        "most_lost": victim.most_lost,
        "finished_and_changed": n_changed,
        **_left(folder),
    }


def _most_lost(victim: Victim, lost: list[int], repeated: int) -> int | None:
    """Return the most that one kill has cost, where that can be told."""
    if victim.files == CELLS:
        return max(lost, default=0)  # none where it failed by itself
    return repeated if victim.most_kills == 1 else None


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@cache
def reference(victim: Victim) -> tuple[str, float, int]:
    """Return hash, seconds and steps of work that nobody kills."""
    with TemporaryDirectory(prefix="reliability-") as name:
        end = in_child(victim.work, Path(name))
        if end.how != RETURNED:
            raise RuntimeError(f"{victim.name} fails by itself: {end}")
        return end.value, end.seconds, counted(Path(name))


def _outcome(end: End, expected: str) -> str:
    if end.how != RETURNED:
        return f"{end.how}: {end.value}"
    return SAME if end.value == expected else "other bits"


def _left(folder: Path) -> Row:
    left = temporary_files(folder)
    files = [file for path in left for file in (path, *path.rglob("*"))]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return {"files_left": len(left), "bytes_left": sum(sizes)}


def kill_a_save(seed: list[int], folder: Path) -> Row:
    """Kill a process that saves two models in turn: one of them must be there."""
    target = folder / "model"
    models = {_embedding(model): model for model in (fitted(0), fitted(1))}
    fitted(0).save_pretrained(target)
    delay = np.random.default_rng(seed).uniform(0, MOST_SECONDS_OF_SAVES)
    killed = in_child(_save_in_turn, list(models.values()), target, kill_after=delay)
    left = _left(folder)
    there = in_child(_read, target)
    again = in_child(_save_and_read, fitted(1), target)  # from any state
    outcome = SAME if there.value in models else f"{there.how}: {there.value}"
    if again.value != _embedding(fitted(1)):
        outcome = f"cannot be saved again: {again.value}"
    return {"outcome": outcome, "kills": int(killed.how == KILLED), **left}


def _save_in_turn(models: list[Any], target: Path) -> None:
    while True:
        for model in models:
            model.save_pretrained(target)


def _read(target: Path) -> str:
    return _embedding(bsym_sklearn.BrainSymphonyEmbedder.from_pretrained(target))


def _save_and_read(model: Any, target: Path) -> str:
    model.save_pretrained(target)
    return _read(target)


def _embedding(model: Any) -> str:
    return digest(model.transform(scans()[0]))
