#!/usr/bin/env bash
# A training on a TPU slice of a GKE cluster, as launch/gke_jobset.yaml describes it.
#   launch/gke_jobset.sh [--dry-run] run NAME ARGS...    ARGS of wpauc_jax.main, with --workdir below /runs
#   launch/gke_jobset.sh [--dry-run] delete NAME
# Set IMAGE (with wpauc_jax[tpu] installed) and CLAIM (a volume that all hosts may write); TOPOLOGY, ACCELERATOR,
# HOSTS and CHIPS (a host) describe the slice. --dry-run prints the manifest and the command.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=1
  shift
fi
if (($# < 2)); then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
action=$1 name=$2
shift 2

manifest() {
  local arguments='[' argument
  for argument in "$@"; do
    if [[ $argument == *[\"\\@]* ]]; then
      echo "$0: quotes, backslashes and @ cannot stand in an argument: $argument" >&2
      exit 2
    fi
    arguments+="\"$argument\", "
  done
  arguments=${arguments%, }]
  local text
  text=$(grep -v '^#' "$(dirname "$0")/gke_jobset.yaml")
  text=${text//@NAME@/$name}
  text=${text//@IMAGE@/${IMAGE:?set IMAGE}}
  text=${text//@CLAIM@/${CLAIM:?set CLAIM}}
  text=${text//@TOPOLOGY@/${TOPOLOGY:-4x4}}
  text=${text//@ACCELERATOR@/${ACCELERATOR:-tpu-v5-lite-podslice}}
  text=${text//@HOSTS@/${HOSTS:-4}}
  text=${text//@CHIPS@/${CHIPS:-4}}
  echo "${text//@ARGUMENTS@/$arguments}"
}

case $action in
  run)
    text=$(manifest "$@")
    if [[ $dry_run ]]; then
      echo "$text"
      echo "kubectl apply -f -"
    else
      kubectl apply -f - <<< "$text"
    fi
    ;;
  delete)
    if [[ $dry_run ]]; then
      echo "kubectl delete jobset $name"
    else
      kubectl delete jobset "$name"
    fi
    ;;
  *)
    echo "$0: unknown action $action; one of run, delete" >&2
    exit 2
    ;;
esac
