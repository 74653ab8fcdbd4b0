#!/bin/bash
# Pretrain one model on all GPUs of four machines. Submit again to go on.
#   sbatch pretrain.sh cohort/ model/
#SBATCH --nodes=4 --ntasks-per-node=1
#SBATCH --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00
#SBATCH --requeue
set -euo pipefail
export OMP_NUM_THREADS=8
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# One torchrun per machine, which starts one process per GPU.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc_per_node 8 --max-restarts 3 \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:29500" \
    -m bsym_sklearn.cli pretrain "$1" --out "$2" \
    --size large --epochs 200 --batch-size 512
