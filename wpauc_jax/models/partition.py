"""Which parameters training changes: all, or only what was added to a pretrained model.

Training, its moments, its reference and its checkpoints then hold the changed part alone; the frozen part is there
once.
"""

import dataclasses

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from wpauc_jax.config import ConfigError
from wpauc_jax.models.lora import is_adapter
from wpauc_jax.models.policy import Params, Policy

_TABLES = ("embed", "head")


@dataclasses.dataclass(frozen=True)
class Partition:
    """Splits parameters into those that are trained and those that are frozen, and joins them again."""

    everything: bool  # all is trained
    first_row: int = 0  # else, beside the adapter, these rows of the tables
    num_rows: int = 0

    def split(self, params: Params) -> tuple[Params, Params]:
        """(trained, frozen). Trained rows of a table are named after it, as in "embed_rows"; the table stays whole."""
        if self.everything:
            return params, {}
        flat = flatten_dict(params)
        trained = {path: leaf for path, leaf in flat.items() if is_adapter(path)}
        frozen = {path: leaf for path, leaf in flat.items() if not is_adapter(path)}
        end = self.first_row + self.num_rows
        rows = {f"{name}_rows": params[name][self.first_row : end] for name in self._tables(params)}
        return {**unflatten_dict(trained), **rows}, unflatten_dict(frozen)

    def join(self, trained: Params, frozen: Params) -> Params:
        """The parameters that `split` made these of, with `trained` as it is now."""
        if self.everything:
            return trained
        rows = [f"{name}_rows" for name in self._tables(frozen)]
        adapter = {name: part for name, part in trained.items() if name not in rows}
        joined = unflatten_dict({**flatten_dict(frozen), **flatten_dict(adapter)})
        for name in self._tables(frozen):
            new = trained[f"{name}_rows"].astype(joined[name].dtype)
            joined[name] = jax.lax.dynamic_update_slice_in_dim(joined[name], new, self.first_row, 0)
        return joined

    def _tables(self, params: Params) -> list[str]:
        return [name for name in _TABLES if name in params] if self.num_rows else []


def make_partition(policy: Policy, first_row: int, num_rows: int) -> Partition:
    """What `model.lora` and `model.freeze` ask for, with `num_rows` new tokens from `first_row` on.

    Raises ConfigError where nothing would be trained.
    """
    config = policy.config
    if not config.freeze and not config.lora.rank:
        return Partition(everything=True)
    if not config.lora.rank and not num_rows:
        raise ConfigError("model.freeze=True leaves nothing to train: there is no new token and model.lora.rank=0")
    return Partition(False, first_row, num_rows)
