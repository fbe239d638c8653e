#!/usr/bin/env bash
# The same under SLURM, from the folder in which batch.sh lies:
#
#     EXPOSURE=deep.fits FGCM_RUN=fgcm_run OUT=out sbatch --ntasks=100 slurm.sh
#
# Scheduler and commands run on the first node, a worker is a task.
#SBATCH --job-name=skyfold
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail

# Here goes what puts the right skyfold, dask and python3 on PATH: module load, conda activate, ...

export WORKERS=$SLURM_NTASKS
export THREADS=${SLURM_CPUS_PER_TASK:-1}
if [ -n "${SLURM_MEM_PER_CPU:-}" ]; then  # MiB
    export MEMORY="$((SLURM_MEM_PER_CPU * THREADS))MiB"
fi
# srun does not take --cpus-per-task from the job; one worker that ends must not end the others.
export LAUNCH="srun --ntasks=$WORKERS --cpus-per-task=$THREADS --kill-on-bad-exit=0"
exec bash "${SLURM_SUBMIT_DIR:-.}/batch.sh"
