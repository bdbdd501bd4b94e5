"""What a study is: one base configuration, arms that change some of its settings, and what is compared with what.

A study is checked as a whole before anything runs.
"""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wpauc_jax.config import Config, ConfigError
from wpauc_jax.config.fields import Checked, a_path, ascending, at_least, shown
from wpauc_jax.config.names import check_name, nearest, setting_names, values_of, with_settings
from wpauc_jax.evaluation.ranks import RanksError, parse_metric
from wpauc_jax.stages.baselines import BASELINES

SHARED_SFT = "SHARED SFT"  # as sft.start_from of an arm: its SFT goes on from the one that all arms share
SFT = "sft"  # what the shared SFT is called among the arms
EVERY = "*"  # in a grid: every arm
_NAME = re.compile(r"[A-Za-z0-9][\w+.-]{0,60}")
_STUDYS_OWN = {  # settings that no arm may change, and why
    "seed": "the seeds are those of --study.seeds",
    "sft_from": "arms that leave SFT alone begin at the shared one",
    "exclude_history": "one comparison needs one rule of what is ranked; change it in the base",
    "allow_changes": "a study compares runs that are what they say",
    "topology": "it is of mode=compile_check",
}
_OF_SFT = ("sft.", "catalog.", "model.", "prompt.", "scoring", "rl.rows", "rl.holdout", "mesh.")


@dataclasses.dataclass(frozen=True)
class StudyOptions(Checked, section="study."):
    """What the command line can change of a study, beside the settings of its base."""

    seeds: tuple[int, ...] = ascending((0, 1, 2), 0, 2**32 - 1)  # every arm is trained with each of them
    arms: str = ""  # names of arms with commas between them, which are trained alone; empty: every arm
    workers: int = at_least(1, 1, 1024)  # how many runs go on at once, each in a process of its own
    draws: int = at_least(10_000, 100, 1_000_000)  # of each bootstrap
    join: str = a_path()  # another study's directory: the pages hold the arms of both; empty: of this one alone


@dataclasses.dataclass(frozen=True)
class Of:
    """In an arm's settings: the value that another setting has in the base, as the command line left it."""

    setting: str


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train, as a difference from the base."""

    name: str
    settings: Mapping[str, Any]  # by full names, as in {"rl.anchor": 4}
    config: Config  # the base with these settings
    points: tuple[Mapping[str, Any], ...]  # what tuning chooses among; one empty point where nothing is tuned

    @property
    def stage(self) -> str:
        """The stage whose ranking counts."""
        return {"all": "rl", "rl": "rl", "sft": "sft"}[self.config.mode]

    @property
    def goes_on(self) -> bool:
        """Whether its SFT goes on from the shared one."""
        return self.config.sft.start_from == SHARED_SFT

    @property
    def shares_sft(self) -> bool:
        """Whether it does RL from the shared SFT: nothing that SFT depends on is another setting."""
        names = {name for point in self.points for name in (*self.settings, *point)}
        return self.stage == "rl" and not any(name.startswith(_OF_SFT) for name in names)

    @property
    def shares_catalog(self) -> bool:
        """Whether its catalog is the base's."""
        return not any(name.startswith("catalog.") for point in self.points for name in (*self.settings, *point))


