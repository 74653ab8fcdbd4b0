"""What was to be reached, set before the code was written."""

from __future__ import annotations

from typing import NamedTuple

from _speed_works import (
    BACKWARD,
    COMPILED,
    FORWARD,
    SC_STEP,
    STEP,
    TORCH,
)


class Target(NamedTuple):
    """How many times faster, and with how many times less memory, at least."""

    faster: dict[str, float]  # by variant
    less_memory: float | None = None


# of one scan at the published size
PUBLISHED = {
    FORWARD: Target({TORCH: 3.5, COMPILED: 9}, 12),
    BACKWARD: Target({TORCH: 3.3, COMPILED: 9}, 9),
    STEP: Target({TORCH: 5, COMPILED: 12}, 9),
    SC_STEP: Target({TORCH: 6}, 5),
}
LONG = Target({TORCH: 3.3, COMPILED: 15})  # forward pass of a long scan
STAND_INS = {"Brain-JEPA stand-in": 100, "BrainLM stand-in": 11}  # times, compiled
LARGEST_MB = 1000
IMPORT_RATIO = 1.5
CROSSVAL_SECONDS = 120
