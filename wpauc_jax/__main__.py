"""The command `wpauc`, also `python -m wpauc_jax`: a word for what is to be done, then that program's flags.

Each word is an entry of `COMMANDS`. Its program is imported when it is asked for, so that help comes at once.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence

from wpauc_jax import __version__

# Flags that a mode takes in a short form.
_SHORT = {
    "recommend": {"input": "recommend.input", "output": "recommend.output", "top_k": "recommend.top_k"},
    "export": {"output": "export.path"},
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A program: a module with a function `main` that takes sys.argv and returns the exit code."""

    does: str  # for the page of help
    module: str = "wpauc_jax.main"
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
    "serve": Command("answer histories over HTTP, with a page to try it", "wpauc_jax.serving.__main__"),
    "study": Command("train several arms with several seeds, and compare them", "wpauc_jax.study.__main__"),
    "report": Command("put one evaluated run or several on one page", "wpauc_jax.report.__main__"),
    "compare": Command("compare two runs' rank files user by user", "wpauc_jax.compare"),
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
    return importlib.import_module(command.module).main([program, *words])


def _in_full(word: str, short: dict[str, str]) -> str:
    """A flag under its whole name."""
    flag, equals, value = word.partition("=")
    name = flag.lstrip("-")
    return f"--config.{short[name]}{equals}{value}" if flag.startswith("-") and name in short else word


if __name__ == "__main__":
    sys.exit(main())