@dataclasses.dataclass(frozen=True)
class Study:
    """A study. Raises ConfigError for what cannot be run or compared, before anything runs.

    base: what all arms have in common.
    arms: {name: {full name of a setting: value}}. With mode="sft" the arm is SFT alone; otherwise it is RL, from the
      shared SFT unless the arm changes what SFT depends on.
    controls: what every arm is compared with: arms, "sft" (the shared SFT) or a ranking that needs no training. The
      pictures are relative to the first.
    metrics: what is compared, as in "recall@3".
    grid: {arm or "*": {setting: values}}: validation with the first seed chooses one value of each for the arm, before
      the test split is looked at.
    """

    base: Config
    arms: Mapping[str, Mapping[str, Any]]
    controls: Sequence[str]
    metrics: Sequence[str]
    grid: Mapping[str, Mapping[str, Sequence[Any]]] = dataclasses.field(default_factory=dict)
    options: StudyOptions = StudyOptions()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_metrics()
        arms = self.resolved()
        self._check_alike(arms)
        if self.base.mode != "all" or self.base.sft_from or self.base.sft.start_from:
            raise ConfigError("the base of a study is a whole run of its own: mode='all', no sft_from, no start_from")

    def chosen(self) -> "Study":
        """The study of the arms that its options name; itself where they name none.

        Raises ConfigError for a name that is no arm, and for a control that is left out.
        """
        wanted = [name.strip() for name in self.options.arms.split(",") if name.strip()] or list(self.arms)
        for name in wanted:
            if name not in self.arms:
                raise ConfigError(f"study.arms names {shown(name)}, which is no arm{nearest(name, self.arms, '')}")
        left_out = set(self.arms) - set(wanted)
        for name in self.controls:
            if name in left_out:
                raise ConfigError(f"study.arms leaves out {name!r}, with which every arm is compared; name it, too")
        arms = {name: settings for name, settings in self.arms.items() if name not in left_out}
        grid = {name: values for name, values in self.grid.items() if name not in left_out}
        return dataclasses.replace(self, arms=arms, grid=grid)

    def resolved(self) -> list[Arm]:
        """The arms with their whole configurations."""
        return [self._arm(name, settings) for name, settings in self.arms.items()]

    def _arm(self, name: str, settings: Mapping[str, Any]) -> Arm:
        with _of_arm(name):
            for setting in settings:
                _check_setting(setting)
            base = values_of(self.base)
            for value in settings.values():
                if isinstance(value, Of):
                    check_name(value.setting, base)
            given = {name: base[value.setting] if isinstance(value, Of) else value for name, value in settings.items()}
            config = with_settings(self.base, given)
            if config.mode not in ("all", "rl", "sft"):
                raise ConfigError(f"mode={config.mode!r} trains nothing; an arm is all, rl or sft")
            points = self._points(name, config)
            for point in points:
                with_settings(config, point)
        return Arm(name, given, config, points)

    def _points(self, arm: str, config: Config) -> tuple[Mapping[str, Any], ...]:
        """What the grid gives to an arm; SFT alone has no use for the settings of RL that are every arm's."""
        every = self.grid.get(EVERY, {})
        useless = "rl." if config.mode == "sft" else "\0"
        grid = {name: values for name, values in every.items() if not name.startswith(useless)}
        grid |= self.grid.get(arm, {})
        for setting, values in grid.items():
            _check_setting(setting)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ConfigError(f"grid of {setting}: {shown(values)} must be a tuple of values")
        return tuple(dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values()))

    def _check_names(self) -> None:
        if not self.arms:
            raise ConfigError("the study has no arm")
        for name in self.arms:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigError(f"an arm's name {shown(name)} must be of letters, digits and . + - _")
            if name in (SFT, *BASELINES):
                raise ConfigError(f"an arm cannot be called {name!r}: that name is taken")
        untrained = [name for name, baseline in BASELINES.items() if baseline.shown(self.base)]
        known = (*self.arms, SFT, *untrained)
        for name in self.controls:
            if name not in known:
                raise ConfigError(f"the control {shown(name)} is no arm{nearest(str(name), known, '')}")
        for name in self.grid:
            if name not in (*self.arms, EVERY):
                raise ConfigError(f"the grid names {shown(name)}, which is no arm{nearest(str(name), self.arms, '')}")
        if not self.controls or len(set(self.controls)) < len(self.controls):
            raise ConfigError(f"controls={shown(tuple(self.controls))} must name at least one arm, each once")

    def _check_metrics(self) -> None:
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ConfigError(f"metrics={shown(tuple(self.metrics))} must hold at least one metric, each once")
        for metric in self.metrics:
            try:
                _, k = parse_metric(metric)
            except RanksError as error:
                raise ConfigError(str(error)) from error
            if k > self.base.eval.num_beams or not k:
                raise ConfigError(
                    f"metrics: {metric} needs lists of that length; eval.num_beams is {self.base.eval.num_beams}"
                )

    def _check_alike(self, arms: Sequence[Arm]) -> None:
        seen: dict[str, str] = {}
        for arm in arms:
            values = {**values_of(arm.config), "mode": arm.stage, "rl.anchor": arm.config.rl.anchor_rank}
            key = repr((values, arm.points))
            if key in seen:
                raise ConfigError(f"the arms {seen[key]!r} and {arm.name!r} are alike: they have the same settings")
            seen[key] = arm.name


def _check_setting(setting: str) -> None:
    if setting in _STUDYS_OWN:
        raise ConfigError(f"{setting} is no setting of an arm: {_STUDYS_OWN[setting]}")
    if str(setting).startswith("data."):
        raise ConfigError(f"{setting} would give the arm other data than its control's; change the base's data instead")
    check_name(setting, setting_names())


@contextlib.contextmanager
def _of_arm(name: str) -> Iterator[None]:
    """Says which arm a ConfigError is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"arm {name!r}: {error}") from error
