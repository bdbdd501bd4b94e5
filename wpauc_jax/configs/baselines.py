"""Sequential recommenders on the same rows as the decoder: `configs/baselines.py:NAME-DATA`.

    python -m wpauc_jax.main --config=configs/baselines.py:sasrec-movielens --workdir=runs/sasrec
    python -m wpauc_jax.main --config=configs/baselines.py:gru4rec-office --config.data.root=DATA

NAME is sasrec, gsasrec, gru4rec, caser, hstu or tiger. DATA is movielens, which configs/quickstart.py fetches, or
office, toys, industrial or yelp, whose files configs/benchmarks.py describes. Data, batches, loss and evaluation are
those of these two files, so that only the network differs; gsasrec has another loss and more epochs, too. There is no
RL; `--config.rl.epochs=1` adds it.

SASRec was tuned on the validation rows of office, seed 0, by NDCG@10: two layers of width 64, or one or two of 128;
feed-forward widths of 64 and 256; dropout .1, .3, .5; learning rate 1e-3 and 3e-3; batches of 32, 128 and 304 rows; 20
to 160 epochs; not every combination. Two layers of 64 with dropout .5 and batches of 128 are best (.090). One layer of
128 with the decoder's training reaches .086. Normalising behind each part instead of before it changes nothing. The
others have the decoder's width and training; they were not tuned. Expect SASRec level with the decoder on office, and
the others behind; docs/results.md has what came out.

gsasrec has the loss of gSASRec (arXiv 2308.07192): 256 sampled negatives, calibration .75. Its network is one layer of
128, and its batches are the decoder's. Here all scores are computed in any case, so that it saves nothing. It learns
late, so it has 60 epochs: on office it knows next to nothing after 20.

hstu has biases by time on movielens and industrial. The other sets have no clock.

tiger is TIGER (arXiv 2305.05065): a T5 of four layers a side over semantic ids of three codes of 256, with one more
code where two items would be alike, ranked by 20 beams. Its ids come from balanced residual k-means over the items'
text and co-occurrence; `--config.catalog.ids=rqvae` takes an RQ-VAE, as the paper does. It has a row for each target,
and so takes longer.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from wpauc_jax.config import CatalogConfig, Config, ConfigError, ModelConfig, to_config_dict
from wpauc_jax.study.files import read_config

_HERE = pathlib.Path(__file__).parent
_ATTENTION = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 64}
_T5 = {"num_layers": 4, "num_heads": 6, "num_kv_heads": 6, "head_dim": 64, "ffn_width": 1024, "init_std": 1.0}
MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {"num_layers": 2, "width": 64, "num_heads": 2, "num_kv_heads": 2, "head_dim": 32, "ffn_width": 64},
    "gsasrec": {"family": "sasrec", **_ATTENTION, "ffn_width": 256},
    "hstu": _ATTENTION,
    "gru4rec": {"num_layers": 1, "ffn_width": 256},
    "caser": {},
    "tiger": {"family": "t5", **_T5},
}
# What differs beside the model from the data's own configuration.
OTHERS: dict[str, Callable[[Config], Config]] = {
    "sasrec": lambda base: dataclasses.replace(
        base,
        sft=dataclasses.replace(base.sft, dropout=0.5, batch_size=128, epochs=100.0, evals=50, patience=8),
    ),
    "gsasrec": lambda base: dataclasses.replace(
        base, sft=dataclasses.replace(base.sft, objective="gbce", epochs=60.0, evals=30, patience=10)
    ),
    "tiger": lambda base: dataclasses.replace(
        base,
        catalog=CatalogConfig(ids="balanced", levels=3, codes=256),
        sft=dataclasses.replace(base.sft, dropout=0.15),
        eval=dataclasses.replace(base.eval, num_beams=20),
    ),
}
DATA = {
    "movielens": ("quickstart.py", None),
    **{name: ("benchmarks.py", name) for name in ("office", "toys", "industrial", "yelp")},
}
CLOCKS = ("movielens", "industrial")  # the others only have an order


def get_config(arg: str | None = None) -> ConfigDict:
    name, _, data = (arg or "").partition("-")
    if name not in MODELS or data not in DATA:
        raise ConfigError(
            f"configs/baselines.py knows no {arg!r}; use --config=configs/baselines.py:NAME-DATA with NAME one of "
            f"{', '.join(MODELS)} and DATA one of {', '.join(DATA)}"
        )
    file, argument = DATA[data]
    base = read_config(_HERE / file, argument)
    base = OTHERS[name](base) if name in OTHERS else base
    times = {"time_buckets": 128} if name == "hstu" and data in CLOCKS else {}
    model = ModelConfig(**{"family": name, "width": 128, **MODELS[name], **times})
    return to_config_dict(dataclasses.replace(base, model=model, rl=dataclasses.replace(base.rl, epochs=0.0)))
