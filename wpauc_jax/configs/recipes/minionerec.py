"""MiniOneRec, as its published scripts train it (arXiv 2510.24431): semantic ids, alignment tasks, then ReRe's RL.

    python -m wpauc_jax.main --config=configs/recipes/minionerec.py:0.5B-sid --workdir=runs/minionerec

The argument is that of configs/recipes/tawin.py, with `sid` for ITEMS, and so are data, weights and what they need. RL
is that of configs/recipes/rere.py with 64 users a step.

SFT takes 1,024 rows of each task a step, in 8 parts (`sft.microbatches`). Ids have three codes of 256.

Expect hours of training on a GPU or TPU. No run at this size has been measured here.

What differs:
- Ids come from balanced residual k-means over words and co-occurrence, not from an RQ-VAE over a language model's
  embeddings. `--config.catalog.embedding=FILE.npy` takes such embeddings, `--config.catalog.ids=file` finished ids.
- SFT has the five tasks, each with as many rows a step as there are histories: the next item, titles to ids and back,
  and three that tell the history by titles or ask for a title. MiniOneRec mixes all rows. RL's rows from titles and
  descriptions are missing.
- The prompt is one sentence, the same in SFT, RL and evaluation. MiniOneRec has another one in each.
- As in configs/recipes/rere.py: validation, the step that answers, the optimizer's memory.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import CatalogConfig, to_config_dict
from wpauc_jax.configs.recipes.rere import as_rere
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    base = as_rere(recipe("minionerec.py", arg, items=("sid",)))
    sft = dataclasses.replace(
        base.sft,
        batch_size=1024,
        microbatches=8,
        title_to_id=1.0,
        id_to_title=1.0,
        ids_to_title=1.0,
        titles_to_id=1.0,
        titles_to_title=1.0,
    )
    ids = CatalogConfig(ids="balanced", levels=3, codes=256)
    rl = dataclasses.replace(base.rl, batch_size=64)
    return to_config_dict(dataclasses.replace(base, catalog=ids, sft=sft, rl=rl))
