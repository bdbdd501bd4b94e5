#!/usr/bin/env bash
# Runs one training as N processes on this host.
#   launch/local.sh [--dry-run] N --config=configs/quickstart.py --workdir=runs/local ...
# DEVICES=D gives each process D simulated CPU devices; PYTHON and PORT may be set. SIGTERM and Ctrl-C go to every
# process. The exit code is the first one that is not 0; 75 means "saved on SIGTERM, start the same command again".
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=1
  shift
fi
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 [--dry-run] N ARGUMENTS of wpauc_jax.main" >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-.venv/bin/python}
port=${PORT:-$((20000 + $$ % 20000))}
if [[ -n ${DEVICES:-} ]]; then
  export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$DEVICES
fi

set -m # without job control, bash has what it starts in the background ignore Ctrl-C
processes=()
for ((i = 0; i < count; i++)); do
  command=("$python" -m wpauc_jax.main "--coordinator=127.0.0.1:$port" "--num_processes=$count" "--process_id=$i" "$@")
  if [[ $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
  else
    "${command[@]}" &
    processes+=($!)
  fi
done
if [[ $dry_run ]]; then
  exit 0
fi

trap 'kill -TERM "${processes[@]}" 2> /dev/null || true' TERM
trap 'kill -INT "${processes[@]}" 2> /dev/null || true' INT
code=0
for process in "${processes[@]}"; do
  result=0
  wait "$process" || result=$?
  while kill -0 "$process" 2> /dev/null; do # a signal ends `wait`, not the process
    result=0
    wait "$process" || result=$?
  done
  if ((code == 0)); then
    code=$result
  fi
done
exit "$code"
