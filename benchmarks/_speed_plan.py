"""What speed.py measures, and at which sizes."""

from __future__ import annotations

from dataclasses import dataclass

from _speed_works import (
    BACKWARD,
    FMRI_WORKS,
    FORWARD,
    HELPER,
    OURS,
    PUBLISHED_DEPTH,
    REFERENCE,
    SC_FORWARD,
    SC_STEP,
    SC_WORKS,
    STEP,
    TORCH,
    Cell,
)

# Peak memory of the official code, in bytes per token and, times R, per score, as
# measured from 100 to 1000 regions; and how many times that with gradients.
BYTES_PER_TOKEN, BYTES_PER_SCORE = 6.3e3, 14.2
WITH_GRADIENTS = {FORWARD: 1.0, BACKWARD: 1.4, STEP: 1.7}
REFERENCE_LIMIT = 8e9  # bytes; where it needs more it is not run


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is measured."""

    depth: int = PUBLISHED_DEPTH
    n_regions: int = 450
    n_timepoints: int = 200
    long: int = 1200  # time points
    regions: tuple[int, ...] = (100, 200, 450, 1000)
    timepoints: tuple[int, ...] = (200, 400, 1200)
    batches: tuple[int, ...] = (1, 4, 16)
    compared_batches: tuple[int, ...] = (1, 4)
    largest: tuple[int, int] = (1000, 1200)  # regions, time points
    matrix: int = 2048
    floats: int = 1 << 22
    cohort: tuple[int, int, int] = (80, 120, 157)  # scans, regions, time points
    small_epochs: int = 20  # of fine-tuning a small model
    default_epochs: int | None = None  # of one as users get it; None: theirs
    n_processes: int = 2  # for cross-validation, with one thread each

    def crossval(self) -> dict[str, dict[str, int]]:
        """Return the parameters of the classifiers to cross-validate, by name."""
        small = {"dim": 32, "depth": 1, "max_epochs": self.small_epochs}
        defaults = {}
        if self.default_epochs is not None:
            defaults["max_epochs"] = self.default_epochs
        return {
            f"small model ({', '.join(f'{k}={v}' for k, v in small.items())})": small,
            "estimator defaults": defaults,
        }

    def cell(self, work: str, n_scans: int = 1, **sizes: int) -> Cell:
        """Return the cell of a work at the usual size, or at another."""
        usual = Cell(work, self.n_regions, self.n_timepoints, n_scans, self.depth)
        return usual._replace(**sizes)

    def official(self) -> list[Cell]:
        """Return what is compared with the official code."""
        cells = [
            self.cell(work, n_scans)
            for work in (FORWARD, BACKWARD, STEP, SC_FORWARD, SC_STEP)
            for n_scans in self.compared_batches
        ]
        return [*cells, self.cell(FORWARD, n_timepoints=self.long)]

    def scaling(self) -> list[Cell]:
        """Return what shows how cost grows with each size."""
        cells = []
        for work in (FORWARD, BACKWARD):
            cells += [self.cell(work, n_regions=n) for n in self.regions]
            cells += [self.cell(work, n_timepoints=n) for n in self.timepoints]
            cells += [self.cell(work, n) for n in self.batches]
        return [*cells, self.largest_cell()]

    def largest_cell(self) -> Cell:
        """Return what the official code could not do."""
        n_regions, n_timepoints = self.largest
        return self.cell(BACKWARD, n_regions=n_regions, n_timepoints=n_timepoints)


FULL = Plan()
QUICK = Plan(
    depth=1,
    n_regions=12,
    n_timepoints=20,
    long=40,
    regions=(6, 12),
    timepoints=(20, 40),
    batches=(1, 2),
    compared_batches=(1,),
    largest=(16, 40),
    matrix=64,
    floats=1 << 12,
    cohort=(10, 6, 20),
    small_epochs=1,
    default_epochs=1,
    n_processes=1,
)


def variants_of(cell: Cell, *, with_reference: bool) -> tuple[str, ...]:
    """Return what does a work: not the official code where it needs too much."""
    ours = (TORCH,) if cell.work in SC_WORKS else OURS  # SC has one path
    if not with_reference or (cell.work in FMRI_WORKS and not _fits(cell)):
        return ours
    if cell.work == SC_STEP:
        return (REFERENCE, HELPER, *ours)
    return (REFERENCE, *ours)


def _fits(cell: Cell) -> bool:
    """Return whether the official code does this within the limit."""
    n_tokens = cell.n_scans * cell.n_regions * cell.n_timepoints
    n_bytes = n_tokens * (BYTES_PER_TOKEN + BYTES_PER_SCORE * cell.n_regions)
    return n_bytes * WITH_GRADIENTS[cell.work] < REFERENCE_LIMIT
