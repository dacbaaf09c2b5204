#!/bin/bash
# A recipe on the nodes of a Slurm job. Submit it in the clone, which the nodes must share:
#   sbatch --nodes=4 training/cluster/slurm.sh prior_tinyimagenet --data-root DATA
# Arguments are those of python -m training run. To resume after an interruption, submit it again.
#SBATCH --job-name=dwp-init
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
address=$ip:$port

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  .venv/bin/ray start --head --node-ip-address="$ip" --port="$port" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --block &
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
    bash -c "until .venv/bin/ray start --address=$address --num-cpus=$SLURM_CPUS_PER_TASK --block; do sleep 5; done" &
fi
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  bash -c 'until .venv/bin/ray status --address="$0" >/dev/null 2>&1; do sleep 2; done
    exec .venv/bin/python -m training run "$@" --engine ray --address "$0"' "$address" "$@"
