#!/bin/bash
# Phase 1 on the large models, as one job on a whole node:
#
#   sbatch slurm/run_phase1_large.sh
#
# It loads the models one after the other, stops before its time is up, requeues itself and resumes, until all runs are
# done. `vendomini submit phase1_large` is faster: it gives every model a job of its own, on as many GPUs as it needs.

#SBATCH --job-name=vendomini-phase1-large
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --mem=480G
#SBATCH --time=24:00:00
#SBATCH --signal=USR2@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=vendomini-%j.log

export HF_HUB_OFFLINE=1
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export PYTHONUNBUFFERED=1

# Enable vLLM for faster inference
export VENDOMINI_USE_VLLM=1

# Run experiment
exec srun --export=ALL vendomini run \
    --config configs/phases/phase1_large_models.yaml \
    --cluster
