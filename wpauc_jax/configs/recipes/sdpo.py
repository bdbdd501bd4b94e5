"""S-DPO (arXiv 2406.09215): after SFT, the target is preferred over several other items at once.

    python -m wpauc_jax.main --config=configs/recipes/sdpo.py:0.5B-title --workdir=runs/sdpo

The argument is that of configs/recipes/tawin.py, and so are data, weights, SFT and what they need. The loss compares
log-ratios to the best SFT (`rl.kind=sdpo`, `rl.dpo_beta`). As in the paper, three negatives are drawn evenly from the
catalog. `--config.rl.negatives=beam --config.rl.inject_target=if_missing` takes the likeliest items instead.

Expect hours of training on a GPU or TPU. No run at this size has been measured here.

What differs: log-probabilities are over the whole vocabulary, as in the paper, but beams in evaluation stay inside the
catalog. The paper asks its model to choose among 20 titles that stand in the prompt. Here the whole catalog competes.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import to_config_dict
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    base = recipe("sdpo.py", arg)
    rl = dataclasses.replace(
        base.rl, kind="sdpo", negatives="random", group_size=4, weighting="none", kl_coef=0.0, epochs=3
    )
    return to_config_dict(dataclasses.replace(base, scoring="vocab", rl=rl))
