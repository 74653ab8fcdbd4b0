#!/bin/bash
# A comparison whose fits run as Dask workers on sixteen tasks. Finished fits are kept in
# results/: submit again to go on, with more models too.
#   sbatch compare.sh cohort/ sex
#SBATCH --ntasks=16 --cpus-per-task=1 --mem-per-cpu=8G --time=12:00:00
set -euo pipefail
export OMP_NUM_THREADS=1
export COHORT="$1" TARGET="$2" SCHEDULER="$PWD/scheduler-${SLURM_JOB_ID}.json"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$SCHEDULER"' EXIT

dask scheduler --scheduler-file "$SCHEDULER" --port 0 --no-dashboard &
srun dask worker --scheduler-file "$SCHEDULER" --nthreads 1 --no-dashboard \
    --death-timeout 300 &

python - <<'PYTHON'
import os

import joblib
from distributed import Client

from bsym_sklearn.analysis.comparison import compare
from bsym_sklearn.analysis.results import summarize
from bsym_sklearn.data import load_cohort

X = load_cohort(os.environ["COHORT"])  # paths: workers read the scans themselves
y = X[os.environ["TARGET"]].to_numpy()
with Client(scheduler_file=os.environ["SCHEDULER"]) as client:
    client.wait_for_workers(1)
    with joblib.parallel_config(backend="dask"):
        results = compare(
            ["dummy", "tangent", "mean_mlp", "brainsymphony-finetuned"],
            X,
            y,
            seeds=(0, 1, 2),
            store="results",
        )
print(summarize(results, reference="tangent"))
PYTHON
