"""Which parameters training changes: all of them, or only what was added to a pretrained model.

The training state, its moments, its reference and its checkpoints hold only the trained part. The frozen part is held
once, beside them.
"""

import dataclasses
import functools

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from wpauc_jax.config import ConfigError
from wpauc_jax.models.lora import is_adapter
from wpauc_jax.models.policy import Params, Policy
from wpauc_jax.models.vocabulary import tables
from wpauc_jax.runtime.parameters import Parameters

_ROWS = "_rows"  # behind a table's name: that of its trained rows
_ROWS_AXES = ("new_rows", "width")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["first_row"])
@dataclasses.dataclass(frozen=True)
class Frozen:
    """The parameters that training does not change. Where some rows of a table are trained, it is here as a whole."""

    params: Params
    first_row: int = 0  # where the trained rows of a table begin

    def join(self, trained: Params) -> Params:
        """All parameters, with the trained ones as they are now."""
        if not self.params:
            return trained
        joined, axes = flatten_dict(self.params), {**self.params.axes}
        for path, leaf in flatten_dict(trained).items():
            if trained.axes[path] == _ROWS_AXES:
                *place, name = path
                table = (*place, name.removesuffix(_ROWS))
                new = leaf.astype(joined[table].dtype)
                joined[table] = jax.lax.dynamic_update_slice_in_dim(joined[table], new, self.first_row, 0)
            else:
                joined[path], axes[path] = leaf, trained.axes[path]
        return Parameters(unflatten_dict(joined), axes)


ALL_TRAINED = Frozen({})


def split_params(policy: Policy, params: Params, *, first_row: int = 0, num_rows: int = 0) -> tuple[Params, Frozen]:
    """(trained, frozen), as `model.lora` and `model.freeze` ask for it; nothing is copied but the trained rows.

    Unless everything is trained, that is the adapter, and the `num_rows` rows of new tokens from `first_row` on of each
    table, under its name and "_rows" ("embed_rows").

    Raises ConfigError where nothing would be trained.
    """
    config = policy.config
    if not config.freeze and not config.lora.rank:
        return params, ALL_TRAINED
    if not config.lora.rank and not num_rows:
        raise ConfigError(
            "model.freeze=True leaves nothing to train: the catalog adds no token, and model.lora.rank is 0"
        )
    flat, axes = flatten_dict(params), dict(policy.axes)
    trained = {path: leaf for path, leaf in flat.items() if is_adapter(axes[path])}
    rest = {path: leaf for path, leaf in flat.items() if path not in trained}
    for path in tables(policy) if num_rows else ():
        *place, name = path
        rows = (*place, name + _ROWS)
        trained[rows], axes[rows] = flat[path][first_row : first_row + num_rows], _ROWS_AXES
    return Parameters(unflatten_dict(trained), axes), Frozen(Parameters(unflatten_dict(rest), axes), first_row)
