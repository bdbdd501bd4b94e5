"""Does a run fit a TPU that is not here, what does it send, and how long would a step take?

libtpu compiles the programs of SFT, RL and evaluation for a named topology. It needs shapes alone: no parameter is made
and no device is used. The catalog is a random one of semantic ids, of the size that the settings say.
"""

import collections
import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch
from wpauc_jax.catalog.trie import Trie
from wpauc_jax.compile_check import hlo
from wpauc_jax.config import Config, ConfigError, ModelConfig, RlConfig, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.evaluate import search_program
from wpauc_jax.models import make_policy
from wpauc_jax.runtime.sharding import make_mesh, spec, state_specs
from wpauc_jax.stages.first_model import check_mesh, fitted, longest_row
from wpauc_jax.training.memory import memory_table, state_bytes, tree_bytes
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import SFT_SCORING, make_sft_step
from wpauc_jax.training.state import init_state

_SCHEDULE = 1000  # steps; the program does not depend on it

# What libtpu is told: no TPU's metadata are to be asked, and no TPU is here of which it could be the one process.
_NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip."""

    flops: float  # a second, in bfloat16
    hbm: float  # bytes
    hbm_rate: float  # bytes a second
    link_rate: float  # bytes a second of one link in one direction; a ring sends both ways


# Google Cloud's pages on TPU v4, v5e, v5p and v6e; links: the same pages' interconnect figure over 4 or 6 links a chip.
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 50e9),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 50e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 100e9),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 100e9),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """One program on one topology; what is "a chip's" is of one chip."""

    compile_seconds: float  # of processor time, tracing included
    memory: float  # bytes a chip's program holds at its peak
    flops: float  # of the matrix products, over all chips
    traffic: float  # bytes between a chip and its memory
    collectives: tuple[hlo.Collective, ...]


class DoesNotFitError(Exception):
    """The compiler's word that a program needs more memory than a chip has."""


def compile_check(config: Config, say: Callable[[str], None]) -> int:
    """Compiles the three programs and says what each costs; 0 if all fit the chips' memory, otherwise 1.

    Raises ConfigError for an unknown topology, a mesh that is not of its size, sizes that do not divide, and where
    libtpu is not installed.
    """
    name, devices = _devices(config.topology)
    chip = CHIPS[name]
    mesh = make_mesh(config.mesh, devices)
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    say(f"{config.topology}: {len(devices)} chips of {_gib(chip.hbm)}; mesh {shape}; {_describe(config)}")
    model, fits = fitted(config.model, _num_tokens(config) + 1, longest_row(config, _levels(config))), True
    tries = {
        scoring: stand_in_trie(config, model, scoring) for scoring in {config.scoring, SFT_SCORING[config.sft.loss]}
    }
    with jax.set_mesh(mesh):  # from here on nothing can be computed
        for program, trace, parts in _programs(config, model, tries):
            try:
                cost = measure(trace)
                fits &= cost.memory <= chip.hbm
                say(f"\n{program}: {report(cost, chip, len(devices))}")
                say("\n".join(f"  {line}" for line in memory_table(parts(), cost.memory)))
            except DoesNotFitError as error:
                fits = False
                say(f"\n{program}: does not fit: {error}")
    say("\nfits" if fits else "\ndoes not fit")
    return 0 if fits else 1


def measure(trace: Callable[[], Any]) -> Cost:
    """Compiles what `trace` gives (`jax.stages.Traced`). Raises DoesNotFitError where the compiler finds no room."""
    start = time.process_time()
    traced = trace()
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used [\d.]+\w+ of [\d.]+\w+ hbm[^.]*", str(error))
        raise DoesNotFitError(used[0] if used else str(error).partition("\n")[0]) from error
    seconds = time.process_time() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Cost(
        seconds,
        held + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        hlo.matmul_flops(traced.jaxpr),
        hlo.memory_traffic(text),
        tuple(hlo.collectives(text)),
    )


