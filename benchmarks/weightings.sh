#!/usr/bin/env bash
# SFT without the latest rows, then RL on those with plain beam negatives and with TAWin aimed at each K, the same
# budget and each choosing its best by validation's Recall@K, for each seed; and as the control SFT on all rows (`all`),
# for as many epochs. What is done is not done again.
#   benchmarks/weightings.sh DATA OUT NAME SEEDS KS [--config.NAME=VALUE ...]
#   benchmarks/weightings.sh ../data runs/weightings office "0 1 2" "1 3 10"
set -euo pipefail
data=$1 out=$2 name=$3 seeds=$4 ks=$5
shift 5
python=${PYTHON:-python}

main() {
  "$python" -m wpauc_jax.main --config="configs/benchmarks.py:$name" --config.data.root="$data" \
    --config.data.dir="$out/$name-data" "$@"
}

for seed in $seeds; do
  sft=$out/$name-seed$seed-sft all=$out/$name-seed$seed-all
  main --workdir="$sft" --config.mode=sft --config.seed="$seed" "$@"
  for k in $ks; do
    for weighting in none tawin; do
      main --workdir="$out/$name-seed$seed-$weighting$k" --config.seed="$seed" --config.sft_from="$sft" \
        --config.rl.weighting="$weighting" --config.rl.target_k="$k" "$@"
    done
  done
  for mode in sft evaluate; do
    main --workdir="$all" --config.mode="$mode" --config.seed="$seed" --config.rl.rows=same "$@"
  done
done

runs() { # rank files of one kind over all seeds
  for seed in $seeds; do printf '%s,' "$out/$name-seed$seed-$1/ranks/$2.npz"; done | sed 's/,$//'
}
for k in $ks; do
  for pair in "none$k:sft none$k:rl" "none$k:sft tawin$k:rl" "none$k:rl tawin$k:rl" "all:sft none$k:rl" "all:sft tawin$k:rl"; do
    read -r a b <<<"$pair"
    echo "== A = ${a/:/ }, B = ${b/:/ }, $name, seeds $seeds"
    "$python" -m wpauc_jax.compare "$(runs "${a%:*}" "${a#*:}")" "$(runs "${b%:*}" "${b#*:}")"
  done
done
