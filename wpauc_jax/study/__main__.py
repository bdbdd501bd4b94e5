"""The command line: `python -m wpauc_jax.study --config=configs/studies/topk_control.py --workdir=runs/study`."""

import sys
from collections.abc import Sequence

import jax

from wpauc_jax.config import ConfigError
from wpauc_jax.config.command_line import asks_for_help
from wpauc_jax.evaluation.ranks import RanksError
from wpauc_jax.runtime import interrupts
from wpauc_jax.runtime.lock import LockError, taken
from wpauc_jax.stages.run import tell
from wpauc_jax.study import command_line
from wpauc_jax.study.conduct import conduct
from wpauc_jax.study.workers import Processes, StudyError


def main(arguments: Sequence[str]) -> int:
    """Parses, takes the directory's lock, and calls one function. Returns the exit code."""
    if asks_for_help(arguments):
        print(command_line.HELP)
        return 0
    with interrupts.Interrupts() as signals:
        try:
            command = command_line.read(arguments)
            signals.advice += f"; {command.folder} keeps what is done"
            jax.config.update("jax_platforms", "cpu")  # accelerators are the runs', which are processes of their own
            with taken(command.folder, tell):
                return conduct(command.study, command.folder, Processes(command.folder), tell, command=command.text)
        except (ConfigError, LockError, RanksError, StudyError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            interrupts.end_now(signals.leave(interrupts.INTERRUPTED_EXIT_CODE))
        except interrupts.Terminated:
            interrupts.end_now(signals.leave(interrupts.TERMINATED_EXIT_CODE))
    raise AssertionError("the process has ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
