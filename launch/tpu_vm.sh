#!/usr/bin/env bash
# A training on a Cloud TPU VM slice, on all its hosts, begun again after every pre-emption.
#   launch/tpu_vm.sh [--dry-run] create NAME ZONE TYPE         a spot slice, as in v5litepod-16
#   launch/tpu_vm.sh [--dry-run] setup  NAME ZONE              this checkout onto every host, and installed
#   launch/tpu_vm.sh [--dry-run] run    NAME ZONE TYPE ARGS... ARGS of wpauc_jax.main; --workdir is on a shared disk
#   launch/tpu_vm.sh [--dry-run] delete NAME ZONE
# VERSION is the runtime of the slice. `run` ends when the training does, or fails for another reason than pre-emption.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=1
  shift
fi
if (($# < 3)); then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
action=$1 name=$2 zone=$3
shift 3
preempted=75
source=$(cd "$(dirname "$0")/.." && pwd)

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu() { call gcloud compute tpus tpu-vm "$@" "--zone=$zone"; }

create() {
  tpu create "$name" "--accelerator-type=$1" "--version=${VERSION:-v2-alpha-tpuv5-lite}" --spot
}

setup() {
  call git -C "$source" archive --format=tar.gz --output=/tmp/wpauc_jax.tar.gz HEAD
  tpu scp /tmp/wpauc_jax.tar.gz "$name:wpauc_jax.tar.gz" --worker=all
  tpu ssh "$name" --worker=all "--command=mkdir -p wpauc_jax && tar -xzf wpauc_jax.tar.gz -C wpauc_jax && \
cd wpauc_jax && python3 -m venv .venv && .venv/bin/pip install --quiet --constraint requirements.lock '.[tpu]'"
}

train() {
  local arguments
  arguments=$(printf ' %q' "$@")
  tpu ssh "$name" --worker=all \
    "--command=cd wpauc_jax && .venv/bin/python -m wpauc_jax.main --cluster=tpu$arguments"
}

run() {
  local type=$1 code state
  shift
  while true; do
    code=0
    train "$@" || code=$?
    if ((code == 0)); then
      return 0
    fi
    state=$(gcloud compute tpus tpu-vm describe "$name" "--zone=$zone" '--format=value(state)' || echo GONE)
    if [[ $state != READY ]]; then
      echo "$name is $state: making it again" >&2
      tpu delete "$name" --quiet || true
      create "$type"
      setup
    elif ((code != preempted)); then
      return "$code"
    fi
  done
}

case $action in
  create) create "${1:?TYPE is missing}" ;;
  setup) setup ;;
  run) run "${1:?TYPE is missing}" "${@:2}" ;;
  delete) tpu delete "$name" --quiet ;;
  *)
    echo "$0: unknown action $action; one of create, setup, run, delete" >&2
    exit 2
    ;;
esac
