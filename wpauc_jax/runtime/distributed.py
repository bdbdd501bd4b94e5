"""Several processes as one run: how they find each other, who speaks, and who goes first.

A process must know three things: where process 0 listens, how many processes there are, and which of them it is. Flags
say so, or the environment that a launcher has made. Nothing is guessed. An environment that announces several processes
and does not say all three is an error.
"""

import contextlib
import dataclasses
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

Environment = Mapping[str, str]

CLUSTERS = ("auto", "none", "tpu", "slurm", "openmpi", "jobset")
_PORTS = 61440  # the first of the ports from which a job's number picks one, as JAX itself does
_NUM_PORTS = 4096


class ClusterError(ValueError):
    """Processes that cannot find each other; the message says what is missing or contradictory."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among the others."""

    coordinator: str  # HOST:PORT on which process 0 listens
    count: int
    index: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r".+:\d{1,5}", self.coordinator) or not 0 < self.port < 2**16:
            raise ClusterError(f"the coordinator {self.coordinator!r} is not HOST:PORT with a port from 1 to 65535")
        if not 0 <= self.index < self.count:
            raise ClusterError(f"process {self.index} is not one of {self.count}: they are counted from 0")

    @property
    def port(self) -> int:
        """The port on which process 0 listens."""
        return int(self.coordinator.rpartition(":")[2])


