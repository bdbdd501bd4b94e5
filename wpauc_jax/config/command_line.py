"""What the command line says: flags, a configuration file, and changes to its settings.

If a word cannot be understood, a ConfigError of one line says so. If a name is mistyped, that line shows the names that
are nearest.
"""

import dataclasses
import difflib
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from wpauc_jax.config.fields import ConfigError, expanded, from_config_dict, shown, to_config_dict
from wpauc_jax.config.names import check_name, nearest, setting_names
from wpauc_jax.config.recorded import remembered_config
from wpauc_jax.config.run import MODES, Config

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"  # those that come with the package
EXAMPLE = "python -m wpauc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"
_HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull")
_NUMBER = re.compile("(invalid literal for int\\(\\) with base 10|could not convert string to float): .*")
_KINDS = {
    "invalid literal for int() with base 10": "a whole number",
    "could not convert string to float": "a number",
}
_OWN = {
    "config": "a file of configs/, and after a colon its argument; a run that has begun remembers it",
    "workdir": "where this run is kept; the same again resumes it; without it, runs/CONFIG or runs/CONFIG-ARGUMENT",
    "cluster": "what started several processes: auto, none, tpu, slurm, openmpi or jobset",
    "coordinator": "HOST:PORT for process 0 to listen on, the same for all processes",
    "num_processes": "how many processes this run has",
    "process_id": "which of them this one is, from 0 on",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """What is to be done, where, and as which of several processes."""

    config: Config
    workdir: pathlib.Path
    cluster: str
    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    verbosity: bool  # whether --verbosity was given


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the command line wants to be explained, not obeyed."""
    return any(argument in _HELP for argument in arguments[1:])


def help_text() -> str:
    """The page of --help."""
    width = max(map(len, MODES)) + 2
    modes = "\n".join(f"  {name:<{width}}{does}" for name, does in MODES.items())
    own = "\n".join(f"  --{name:<15}{means}" for name, means in _OWN.items())
    return f"""{EXAMPLE}

Any setting can be changed: --config.rl.target_k=5. All settings are described in docs/settings.md, which
`python -m wpauc_jax.config` prints too.

--config.mode picks a part of the job:
{modes}

Flags:
{own}"""


def read(arguments: Sequence[str]) -> Command:
    """What `arguments` (sys.argv) ask for. Raises ConfigError, in one line, where they cannot be understood."""
    if len(arguments) == 1 and "config" in flags.FLAGS and flags.FLAGS["config"].present:
        return _command(flags.FLAGS, named_file(sys.argv))  # absl's app.run has read the command line already
    arguments = [in_full(argument) for argument in file_first(arguments)]
    check_names(arguments)
    values = flags.FlagValues()
    values.append_flag_values(flags.FLAGS)  # those of the libraries, as --verbosity
    for name in set(_OWN) & set(values):
        delattr(values, name)  # its own are read anew
    file = named_file(arguments)
    remembered = None if file else _remembered(arguments)
    define(values, arguments, remembered)
    try:
        rest = values(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        settings = [f"config.{name}" for name in setting_names()]
        own = difflib.get_close_matches(error.flagname, _OWN, n=1)
        meant = nearest(error.flagname, own or settings, "--")
        raise ConfigError(f"there is no flag --{error.flagname}{meant}") from error
    except Exception as error:  # a user's configuration file is a program and may raise anything
        raise ConfigError(one_line(error, file)) from error
    if rest:
        raise ConfigError(f"unknown arguments: {' '.join(rest)}; settings are given as --config.name=value")
    if not file and remembered is None:
        raise ConfigError(
            f"--config is missing; give a file of configs/, as in {EXAMPLE}, or the --workdir of a run, which knows "
            "its settings; --help says more"
        )
    flags.FLAGS.mark_as_parsed()
    return _command(values, file)


def define(values: flags.FlagValues, arguments: Sequence[str] | None = None, remembered: Config | None = None) -> None:
    """Adds this program's flags; settings are looked for in `arguments`, or in sys.argv.

    `remembered` is what --config changes where it names no file.
    """
    argv = None if arguments is None else list(arguments)
    how: dict[str, Any] = {"lock_config": True, "flag_values": values, "sys_argv": argv}
    if remembered is None:
        config_flags.DEFINE_config_file("config", None, _OWN["config"], **how)
    else:
        config_flags.DEFINE_config_dict("config", to_config_dict(remembered), _OWN["config"], **how)
    for name in ("workdir", "coordinator"):
        flags.DEFINE_string(name, None, _OWN[name], flag_values=values)
    flags.DEFINE_string("cluster", "auto", _OWN["cluster"], flag_values=values)
    for name in ("num_processes", "process_id"):
        flags.DEFINE_integer(name, None, _OWN[name], flag_values=values)


def _command(values: flags.FlagValues, file: str) -> Command:
    return Command(
        config=from_config_dict(values["config"].value, Config),
        workdir=work_directory(values["workdir"].value, file),
        cluster=str(values["cluster"].value),
        coordinator=values["coordinator"].value,
        num_processes=values["num_processes"].value,
        process_id=values["process_id"].value,
        verbosity="verbosity" in values and bool(values["verbosity"].present),
    )


def _remembered(arguments: Sequence[str]) -> Config | None:
    """The settings of the run in --workdir; None where no run is named. Raises ConfigError where they are damaged."""
    folder = named(arguments, "workdir")
    if not folder or not (pathlib.Path(folder) / "config.json").is_file():
        return None
    try:
        return remembered_config(pathlib.Path(folder))
    except ConfigError as error:
        raise ConfigError(f"{error}; give --config, too") from error


def check_names(arguments: Sequence[str], group: str = "config", known: Sequence[str] | None = None) -> None:
    """Raises ConfigError where a setting of a group of flags is changed that does not exist."""
    known = setting_names() if known is None else known
    for argument in arguments[1:]:
        if argument == "--":
            break
        found = re.fullmatch(rf"--?(?:no)?{group}\.([^=]*)(=.*)?", argument, re.DOTALL)
        if found:
            check_name(re.sub(r"\[.*", "", found[1]), known, f"--{group}.")


def in_full(argument: str) -> str:
    """The argument, with the home directory in place of `~` where it names a file or folder.

    A configuration that comes with the package is found by its name from any folder: quickstart, amazon:office.
    """
    flag, equals, value = argument.partition("=")
    if not equals or flag.lstrip("-") not in ("config", "workdir"):
        return argument
    value = expanded(flag, value)
    return f"{flag}={shipped(value) if flag.lstrip('-') == 'config' else value}"


def file_first(arguments: Sequence[str]) -> list[str]:
    """The same words with --config=FILE before its settings, which ml_collections needs; the order is the user's.

    A path that stands in a word of its own joins its flag, so that `in_full` sees it.
    """
    program, *words = arguments
    first: list[str] = []
    rest: list[str] = []
    later = iter(words)
    for word in later:
        if word in ("--config", "-config", "--workdir", "-workdir"):
            value = next(later, None)
            word = word if value is None else f"{word}={value}"
        is_file = word.lstrip("-").partition("=")[0] == "config" and word.startswith("-")
        (first if is_file else rest).append(word)
    return [program, *first, *rest]


def shipped(named: str) -> str:
    """The path of a configuration of this package, where no file of the user's has the name."""
    path, colon, rest = named.partition(":")
    if not path or os.path.exists(path):
        return named
    own = CONFIGS / path.removeprefix("configs/")
    found = next((one for one in (own, own.with_name(f"{own.name}.py")) if one.is_file()), None)
    return f"{found}{colon}{rest}" if found else named


def named_file(arguments: Sequence[str], example: str = EXAMPLE) -> str:
    """What --config names, as far as it is to be found before the flags are parsed; it must exist."""
    file = named(arguments, "config")
    path = file.partition(":")[0]
    if file and not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise ConfigError(f"--config={shown(path)} {what}; give a file of configs/, as in {example}")
    return file


def named(arguments: Sequence[str], name: str) -> str:
    """The value of a flag, as far as it is to be found before the flags are parsed; "" where it is not given."""
    found = ""
    for number, argument in enumerate(arguments[1:], start=1):
        flag, equals, value = argument.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            found = value if equals else " ".join(arguments[number + 1 : number + 2])
    return found


def work_directory(given: str | None, file: str) -> pathlib.Path:
    """What --workdir says, or what the file's name says. Raises ConfigError where it cannot be a directory."""
    path, _, argument = file.partition(":")
    name = pathlib.Path(path).stem
    text = given or f"runs/{name}-{argument}" if argument else given or f"runs/{name}"
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ConfigError(f"--workdir={shown(text)} holds a character that is no text")
    if os.path.exists(text) and not os.path.isdir(text):
        raise ConfigError(f"--workdir={shown(text)} is a file; give a directory")
    return pathlib.Path(text)


def one_line(error: Exception, file: str) -> str:
    """What parsing raised, without the traceback that may be part of its text."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    if "Error whilst parsing config file" in str(error):  # the text goes on with a traceback
        cause = re.sub(r"^[\w.]+Error: ", "", lines[-1])
        return cause if "ConfigError: " in lines[-1] else f"{file.partition(':')[0]}: {lines[-1]}"
    if isinstance(error, flags.Error):
        return _NUMBER.sub(lambda found: f"must be {_KINDS[found[1]]}", " ".join(lines))
    where = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file.partition(":")[0]:
            where = f"{file.partition(':')[0]}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{where}{type(error).__name__}: {' '.join(lines)}"
