"""Sequential recommenders on the same rows as the decoder: `configs/baselines.py:NAME-DATA`.

    python -m wpauc_jax.main --config=configs/baselines.py:sasrec-movielens --workdir=runs/sasrec
    python -m wpauc_jax.main --config=configs/baselines.py:gru4rec-office --config.data.root=DATA

NAME is sasrec, gru4rec, caser or hstu. DATA is movielens, which configs/quickstart.py fetches, or office, toys,
industrial or yelp, whose files configs/benchmarks.py describes. Data, batches, loss and evaluation are those of these
two files, so that only the network differs. There is no RL; `--config.rl.epochs=1` adds it.

The networks have the sizes that the literature uses: width 64, two layers of attention or one recurrent layer. Expect
them ahead of the Markov chain, or level with it, and behind the decoder; docs/results.md has what came out.
"""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from wpauc_jax.config import ConfigError, ModelConfig, to_config_dict
from wpauc_jax.study.files import read_config

_HERE = pathlib.Path(__file__).parent
_TRANSFORMER = {"num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 32}
MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {**_TRANSFORMER, "ffn_width": 256},
    "hstu": _TRANSFORMER,
    "gru4rec": {"num_layers": 1, "ffn_width": 128},
    "caser": {},
}
DATA = {
    "movielens": ("quickstart.py", None),
    **{name: ("benchmarks.py", name) for name in ("office", "toys", "industrial", "yelp")},
}


def get_config(arg: str | None = None) -> ConfigDict:
    name, _, data = (arg or "").partition("-")
    if name not in MODELS or data not in DATA:
        raise ConfigError(
            f"configs/baselines.py knows no {arg!r}; use --config=configs/baselines.py:NAME-DATA with NAME one of "
            f"{', '.join(MODELS)} and DATA one of {', '.join(DATA)}"
        )
    file, argument = DATA[data]
    base = read_config(_HERE / file, argument)
    model = dataclasses.replace(ModelConfig(), family=name, width=64, **MODELS[name])
    return to_config_dict(dataclasses.replace(base, model=model, rl=dataclasses.replace(base.rl, epochs=0.0)))
