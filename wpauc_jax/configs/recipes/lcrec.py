"""LC-Rec (arXiv 2311.09049): a language model that learns semantic ids by alignment tasks. SFT alone.

    python -m wpauc_jax.main --config=configs/recipes/lcrec.py:0.5B-sid --workdir=runs/lcrec

The argument is that of configs/recipes/tawin.py, with `sid` for ITEMS, and so are data, weights and what they need. Ids
have four codes of 256, from an RQ-VAE (`catalog.ids=rqvae`). SFT learns the next item, titles to ids and back, and the
next item from a history told by titles, or told as a title.

Expect hours of training on a GPU or TPU. No run at this size has been measured here.

What differs:
- Two of LC-Rec's tasks are missing: the item that a user's intention describes, and a user's preference in words. A
  larger model wrote their texts from reviews, and these texts were not published. So are descriptions of items.
- The RQ-VAE reads words and co-occurrence, not a language model's embeddings. `--config.catalog.embedding=FILE.npy`
  takes such embeddings. Ids that would be alike get one more code; LC-Rec moves such items to other codes.
- LC-Rec draws one of several sentences for each row. Here each task has one.
"""

import dataclasses

from ml_collections import ConfigDict

from wpauc_jax.config import CatalogConfig, to_config_dict
from wpauc_jax.configs.recipes.tawin import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    base = recipe("lcrec.py", arg, items=("sid",))
    ids = CatalogConfig(ids="rqvae", levels=4, codes=256)
    sft = dataclasses.replace(
        base.sft, title_to_id=1.0, id_to_title=1.0, ids_to_title=1.0, titles_to_id=1.0, epochs=4.0, evals=4
    )
    rl = dataclasses.replace(base.rl, epochs=0.0)
    return to_config_dict(dataclasses.replace(base, catalog=ids, sft=sft, rl=rl))
