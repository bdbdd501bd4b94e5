"""How far is the decoder above rankings that need no training, and do semantic ids serve it better than one token?

    python -m wpauc_jax.study --config=configs/studies/baselines.py --workdir=runs/baselines --study.workers=2
    python -m wpauc_jax.study --config=configs/studies/baselines.py:office --config.data.root=DATA

`sft` is the decoder with one token an item. The arm `ids` is SFT alone, with a catalog of semantic ids. Popularity, the
last item and the transitions are in every table; `markov` is a control. Without an argument the world is that of
configs/synthetic.py, under five minutes on two cores. Expect both decoders ahead of `markov` there.
"""

import pathlib
from typing import Any

from wpauc_jax.config.names import with_settings
from wpauc_jax.study import Study
from wpauc_jax.study.files import read_config

CONFIGS = pathlib.Path(__file__).resolve().parents[1]
WORLD = {"sft.steps": 300, "eval.num_beams": 40, "rl.rows": "same", "catalog.ids": "atomic"}
CODES: dict[str, Any] = {"catalog.ids": "kmeans", "catalog.levels": 2, "catalog.codes": 8}


def get_study(arg: str | None = None) -> Study:
    if arg:
        base = with_settings(read_config(CONFIGS / "benchmarks.py", arg), {"eval.num_beams": 50})
        grid = {
            "ids": {"sft.optim.learning_rate": (5e-4, 1e-3, 2e-3, 3e-3)}
        }  # that of the base, which has 1e-3 from it
        ids = {"catalog.ids": "kmeans", "catalog.embedding": "cooccurrence" if arg == "toys" else "text+cooccurrence"}
    else:
        base, grid = with_settings(read_config(CONFIGS / "synthetic.py"), WORLD), {}
        ids = CODES
    return Study(
        base=base,
        arms={"ids": {"mode": "sft", **ids}},
        controls=("markov", "sft"),
        metrics=("recall@1", "recall@3", "recall@10", "ndcg@10"),
        grid=grid,
    )