def step_seconds(cost: Cost, chip: Chip, chips: int) -> dict[str, float]:
    """What computing, memory and communication take by themselves, in seconds.

    A collective over n devices sends (n - 1) / n of its bytes over the two directions of one ring, twice for an
    all-reduce; a collective-permute sends all of them in one direction. A step takes between the largest of the three
    and their sum.
    """
    sent = sum(one.count * one.size * _share_sent(one) for one in cost.collectives)
    return {
        "computing": cost.flops / chips / chip.flops,
        "memory": cost.traffic / chip.hbm_rate,
        "communication": sent / (2 * chip.link_rate),
    }


def _share_sent(one: hlo.Collective) -> float:
    """Bytes that a device sends over both directions of a ring, in shares of the collective's size."""
    if one.kind == "collective-permute":
        return 2.0  # one direction does it all, while the other could have sent as much
    return (1 - 1 / one.devices) * (2 if one.kind == "all-reduce" else 1)


def report(cost: Cost, chip: Chip, chips: int) -> str:
    """A few lines on one program."""
    seconds = step_seconds(cost, chip, chips)
    parts = ", ".join(f"{part} {value * 1e3:.1f}" for part, value in seconds.items())
    lines = [
        f"{_gib(cost.memory)} a chip, {cost.memory / chip.hbm:.0%} of its memory; "
        f"{cost.flops:.3g} FLOPs in all; {_gib(cost.traffic)} a chip to and from memory",
        f"  a step takes {max(seconds.values()) * 1e3:.1f} to {sum(seconds.values()) * 1e3:.1f} ms ({parts})",
        *_collective_lines(cost.collectives),
        f"  compiled in {cost.compile_seconds:.0f} s of processor time",
    ]
    return "\n".join(lines)


def _collective_lines(found: tuple[hlo.Collective, ...]) -> list[str]:
    runs: dict[tuple[str, int], list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for one in found:
        total = runs[one.kind, one.devices]
        total[0] += one.count
        total[1] += one.count * one.size
    return [
        f"  {kind} over {devices}: {count:.0f} times, {size / 2**20:,.1f} MiB in all"
        for (kind, devices), (count, size) in sorted(runs.items())
    ] or ["  no collective"]


def _devices(topology: str) -> tuple[str, list[Any]]:
    """The chips' name and the devices of a topology such as v5e:4x4, from libtpu."""
    name = topology.partition(":")[0]
    if name not in CHIPS or not re.fullmatch(r"\w+:\d+(x\d+)+", topology):
        raise ConfigError(
            f"topology={topology!r} is unknown; give CHIP:AxB or CHIP:AxBxC with CHIP one of {', '.join(CHIPS)}, "
            "as in v5e:4x4"
        )
    for variable, value in _NO_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"topology={topology!r} cannot be made: {str(error).splitlines()[0]}; "
            "libtpu is needed (pip install 'wpauc_jax[tpu]'), and JAX_PLATFORMS=cpu on a machine without a TPU"
        ) from error
    return name, list(devices)


