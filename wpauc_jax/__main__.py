"""The command `wpauc`, also `python -m wpauc_jax`: a word for what is to be done, then that program's flags.

Each word is an entry of `COMMANDS`. Its program is imported when it is asked for, so that help comes at once.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence

from wpauc_jax import __version__

# Flags that a mode takes in a short form.
_SHORT = {
    "recommend": {"input": "recommend.input", "output": "recommend.output", "top_k": "recommend.top_k"},
    "export": {"output": "export.path"},
}


Program = Callable[[Sequence[str]], int]  # sys.argv -> the exit code


def _job() -> Program:
    from wpauc_jax.main import main

    return main


def _report() -> Program:
    from wpauc_jax.report.__main__ import main

    return main


def _serve() -> Program:
    from wpauc_jax.serving.__main__ import main

    return main


def _study() -> Program:
    from wpauc_jax.study.__main__ import main

    return main


def _compare() -> Program:
    from wpauc_jax.compare import main

    return main


@dataclasses.dataclass(frozen=True)
class Command:
    """What a word of the command line stands for."""

    does: str  # for the page of help
    program: Callable[[], Program] = _job  # imports it
    mode: str = ""  # what --config.mode is then


COMMANDS: dict[str, Command] = {
    "train": Command("prepare the data, SFT, RL, evaluation; what is done is not done again", mode="all"),
    "prepare": Command("prepare the data and the catalog, and stop", mode="prepare"),
    "doctor": Command("examine data, catalog and what was trained", mode="doctor"),
    "sft": Command("supervised fine-tuning alone", mode="sft"),
    "rl": Command("reinforcement learning alone, from the best SFT", mode="rl"),
    "evaluate": Command("rank the test users by every trained stage", mode="evaluate"),
    "recommend": Command("answer --input=FILE of histories with lists of --top_k items", mode="recommend"),
    "export": Command("write the best model as a Hugging Face folder, to --output=FOLDER", mode="export"),
    "compile_check": Command("compile the run for a TPU that is not here: does it fit?", mode="compile_check"),
    "serve": Command("answer histories over HTTP, with a page to try it", _serve),
    "study": Command("train several arms with several seeds, and compare them", _study),
    "report": Command("put one evaluated run or several on one page", _report),
    "compare": Command("compare two runs' rank files user by user", _compare),
}


def help_text() -> str:
    """The page of --help."""
    width = max(map(len, COMMANDS)) + 2
    listed = "\n".join(f"  {name:<{width}}{command.does}" for name, command in COMMANDS.items())
    return f"""wpauc COMMAND [flags]

    wpauc train --config=configs/quickstart.py --workdir=runs/quickstart
    wpauc recommend --workdir=runs/quickstart --input=histories.jsonl

{listed}

A run remembers its settings: after `train` the other commands need --workdir alone. Any setting can be given as
--config.NAME=VALUE; docs/settings.md lists them. `wpauc COMMAND --help` says more, `wpauc --version` which version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (sys.argv) name. Returns the exit code."""
    program, *words = sys.argv if arguments is None else arguments
    if not words or words[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    name, *words = words
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}; use one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 1
    command = COMMANDS[name]
    if command.mode:
        words = [f"--config.mode={command.mode}", *(_in_full(word, _SHORT.get(name, {})) for word in words)]
    return command.program()([program, *words])


def _in_full(word: str, short: dict[str, str]) -> str:
    """A flag under its whole name."""
    flag, equals, value = word.partition("=")
    name = flag.lstrip("-")
    return f"--config.{short[name]}{equals}{value}" if flag.startswith("-") and name in short else word


if __name__ == "__main__":
    sys.exit(main())
