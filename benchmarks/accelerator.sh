#!/usr/bin/env bash
# Checks and times the project on this machine's accelerator: benchmarks/accelerator.sh OUT [--tiny] [--seconds=480]
#
# OUT/accelerator.json and OUT/accelerator.md hold what was found. The same command again does the parts that are
# missing. With --studies NAME ... it trains shipped studies instead, as in --studies objectives:office --data=DATA.
# It needs JAX for the accelerator, Flax, Optax and Orbax; benchmarks/accelerator.py says what else.
set -euo pipefail
if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: benchmarks/accelerator.sh OUT [--tiny] [--seconds=480] [--studies NAME[:ARGUMENT] ...]" >&2
    exit 2
fi
out=$(realpath -m "$1")
shift
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
# JAX shares the card with PyTorch in one of the parts.
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
exec "${PYTHON:-python3}" -m benchmarks.accelerator "$out" "$@"
