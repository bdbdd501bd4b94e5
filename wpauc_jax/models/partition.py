"""Which parameters training changes: all, or only what was added to a pretrained model.

Training, its moments, its reference and its checkpoints hold the trained part alone; the frozen part is there once.
"""

import dataclasses
import functools

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from wpauc_jax.config import ConfigError
from wpauc_jax.models.lora import is_adapter
from wpauc_jax.models.policy import Params, Policy

_ROWS = {"embed": "embed_rows", "head": "head_rows"}  # a table, and the name of its trained rows


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["first_row"])
@dataclasses.dataclass(frozen=True)
class Frozen:
    """The parameters that training leaves alone. A table of which some rows are trained is here as a whole."""

    params: Params
    first_row: int = 0  # where the trained rows of a table begin

    def join(self, trained: Params) -> Params:
        """All parameters, with the trained ones as they are now."""
        if not self.params:
            return trained
        adapter = {name: part for name, part in trained.items() if name not in _ROWS.values()}
        joined = unflatten_dict({**flatten_dict(self.params), **flatten_dict(adapter)})
        for table, rows in _ROWS.items():
            if rows in trained:
                new = trained[rows].astype(joined[table].dtype)
                joined[table] = jax.lax.dynamic_update_slice_in_dim(joined[table], new, self.first_row, 0)
        return joined


ALL_TRAINED = Frozen({})


def split_params(policy: Policy, params: Params, *, first_row: int = 0, num_rows: int = 0) -> tuple[Params, Frozen]:
    """(trained, frozen), as `model.lora` and `model.freeze` ask for it; nothing is copied but the trained rows.

    Unless everything is trained, that is the adapter, and the `num_rows` rows of new tokens from `first_row` on, under
    the names "embed_rows" and "head_rows".

    Raises ConfigError where nothing would be trained.
    """
    config = policy.config
    if not config.freeze and not config.lora.rank:
        return params, ALL_TRAINED
    if not config.lora.rank and not num_rows:
        raise ConfigError(
            "model.freeze=True leaves nothing to train: the catalogue adds no token, and model.lora.rank is 0"
        )
    flat = flatten_dict(params)
    trained = unflatten_dict({path: leaf for path, leaf in flat.items() if is_adapter(path)})
    if num_rows:
        tables = {rows: params[table] for table, rows in _ROWS.items() if table in params}
        trained |= {rows: table[first_row : first_row + num_rows] for rows, table in tables.items()}
    rest = unflatten_dict({path: leaf for path, leaf in flat.items() if not is_adapter(path)})
    return trained, Frozen(rest, first_row)
