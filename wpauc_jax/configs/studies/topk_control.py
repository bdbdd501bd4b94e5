"""Does the anchor choose the K whose Recall@K rises? TAWin with anchors 0, 2, 4, 9, plain GRPO, and SFT going on.

    python -m wpauc_jax.study --config=configs/studies/topk_control.py --workdir=runs/topk_control --study.workers=2

Without an argument the world is that of configs/synthetic.py, with a short SFT; the Bayes optimum stands in the
pictures. This takes under five minutes on two cores. A set of configs/benchmarks.py is chosen by its name:

    python -m wpauc_jax.study --config=configs/studies/topk_control.py:office --config.data.root=DATA

All arms start from one SFT by seed and do as many updates. An arm with anchor K - 1 keeps its best checkpoint by
Recall@K. On the sets of configs/benchmarks.py a learning rate is chosen for every arm by validation, with the first
seed.

Expect SFT going on ahead of every RL arm in the synthetic world: likelihood alone learns its law (docs/tutorial.md).
"""

import pathlib

from wpauc_jax.config.names import with_settings
from wpauc_jax.study import SHARED_SFT, Of, Study
from wpauc_jax.study.files import read_config

CONFIGS = pathlib.Path(__file__).resolve().parents[1]
WORLD = {"sft.steps": 150, "rl.steps": 60, "rl.batch_size": 256, "eval.num_beams": 40}
SETS = {"rl.steps": 300, "eval.num_beams": 50}
RATES = (5e-5, 2e-4, 8e-4)


def get_study(arg: str | None = None) -> Study:
    if arg:
        base = with_settings(read_config(CONFIGS / "benchmarks.py", arg), SETS)
        grid = {"*": {"rl.optim.learning_rate": RATES}, "sft_on": {"sft.optim.learning_rate": (1e-4, 3e-4, 1e-3)}}
    else:
        base, grid = with_settings(read_config(CONFIGS / "synthetic.py"), WORLD), {}
    anchors = {f"anchor{anchor}": {"rl.anchor": anchor, "rl.target_k": anchor + 1} for anchor in (0, 2, 4, 9)}
    return Study(
        base=base,
        arms={
            "grpo": {"rl.weighting": "none"},
            "sft_on": {
                "mode": "sft",
                "sft.start_from": SHARED_SFT,
                "rl.rows": "same",  # RL's rows, too
                "sft.steps": Of("rl.steps"),
            },
            **anchors,
        },
        controls=("grpo", "sft_on"),
        metrics=("recall@1", "recall@3", "recall@5", "recall@10"),
        grid=grid,
    )
