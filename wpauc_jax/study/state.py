"""study.json: what a study's directory is the study of, and what its runs are.

Whether a run is done its own files say (`runs.py`). This file says what the directory was begun with, so that another
base is refused and a changed arm is noticed; and it is what another study reads to be joined with this one.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from wpauc_jax.config import ConfigError
from wpauc_jax.config.names import changes_between
from wpauc_jax.config.recorded import differences, flat
from wpauc_jax.runtime.files import atomic_path, read_json
from wpauc_jax.study.plan import Arm, Study

NAME = "study.json"
_FREE = ("data.cache",)  # of the base: what may be another without another study


def read_state(folder: pathlib.Path) -> dict[str, Any]:
    """What study.json holds; nothing where there is none. Raises ConfigError for a damaged one, or another file."""
    path = folder / NAME
    if not path.exists():
        return {}
    state = read_json(path)
    if not isinstance(state.get("base"), dict) or not isinstance(state.get("arms"), dict):
        raise ConfigError(f"{path} is damaged or no study's; delete it to have it made anew from the runs")
    return state


def write_state(folder: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Writes study.json, whole or not at all."""
    with atomic_path(folder / NAME) as temporary:
        temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def check_base(folder: pathlib.Path, study: Study, before: Mapping[str, Any]) -> None:
    """Raises ConfigError where the directory was begun with another base, or is no study's."""
    if not before:
        if (folder / "config.json").exists():
            raise ConfigError(f"{folder} is the work directory of a run, and no study's; give another --workdir")
        return
    found = differences(before["base"], dataclasses.asdict(study.base), leave_out=_FREE)
    if found:
        raise ConfigError(
            f"{folder} is the study of another base: {'; '.join(found)}. Give another --workdir, or set these back"
        )


def arm_facts(study: Study, arm: Arm) -> dict[str, Any]:
    """What study.json says of an arm: its settings as a difference from the base, and the points of its grid."""
    facts = {"settings": changes_between(study.base, arm.config), "points": list(arm.points), "stage": arm.stage}
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def changed_arms(study: Study, before: Mapping[str, Any]) -> dict[str, str]:
    """The arms that an earlier start knew with other settings or another grid, and how they differ."""
    changed = {}
    for arm in study.resolved():
        then = before.get("arms", {}).get(arm.name)
        if then is None:
            continue
        now = arm_facts(study, arm)
        base = flat(dataclasses.asdict(study.base))
        lines = differences(base | then["settings"], base | now["settings"])
        if then["points"] != now["points"]:
            lines.append(f"the grid: {then['points']} then, {now['points']} now")
        if lines:
            changed[arm.name] = "; ".join(lines)
    return changed
