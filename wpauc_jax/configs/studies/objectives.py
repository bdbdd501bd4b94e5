"""Which objective gains over SFT that goes on? GRPO and TAWin on beams, closed forms, soft Top-K, and mixtures.

    python -m wpauc_jax.study --config=configs/studies/objectives.py --workdir=runs/objectives --study.workers=2
    python -m wpauc_jax.study --config=configs/studies/objectives.py:office --config.data.root=DATA
    python -m wpauc_jax.study --config=configs/studies/objectives.py:office-16-0.1 --config.data.root=DATA
    python -m wpauc_jax.study --config=configs/studies/objectives.py:movielens

An objective is an arm: add a line to ARMS to compare another one. All arms start from one SFT by seed and do as many
updates on the same rows. docs/theory.md says what each of them is. On the sets of configs/benchmarks.py, and on
movielens, which is configs/quickstart.py, a learning rate is chosen for every arm by validation, all from one grid,
with the first seed. Every arm keeps the step that is best by validation's NDCG@10; its beginning counts, too.

Numbers behind the name of a set are the width of the model and the dropout of SFT and RL, .3 where it is not given. A
narrow model cannot fit every row, so that it should matter which rows an objective teaches. Without an argument the
world is that of configs/synthetic.py, about five minutes on two cores. Expect SFT going on ahead of all of them there.
"""

import pathlib
from typing import Any

from wpauc_jax.config import ConfigError
from wpauc_jax.config.names import with_settings
from wpauc_jax.study import SHARED_SFT, Of, Study
from wpauc_jax.study.files import read_config

CONFIGS = pathlib.Path(__file__).resolve().parents[1]
WORLD = {"sft.steps": 150, "rl.steps": 60, "rl.batch_size": 256, "eval.num_beams": 40, "rl.kl_coef": 0.0}
SETS = {
    "rl.epochs": 4.0,
    "rl.patience": 0,
    "rl.kl_coef": 0.0,
    "eval.num_beams": 50,
    "eval.select": "ndcg@10",
}
RATES = (3e-5, 1e-4, 3e-4)
EXACT: dict[str, Any] = {"rl.estimator": "exact"}
ARMS: dict[str, dict[str, Any]] = {
    "sft_on": {"mode": "sft", "sft.start_from": SHARED_SFT, "rl.rows": "same"},
    "grpo": {"rl.weighting": "none"},
    "tawin_t1": {"rl.temperature": 1.0},
    "tawin_t4": {"rl.temperature": 4.0},
    "tawin_scaled": {"rl.negative_scale": 0.25},
    "exact_grpo": EXACT,
    "gce": {**EXACT, "rl.kind": "gce", "rl.q": 0.5},
    **{f"soft_top{k}": {**EXACT, "rl.kind": "soft_topk", "rl.target_k": k} for k in (1, 3, 10)},
}


def get_study(arg: str | None = None) -> Study:
    if arg:
        name, *numbers = arg.split("-")
        file = ("quickstart.py", None) if name == "movielens" else ("benchmarks.py", name)
        base = read_config(CONFIGS / file[0], file[1])
        base = with_settings(base, {**SETS, "rl.dropout": base.sft.dropout, **_narrow(*numbers)})
        grid = {"*": {"rl.optim.learning_rate": RATES}, "sft_on": {"sft.optim.learning_rate": RATES}}
        # A row of SFT holds several samples: 8 rows make about as many updates of an epoch as 64 samples of RL.
        length = {"sft.epochs": Of("rl.epochs"), "sft.evals": Of("rl.evals"), "sft.patience": 0, "sft.batch_size": 8}
    else:
        base, grid = with_settings(read_config(CONFIGS / "synthetic.py"), WORLD), {}
        length = {"sft.steps": Of("rl.steps")}
    return Study(
        base=base,
        arms={**ARMS, "sft_on": ARMS["sft_on"] | length},
        controls=("sft_on", "grpo"),
        metrics=("recall@3", "recall@10", "ndcg@10"),
        grid=grid,
    )


def _narrow(width: str = "", dropout: str = "0.3", *more: str) -> dict[str, Any]:
    """The settings of a model of that width, with four heads; none without a width."""
    if not width:
        return {}
    try:
        size, rate = int(width), float(dropout)
    except ValueError:
        size, rate = 0, 0.0
    if more or size <= 0 or size % 8:
        given = "-".join((width, dropout, *more))
        raise ConfigError(
            f"configs/studies/objectives.py: {given!r} behind the name must be a width, a multiple of 8, and a "
            "dropout, as in office-16-0.1"
        )
    shape = {"model.width": size, "model.head_dim": size // 4, "model.ffn_width": 2 * size}
    return {**shape, "sft.dropout": rate, "rl.dropout": rate}