def _programs(
    config: Config, model: ModelConfig, tries: dict[str, Trie]
) -> Iterator[tuple[str, Callable[[], Any], Callable[[], dict[str, int]]]]:
    """The name of each program, a function that traces it with shapes for arrays, and one for its state's bytes."""
    check_mesh(config, model)
    if config.rl.reward not in ("binary", "ranking") or config.rl.false_negatives != "keep":
        raise ConfigError(
            f"mode=compile_check has no data to judge by: set rl.reward='binary' or 'ranking' (it is "
            f"{config.rl.reward!r}) and rl.false_negatives='keep' (it is {config.rl.false_negatives!r})"
        )
    policy, shapes = make_policy(model)
    whole = PartitionSpec()
    rankers = {scoring: Ranker(policy, _placed(trie, whole), scoring) for scoring, trie in tries.items()}
    items, levels = config.data.max_history, _levels(config)

    def state(settings: SftConfig | RlConfig) -> Any:
        reference = isinstance(settings, RlConfig) and settings.keeps_reference
        optimizer = make_optimizer(settings.optim, _SCHEDULE)
        create = functools.partial(init_state, optimizer=optimizer, reference=reference, average=settings.ema > 0)
        made = jax.eval_shape(create, shapes)
        return jax.tree.map(_placed, made, state_specs(made))

    def prompts(batch_size: int) -> PromptBatch:
        excluded = _rows(batch_size, items) if config.exclude_history == "on" else None
        return PromptBatch(_rows(batch_size, 1 + items * levels), _rows(batch_size), excluded)

    def sft() -> Any:
        optimizer = make_optimizer(config.sft.optim, _SCHEDULE)
        settings = dataclasses.replace(  # without alignment rows
            config.sft, title_to_id=0.0, id_to_title=0.0, ids_to_title=0.0, titles_to_id=0.0, titles_to_title=0.0
        )
        step = make_sft_step(rankers[SFT_SCORING[config.sft.loss]], optimizer, settings)
        width = 1 + (items + 1) * levels  # a row is one longest piece here
        B = config.sft.batch_size
        batch = SftBatch(_rows(B, width), _rows(B, width), _rows(B, items + 1), _rows(B, items + 1))
        return step.trace(state(config.sft), batch)

    def rl() -> Any:
        optimizer = make_optimizer(config.rl.optim, _SCHEDULE)
        step = make_rl_step(rankers[config.scoring], optimizer, config.rl, seed=0)
        B, others = config.rl.batch_size, config.rl.targets - 1
        batch = RlBatch(prompts(B), _rows(B), _rows(B, others) if others else None)
        return step.trace(state(config.rl), batch)

    def evaluation() -> Any:
        program = search_program(num_beams=config.eval.num_beams)
        return program.trace(rankers[config.scoring], placed_params(), prompts(config.eval.batch_size))

    def placed_params() -> Any:
        return jax.tree.map(_placed, shapes, state_specs(shapes))

    yield "sft", sft, lambda: state_bytes(state(config.sft))
    yield "rl", rl, lambda: state_bytes(state(config.rl))
    yield "evaluate", evaluation, lambda: {"parameters": tree_bytes(placed_params())}


def _levels(config: Config) -> int:
    """Tokens of an item of the stand-in."""
    return 1 if config.catalog.ids == "atomic" else config.catalog.levels


def _num_tokens(config: Config) -> int:
    """Tokens that the stand-in's items are made of."""
    if config.catalog.ids == "atomic":
        return config.compile_check.num_items
    return config.catalog.levels * config.catalog.codes


def stand_in_trie(config: Config, model: ModelConfig, scoring: str) -> Trie:
    """A catalog of `compile_check.num_items` random items, whose tokens are the last of the vocabulary."""
    first = model.vocab_size - _num_tokens(config)
    if config.catalog.ids == "atomic":
        return trie_for(np.arange(first, model.vocab_size)[:, None].tolist(), scoring)
    levels, codes, items = config.catalog.levels, config.catalog.codes, config.compile_check.num_items
    if items > codes**levels // 2:
        raise ConfigError(
            f"compile_check.num_items={items} is more than half of catalog.codes ** catalog.levels = {codes**levels}; "
            "raise catalog.codes or catalog.levels"
        )
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.unique(rng.integers(0, codes**levels, 2 * items)))[:items]
    digits = np.stack([numbers // codes**level % codes for level in range(levels)], axis=1)
    return trie_for(list(digits + first + codes * np.arange(levels)), scoring)


def _rows(*shape: int) -> jax.ShapeDtypeStruct:
    """An int32 array, cut by its rows."""
    return _placed(jax.ShapeDtypeStruct(shape, jnp.int32), spec("batch"))


def _placed(tree: Any, partition: PartitionSpec) -> Any:
    sharding = NamedSharding(jax.sharding.get_mesh(), partition)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _describe(config: Config) -> str:
    return (
        f"{config.compile_check.num_items:,} items, histories of {config.data.max_history}, batches of "
        f"{config.sft.batch_size} (SFT), {config.rl.batch_size} x {config.rl.group_size} (RL) and "
        f"{config.eval.batch_size} (evaluation) users"
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
