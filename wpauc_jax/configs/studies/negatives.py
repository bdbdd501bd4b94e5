"""Which negatives teach? The likeliest items, items drawn from the model, random ones, or all of them in closed form.

    python -m wpauc_jax.study --config=configs/studies/negatives.py --workdir=runs/negatives --study.workers=2
    python -m wpauc_jax.study --config=configs/studies/negatives.py:office --config.data.root=DATA

docs/theory.md says what the theory expects: random negatives serve AUC, beams a partial AUC. `random`, `sample` and
`beam` are TAWin on such groups. The target is put into every group that lacks it, since random groups would hardly ever
hold it. `exact` is what plain GRPO on sampled groups is in expectation, without a group. Without an argument the world
is that of configs/synthetic.py, under five minutes on two cores. Expect SFT going on ahead of the groups there.
"""

import pathlib

from wpauc_jax.config.names import with_settings
from wpauc_jax.study import SHARED_SFT, Of, Study
from wpauc_jax.study.files import read_config

CONFIGS = pathlib.Path(__file__).resolve().parents[1]
INJECTED = {"rl.inject_target": "if_missing"}
WORLD = {"sft.steps": 150, "rl.steps": 60, "rl.batch_size": 256, "eval.num_beams": 40, **INJECTED}
SETS = {"rl.steps": 300, "eval.num_beams": 50, **INJECTED}


def get_study(arg: str | None = None) -> Study:
    if arg:
        base = with_settings(read_config(CONFIGS / "benchmarks.py", arg), SETS)
        grid = {"*": {"rl.optim.learning_rate": (5e-5, 2e-4, 8e-4)}}
    else:
        base, grid = with_settings(read_config(CONFIGS / "synthetic.py"), WORLD), {}
    return Study(
        base=base,
        arms={
            "random": {"rl.negatives": "random"},
            "sample": {"rl.negatives": "sample"},
            "beam": {"rl.negatives": "beam"},
            "exact": {"rl.estimator": "exact", "rl.inject_target": "never", "rl.kl_coef": 0.0},
            "sft_on": {
                "mode": "sft",
                "sft.start_from": SHARED_SFT,
                "rl.rows": "same",
                "sft.steps": Of("rl.steps"),
            },
        },
        controls=("random", "sft_on"),
        metrics=("recall@1", "recall@3", "recall@10", "ndcg@10"),
        grid=grid,
    )
