"""Peak memory of one work by one variant; run in a process of its own.

Printed as JSON: the megabytes (1e6 bytes) by which the resident set grew at most while
the work was done once, after model and data were there and a tiny run of the same had
loaded (or compiled) all code.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from _speed_works import Cell, make_calls

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
TINY = {"n_regions": 8, "n_timepoints": 16, "n_scans": 1, "depth": 1}


def main() -> None:
    argument: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(argument["threads"])
    cell = Cell(*argument["cell"])
    variant = argument["variant"]
    reference = argument["reference"] and Path(argument["reference"])
    call = make_calls(cell, [variant], reference)[variant]
    tiny = cell._replace(**TINY)  # of the same code
    make_calls(tiny, [variant], reference)[variant]()
    reset_peak()
    before = peak_mb()
    call()
    print(json.dumps(peak_mb() - before))


def reset_peak() -> None:
    """Forget the peak so far, where the system can; else a past one may hide ours."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """Return the largest resident set of this process so far.

    Linux lets `ru_maxrss` start from the parent's, which may be larger than anything
    that happens here, so its own count is read.
    """
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        kilobytes = next(line for line in lines if line.startswith("VmHWM")).split()[1]
        return int(kilobytes) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main()
