#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-2%2
#SBATCH --cpus-per-task=CPUS
#SBATCH --dependency=afterany:11:12
#SBATCH --gpus-per-node=GPUS
#SBATCH --job-name=phase1_large_models.ID.0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=MEMORY
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=RESULTS/submissions/ID/0/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=720

# setup
export HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"  # where `vendomini prefetch` put the models: a shared folder
export HF_HUB_OFFLINE=1                                # compute nodes have no internet; nothing is looked up there
export VENDOMINI_USE_VLLM="${VENDOMINI_USE_VLLM:-1}"   # 1 asks for vLLM (falls back by itself), 0 forbids it
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not take over --cpus-per-task by itself
export PYTHONUNBUFFERED=1                              # the log is there to be read while the job runs

# command
srun --export=ALL --unbuffered --output RESULTS/submissions/ID/0/%A_%a_%t_log.out "${VENDOMINI_SRUN[@]}" "${VENDOMINI_PYTHON[@]:-PYTHON}" -P -u -m vendomini.cluster.job RESULTS/submissions/ID DIGEST 0
