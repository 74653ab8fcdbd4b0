"""Fit as one of several processes; what each did is written to a folder.

Launched by test_distributed.py: ``torchrun fit_together.py FOLDER JOB`` with a job in
JSON. A fit in a thread is its own, which is what the joint one is compared with.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import bsym_sklearn
from bsym_sklearn.data import make_cohort
from bsym_sklearn.model.kernels import use_kernel
from bsym_sklearn.training import distributed
from bsym_sklearn.training import net as net_module
from bsym_sklearn.training.callbacks import Checkpoint

RANK = int(os.environ.get("RANK", "0"))
Net: Any = net_module._Net
steps: list[dict[str, Any]] = []  # of the fit that is running


def hash_of(module: torch.nn.Module) -> str:
    content = b"".join(
        tensor.detach().numpy().tobytes()
        for tensor in (*module.parameters(), *module.buffers())
    )
    return hashlib.sha256(content).hexdigest()


def watch(fail: dict[str, Any] | None) -> None:
    """Note every step of a process, and let one fail at one of them."""
    step = Net.train_step_single

    def watched(self: Any, batch: Any, **kwargs: Any) -> Any:
        if fail and fail["rank"] == RANK and fail["step"] == len(steps):
            if fail["how"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fail["how"] == "raise":
                raise OSError("this process alone")
            time.sleep(20)
        steps.append({"rows": batch[1]["row"].tolist(), "hash": hash_of(self.module_)})
        return step(self, batch, **kwargs)

    Net.train_step_single = watched


def fit(estimator: Any, data: Any) -> dict[str, Any]:
    """Return what a fit was like."""
    steps.clear()
    with use_kernel("torch"):  # nothing to compile
        estimator.fit(data.data, data.target)
    module = estimator.net_.module_
    return {
        "steps": list(steps),
        "history": estimator.history_.drop(columns="dur").to_numpy().tolist(),
        "weights": [p.flatten().tolist() for p in module.parameters()],
        "hash": hash_of(module),
        "seed": estimator.seed_,
    }


def main(folder: Path, job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    if job.get("fail"):  # only when it is launched first
        mark = folder / "failed"
        if mark.exists():
            job["fail"] = None
        elif job["fail"]["rank"] == RANK:
            mark.touch()
    watch(job.get("fail"))
    distributed.TIMEOUT = timedelta(seconds=job.get("timeout", 300))
    n_scans = job["n_scans"] + (RANK if job.get("unlike") else 0)
    data = make_cohort(n_scans=n_scans, n_regions=5, n_timepoints=30)
    data.data.loc[[0, 3], "sc"] = None  # some lack a modality
    estimator = getattr(bsym_sklearn, job["estimator"])(**job["params"])
    if job.get("always_keep"):
        begin = Checkpoint.on_train_begin

        def at_once(self: Any, net: Any, **kwargs: Any) -> None:
            self.seconds = 0
            begin(self, net, **kwargs)

        Checkpoint.on_train_begin = at_once
    report: dict[str, Any] = {}
    try:
        report["together"] = fit(estimator, data)
        if job.get("alone") is not None and RANK == 0:
            single = clone(estimator).set_params(**job["alone"])
            with ThreadPoolExecutor(1) as pool:
                report["alone"] = pool.submit(fit, single, data).result()
        if job.get("workers"):
            scores = cross_val_score(
                estimator, data.data, data.target, cv=2, n_jobs=2, error_score="raise"
            )
            report["scores"] = scores.tolist()
    except (OSError, RuntimeError, ValueError) as error:
        report["error"] = [type(error).__name__, str(error)]
    path = folder / f"{job.get('name', 'report')}{RANK}.json"
    path.write_text(json.dumps(report, default=np.ndarray.tolist))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
