#!/bin/bash
# GenieRay as a Slurm job: one head and the other nodes' Ray, then one command.
#
#   sbatch --nodes=4 --cpus-per-task=16 --gpus-per-node=1 clusters/slurm.sh run experiments/demo.yaml --out /shared/run
#
# Give times, partition and account as for any job. Repeated after a time limit, the same command continues. The cluster
# environment needs genie-ray installed (`pip install -e .`) and storage that all nodes see.
#SBATCH --job-name=genie-ray
#SBATCH --ntasks-per-node=1
#SBATCH --output=genie-ray-%j.log
set -euo pipefail
[ $# -gt 0 ] || { echo "error: give the command of genie-ray, e.g. run experiments/demo.yaml --out DIR" >&2; exit 2; }

# A token for this job alone, in a file that only its user can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/slurm-$SLURM_JOB_ID-token" OMP_WAIT_POLICY=passive
mkdir -p "$HOME/.ray"
(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head_ip=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)

srun --nodes=1 --ntasks=1 --overlap -w "${nodes[0]}" \
    ray start --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false "${resources[@]}" &
sleep 15
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" ray start --address="$head_ip:$port" "${resources[@]}" &
done
sleep 10
srun --nodes=1 --ntasks=1 --overlap -w "${nodes[0]}" genie-ray "$@" --address "$head_ip:$port"
