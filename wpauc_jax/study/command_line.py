"""What the command line of a study says: a study file, changes to its base, and --study.seeds and the like."""

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from wpauc_jax.config import Config, ConfigError, from_config_dict, to_config_dict
from wpauc_jax.config.command_line import check_names, in_full, named_file, one_line, work_directory
from wpauc_jax.config.names import nearest, setting_names
from wpauc_jax.study.files import read_study
from wpauc_jax.study.plan import Study, StudyOptions

EXAMPLE = "python -m wpauc_jax.study --config=configs/studies/topk_control.py --workdir=runs/study"
HELP = f"""{EXAMPLE}

Trains the arms of a study with several seeds, compares them, and writes study.md and study.html. The same command
again goes on where it stopped. docs/studies.md says more.

Flags:
  --config             a study file, and after a colon its argument
  --workdir            where the study is kept; without it, runs/CONFIG or runs/CONFIG-ARGUMENT
  --study.seeds        every arm is trained with each of them, as in --study.seeds=0,1,2
  --study.arms         some of its arms, as in --study.arms=sft_on,gce; without it, all
  --study.workers      how many runs go on at once, each in a process of its own
  --study.draws        of each bootstrap
  --study.join         another study's directory: the pages hold the arms of both
  --config.NAME=VALUE  a setting of the base, which every arm starts from"""


@dataclasses.dataclass(frozen=True)
class Command:
    """A study, where it is kept, and the words that asked for it."""

    study: Study
    folder: pathlib.Path
    text: str


def read(arguments: Sequence[str]) -> Command:
    """What `arguments` (sys.argv) ask for. Raises ConfigError, in one line, where they cannot be understood."""
    arguments = [in_full(argument) for argument in arguments]
    options = [field.name for field in dataclasses.fields(StudyOptions)]
    check_names(arguments)
    check_names(arguments, "study", options)
    file = named_file(arguments, EXAMPLE)
    if not file:
        raise ConfigError(f"--config is missing; give a file of configs/studies/, as in {EXAMPLE}; --help says more")
    path, _, argument = file.partition(":")
    study = read_study(path, argument or None)
    words = _without_file(arguments)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where the study is kept", flag_values=values)
    for name, settings in (("config", study.base), ("study", study.options)):
        config_flags.DEFINE_config_dict(name, to_config_dict(settings), flag_values=values, sys_argv=words)
    try:
        rest = values(words)[1:]
    except flags.UnrecognizedFlagError as error:
        known = ["workdir", *(f"study.{name}" for name in options), *(f"config.{name}" for name in setting_names())]
        raise ConfigError(f"there is no flag --{error.flagname}{nearest(error.flagname, known, '--')}") from error
    except Exception as error:  # a value that a setting's type does not take
        raise ConfigError(one_line(error, file)) from error
    if rest:
        raise ConfigError(f"unknown arguments: {' '.join(rest)}; settings are given as --config.name=value")
    changed = dataclasses.replace(
        study,
        base=from_config_dict(values["config"].value, Config),
        options=from_config_dict(values["study"].value, StudyOptions, section="study."),
    )
    text = shlex.join(["python", "-m", "wpauc_jax.study", *arguments[1:]])
    return Command(changed.chosen(), work_directory(values["workdir"].value, file), text)


def _without_file(arguments: Sequence[str]) -> list[str]:
    """The arguments without --config=FILE, whose name is that of the base's settings here."""
    left: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--config", "-config"):
            next(words, "")
        elif not word.startswith(("--config=", "-config=")):
            left.append(word)
    return left
