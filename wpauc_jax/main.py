"""The command line: `python -m wpauc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart`.

Any setting can be given: `--config.rl.target_k=5`. `--config.mode` picks a part of the job. Several processes are one
run where flags or the environment say how they find each other.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from wpauc_jax import modes as run
from wpauc_jax.config import Config, ConfigError, from_config_dict
from wpauc_jax.data.sources import DataError
from wpauc_jax.evaluation.ranks import RanksError
from wpauc_jax.models import PretrainedError
from wpauc_jax.runtime import distributed
from wpauc_jax.training.storage import CheckpointError
from wpauc_jax.training.watch import FaultError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "a file of configs/, after a colon its argument", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where everything of this run is kept; the same again resumes it")
_CLUSTER = flags.DEFINE_enum("cluster", "auto", distributed.CLUSTERS, "what started several processes, if several run")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT for process 0 to listen on, the same for all")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes this run has")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this one is, from 0 on")

# What a user can mend: shown as one line, without a traceback.
_USER_ERRORS = (
    distributed.ClusterError,
    ConfigError,
    DataError,
    PretrainedError,
    CheckpointError,
    RanksError,
    FaultError,
    OSError,
)


def main(argv: Sequence[str]) -> int | None:
    """Parses, says where it runs, and calls one function."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; settings are given as --config.name=value")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the libraries' own notes on every save are not the user's concern
    try:
        config = from_config_dict(_CONFIG.value, Config)
        distributed.initialize(
            os.environ,
            cluster=_CLUSTER.value,
            coordinator=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
        )
        if distributed.is_main_process():
            where = f"{jax.device_count()} {jax.default_backend()} device(s), {jax.process_count()} process(es)"
            print(f"JAX {jax.__version__} on {where}", file=sys.stderr)
        workdir = pathlib.Path(_WORKDIR.value or f"runs/{_config_name()}")
        return run.run(config, workdir)
    except _USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return distributed.leave(1)


def _config_name() -> str:
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return argument or pathlib.Path(path).stem


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
