"""What a trained stage remembers: a later mode with other settings of the model or of the ranking is refused by name.

The best parameters carry what they were trained with. What is compared is what an answer depends on: scoring rule,
data, catalog, prompt, model. How many beams, users at a time or devices there are is the answering command's own.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from wpauc_jax.config import Config, ConfigError
from wpauc_jax.config.recorded import differences
from wpauc_jax.runtime.files import read_json
from wpauc_jax.stages.homes import home
from wpauc_jax.stages.run import Run, Say
from wpauc_jax.training.checkpoint import trained_with

SECTIONS = ("data", "catalog", "prompt", "model")  # whose settings explain a fingerprint that differs

# What differs without another answer: how a program computes, and where files lie.
_FREE = (
    *("model.remat", "model.gather", "model.attention", "prompt.widths"),
    *("data.dir", "data.cache", "data.root", "data.changed"),
)


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that explain what an answer depends on."""
    return {section: dataclasses.asdict(getattr(config, section)) for section in SECTIONS}


def changes(
    run: Run, stage: str, *, also: Mapping[str, Any] | None = None, kept: pathlib.Path | None = None
) -> list[str]:
    """How this run would answer otherwise than the one that trained a stage: "scoring: 'vocab' then, ... now".

    `also` holds further facts, with names of the identity of a checkpoint, that must be as they were. `kept` is the
    work directory that holds the stage, where it is another one than `home` says.
    """
    kept = kept or home(run.config, run.folder, stage)
    record = trained_with(kept / stage)
    if "identity" not in record:
        return []
    now = run.answers() | dict(also or {})
    if kept != run.folder:  # several runs may go on from one SFT, each with a seed of its own
        del now["seed"]
    settings = record.get("settings") or read_json(kept / "config.json")
    return _explained(record["identity"], now, settings, settings_of(run.config))


def refuse_changes(
    run: Run, stage: str, say: Say, *, also: Mapping[str, Any] | None = None, kept: pathlib.Path | None = None
) -> tuple[str, ...]:
    """Raises ConfigError where `changes` finds any. With `allow_changes` says and returns them instead."""
    found = changes(run, stage, also=also, kept=kept)
    if not found:
        return ()
    best = (kept or home(run.config, run.folder, stage)) / stage / "best"
    text = f"{best} was trained with other settings: {'; '.join(found)}"
    if not run.config.allow_changes:
        raise ConfigError(
            f"{text}. Set these back, or set allow_changes=True to go on, and what is written will say so"
        )
    say(f"warning: {text}")
    return tuple(found)


def _explained(
    before: Mapping[str, Any], now: Mapping[str, Any], settings: Mapping[str, Any], current: Mapping[str, Any]
) -> list[str]:
    """Differences by settings. A fingerprint stands for the settings of its section, where these are known."""
    plain: list[str] = []
    prints: list[str] = []
    for line in differences(before, now, only=True, leave_out=_FREE):
        (prints if line.partition(":")[0].endswith(".fingerprint") else plain).append(line)
    for line in prints:
        section = line.partition(".")[0]
        then = settings.get(section)
        if isinstance(then, dict):
            plain += differences({section: then}, {section: current[section]}, only=True, leave_out=_FREE)
    return sorted(set(plain)) or prints
