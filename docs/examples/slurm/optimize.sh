#!/bin/bash
# Eight workers on one search. Submit again to go on; a worker that is killed loses nothing
# but its current trial, which another repeats.
#   sbatch optimize.sh cohort/ sex
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4 --mem=16G --time=12:00:00
#SBATCH --requeue
set -euo pipefail
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-4}"
export COHORT="$1" TARGET="$2"

python - <<'PYTHON'
import os

from bsym_sklearn.analysis.optimization import optimize
from bsym_sklearn.data import load_cohort

X = load_cohort(os.environ["COHORT"])
y = X[os.environ["TARGET"]].to_numpy()
found = optimize(
    "brainsymphony-scratch",
    X,
    y,
    n_trials=100,  # of all workers together
    storage="search.log",  # in the folder of sbatch, which all machines see
    timeout=11 * 3600,  # begin no trial in the last hour
)
print(found.study_name, found.score, found.params)
found.trials.to_csv("trials.tsv", sep="\t", index=False)
PYTHON