def initialize(
    environment: Environment,
    *,
    cluster: str = "auto",
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of this run; must come before JAX's first use.

    Args:
      environment: os.environ.
      cluster: one of `CLUSTERS`. auto takes the flags, or else the one environment that announces several processes,
        or else runs as one process.
      coordinator, num_processes, process_id: all three, or none.

    Raises:
      ClusterError: names the flag or variable that is missing, or the environments that contradict each other.
    """
    flags = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) not in (0, len(flags)):
        raise ClusterError(f"--{' and --'.join(missing)} missing: give all of --{', --'.join(flags)}, or none of them")
    if coordinator is not None and num_processes is not None and process_id is not None:
        _join(Processes(coordinator, num_processes, process_id))
    elif cluster == "tpu" or (cluster == "auto" and _is_tpu_pod(environment)):
        jax.distributed.initialize()  # JAX asks the TPU's own metadata
    else:
        processes = find(environment, cluster)
        if processes:
            _join(processes)
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ClusterError(f"the devices belong to {jax.process_count()} processes; start each with --cluster=tpu")


def find(environment: Environment, cluster: str) -> Processes | None:
    """What SLURM, Open MPI or a JobSet says in the environment; None where there is one process.

    Raises ClusterError where it says a part only, where `cluster` is named but not there, and where two are.
    """
    if cluster not in CLUSTERS:
        raise ClusterError(f"--cluster={cluster} is unknown; choose one of {', '.join(CLUSTERS)}")
    names = tuple(_READERS) if cluster == "auto" else (cluster,) if cluster in _READERS else ()
    found = {name: processes for name in names if (processes := _READERS[name](environment))}
    if len(found) > 1:
        raise ClusterError(f"the environment is that of {' and '.join(found)}; say which counts with --cluster")
    if cluster in _READERS and not found:
        raise ClusterError(f"--cluster={cluster}, but {_SIGNS[cluster]} is not set: this is no process of {cluster}'s")
    processes = next(iter(found.values()), None)
    return processes if processes and processes.count > 1 else None


def is_main_process() -> bool:
    """True on the one process that writes files and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def main_process_first(what: str) -> Iterator[None]:
    """The block, called `what`, runs on process 0 and, once it is done there, on the others.

    Where it fails on process 0 it raises there what it raised, and ClusterError on the others.
    """
    if not is_main_process() and not _word_of_process_0():
        raise ClusterError(f"{what} failed on process 0, whose message says why")
    done = False
    try:
        yield
        done = True
    finally:
        if is_main_process():
            _word_of_process_0(done)


def leave(code: int) -> int:
    """Leaves the other processes after an error that has been printed. Returns `code`, or ends the process with it.

    Where all met the error they leave together. One that met it alone would wait here for minutes, and the others in a
    collective for it: after ten seconds it is gone, and they fail.
    """
    if jax.distributed.is_initialized():
        leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        leaving.start()
        leaving.join(10)
        if leaving.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code


def _word_of_process_0(word: bool = False) -> bool:
    """What process 0 says, in every process; the others wait for it as long as it takes."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(word)))


def _join(processes: Processes) -> None:
    if processes.index == 0:
        _check_port(processes.port)
    jax.distributed.initialize(
        processes.coordinator, processes.count, processes.index, cluster_detection_method="deactivate"
    )
    # The first exchange connects the processes, for which gloo leaves 30 seconds; those after it have no such limit.
    _word_of_process_0()


def _check_port(port: int) -> None:
    """Raises ClusterError where process 0 cannot listen there: JAX itself would die of it without a word."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended is no matter
            probe.bind(("", port))
            probe.listen()
    except OSError as error:
        raise ClusterError(
            f"process 0 cannot listen on port {port} ({error.strerror}): another program does, perhaps a run that has "
            "not ended; give another port"
        ) from error


def _is_tpu_pod(environment: Environment) -> bool:
    return "," in environment.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in environment


def _slurm(environment: Environment) -> Processes | None:
    """The tasks of a step that srun started; the coordinator is the step's first node."""
    if _SIGNS["slurm"] not in environment:
        return None
    values = _all_of(environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
    nodes = values["SLURM_STEP_NODELIST"]  # as in "gpu[007-015,020],login1"
    prefix, numbers = re.match(r"([^,\[]+)(?:\[([^\]]+)\])?", nodes).groups()  # type: ignore[union-attr]
    first = prefix + re.split("[-,]", numbers)[0] if numbers else prefix
    port = _PORTS + int(values["SLURM_JOB_ID"]) % _NUM_PORTS
    return Processes(f"{first}:{port}", int(values["SLURM_STEP_NUM_TASKS"]), int(values["SLURM_PROCID"]))


def _openmpi(environment: Environment) -> Processes | None:
    """The ranks that mpirun started, on whose machine rank 0 runs; JAX_COORDINATOR_ADDRESS overrides the address."""
    if _SIGNS["openmpi"] not in environment:
        return None
    values = _all_of(environment, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    count, index = int(values["OMPI_COMM_WORLD_SIZE"]), int(values["OMPI_COMM_WORLD_RANK"])
    coordinator = environment.get("JAX_COORDINATOR_ADDRESS")
    if not coordinator:
        uri = environment.get("OMPI_MCA_orte_hnp_uri", "")  # as in "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
        match = re.match(r"(\d+)\..*?tcp://([^,:]+)", uri)
        if not match:
            raise ClusterError(
                "Open MPI 5 does not tell where rank 0 runs; give "
                "mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT with the host of rank 0 and a free port"
            )
        coordinator = f"{match[2]}:{_PORTS + int(match[1]) // 4096 % _NUM_PORTS}"
    return Processes(coordinator, count, index)


def _jobset(environment: Environment) -> Processes | None:
    """The pods of a Kubernetes JobSet, as launch/gke_jobset.yaml tells them."""
    if _SIGNS["jobset"] not in environment:
        return None
    values = _all_of(environment, "JOBSET_COORDINATOR", "JOBSET_PROCESSES", "JOB_COMPLETION_INDEX")
    return Processes(values["JOBSET_COORDINATOR"], int(values["JOBSET_PROCESSES"]), int(values["JOB_COMPLETION_INDEX"]))


_READERS: dict[str, Callable[[Environment], Processes | None]] = {
    "slurm": _slurm,
    "openmpi": _openmpi,
    "jobset": _jobset,
}
_SIGNS = {"slurm": "SLURM_STEP_NUM_TASKS", "openmpi": "OMPI_COMM_WORLD_SIZE", "jobset": "JOBSET_COORDINATOR"}


def _all_of(environment: Environment, *names: str) -> dict[str, str]:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        found = [name for name in names if name not in missing]
        raise ClusterError(f"{', '.join(found)} set but {', '.join(missing)} not; unset all, or use the launcher")
    wrong = [name for name in names if name.endswith(_NUMBERS) and not environment[name].isdigit()]
    if wrong:
        raise ClusterError(f"{wrong[0]}={environment[wrong[0]]!r} is not a number")
    return {name: environment[name] for name in names}


_NUMBERS = ("_TASKS", "_PROCID", "_ID", "_SIZE", "_RANK", "_PROCESSES", "_INDEX")
