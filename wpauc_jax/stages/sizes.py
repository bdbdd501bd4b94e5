"""Settings that the catalog must be large enough for, checked as soon as there is a catalog."""

from collections.abc import Sequence

from wpauc_jax.config import Config, ConfigError
from wpauc_jax.stages.run import Prepared, Say


def check_sizes(prepared: Prepared, say: Say, *, trains: Sequence[str] = ()) -> None:
    """Raises ConfigError, in one line, for a cut-off, a group or an aim beyond the catalog; `trains` names stages.

    A beam wider than the catalog ranks every item: that is said.
    """
    config, items = prepared.config, prepared.catalog.num_items
    for name, value in {**_cut_offs(config), **(_aims(config) if "rl" in trains else {})}.items():
        if value > items:
            raise ConfigError(
                f"{name}={value} is larger than the catalog of {items} items; lower it to at most {items}"
            )
    if config.eval.num_beams > items:
        say(f"eval.num_beams={config.eval.num_beams} is more than the catalog of {items} items: every item is ranked")


def _cut_offs(config: Config) -> dict[str, int]:
    return {"eval.recall_at": max(config.eval.recall_at), "eval.ndcg_at": max(config.eval.ndcg_at)}


def _aims(config: Config) -> dict[str, int]:
    group = {"rl.group_size": config.rl.group_size} if config.rl.searches_groups else {}
    return group | {"rl.target_k": config.rl.target_k}
