"""The command line: `python -m wpauc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`.

Any setting can be given: `--config.rl.target_k=5`. `--config.mode` picks a part of the job. Several processes are one
run where flags or the environment say how they find each other. `--help` says the rest.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from wpauc_jax.config import ConfigError, command_line
from wpauc_jax.runtime import interrupts

command_line.define(flags.FLAGS)  # so that absl's `app.run(main)` works, too


def main(arguments: Sequence[str]) -> int:
    """Parses, says where it runs, and calls one function. Returns the exit code."""
    if command_line.asks_for_help(arguments):
        print(command_line.help_text())
        return 0
    with interrupts.Interrupts() as signals:
        try:
            command = command_line.read(arguments)
            signals.advice += f"; {command.workdir} keeps what is done"
            return _run(command, signals)
        except ConfigError as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            _leave(signals.leave(interrupts.INTERRUPTED_EXIT_CODE))
        except interrupts.Terminated:
            _leave(signals.leave(interrupts.TERMINATED_EXIT_CODE))
    raise AssertionError("the process has ended")


def _run(command: command_line.Command, signals: interrupts.Interrupts) -> int:
    # Imported here, since it takes seconds: a mistyped setting is answered before, and Ctrl-C is caught already.
    import jax
    from absl import logging

    from wpauc_jax import modes
    from wpauc_jax.data.errors import DataError
    from wpauc_jax.data.fetch import default_cache
    from wpauc_jax.evaluation.ranks import RanksError
    from wpauc_jax.models import PretrainedError
    from wpauc_jax.runtime import distributed
    from wpauc_jax.runtime.lock import LockError
    from wpauc_jax.runtime.programs import keep_programs
    from wpauc_jax.training.storage import CheckpointError
    from wpauc_jax.training.watch import FaultError

    # What a user can mend: shown as one line, without a traceback.
    mendable = (ConfigError, DataError, PretrainedError, CheckpointError, RanksError, FaultError, LockError, OSError)
    logging.use_absl_handler()
    if not command.verbosity:
        logging.set_verbosity(logging.WARNING)  # the libraries' own notes on every save are not the user's concern
    try:
        distributed.initialize(
            os.environ,
            cluster=command.cluster,
            coordinator=command.coordinator,
            num_processes=command.num_processes,
            process_id=command.process_id,
        )
        signals.speaks = distributed.is_main_process()
        if signals.speaks:
            where = f"{jax.device_count()} {jax.default_backend()} device(s), {jax.process_count()} process(es)"
            print(f"JAX {jax.__version__} on {where}", file=sys.stderr)
        kept = command.config.compile_cache
        if kept != "off":
            problem = keep_programs(default_cache() / "programs" if kept == "auto" else pathlib.Path(kept))
            if problem and signals.speaks:
                print(f"warning: {problem}", file=sys.stderr)
        return modes.run(command.config, command.workdir) or 0
    except (distributed.ClusterError, *mendable) as error:
        return distributed.leave(_fail(str(error)))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        return distributed.leave(_fail(f"the memory is full ({first}); lower a batch size, or cut the model smaller"))


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 1


def _leave(code: int) -> None:
    """Ends the process at once: the libraries' threads have nothing to say any more."""
    if "jax" in sys.modules:
        from wpauc_jax.runtime import distributed

        distributed.leave(code)
    interrupts.end_now(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
