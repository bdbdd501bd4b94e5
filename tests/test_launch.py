"""The launch scripts against stand-ins for gcloud, kubectl, srun and scontrol that write down how they are called."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
if [[ $0 == */kubectl && $1 == apply ]]; then cat > "$CALLS.yaml"; fi
case "$*" in
  *describe*) head -n 1 "$CALLS.states"; sed -i 1d "$CALLS.states" ;;
  *wpauc_jax.main*) code=$(head -n 1 "$CALLS.codes"); sed -i 1d "$CALLS.codes"; exit "$code" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path):
    """Runs a script among the stand-ins: (script, arguments, exit codes of training, states of the slice) -> result."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gcloud", "kubectl", "srun", "scontrol"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    calls = tmp_path / "calls"

    def call(script, *arguments, codes=(0,), states=(), **environment):
        calls.write_text("")
        pathlib.Path(f"{calls}.codes").write_text("".join(f"{code}\n" for code in codes))
        pathlib.Path(f"{calls}.states").write_text("".join(f"{state}\n" for state in states))
        done = subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            env={"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls), "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done, calls.read_text().splitlines()

    call.yaml = pathlib.Path(f"{calls}.yaml")
    return call


TPU = ("NAME", "us-west4-a", "v5litepod-16")
RUN = ("run", *TPU, "--config=configs/a.py:b c", "--workdir=/mnt/runs/x")


def test_a_tpu_slice_is_made_set_up_used_and_deleted(cluster):
    done, calls = cluster("tpu_vm.sh", "create", *TPU)
    assert (done.returncode, calls) == (
        0,
        [
            "gcloud compute tpus tpu-vm create NAME --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite "
            "--spot --zone=us-west4-a"
        ],
    )
    done, calls = cluster("tpu_vm.sh", "setup", *TPU[:2])
    assert done.returncode == 0
    assert calls[0].startswith(
        "gcloud compute tpus tpu-vm scp /tmp/wpauc_jax.tar.gz NAME:wpauc_jax.tar.gz --worker=all"
    )
    assert "--constraint requirements.lock '.[tpu]' --zone=us-west4-a" in calls[1]
    done, calls = cluster("tpu_vm.sh", *RUN)
    assert done.returncode == 0
    assert calls == [
        "gcloud compute tpus tpu-vm ssh NAME --worker=all --command=cd wpauc_jax && .venv/bin/python -m wpauc_jax.main "
        "--cluster=tpu --config=configs/a.py:b\\ c --workdir=/mnt/runs/x --zone=us-west4-a"
    ]
    done, calls = cluster("tpu_vm.sh", "delete", *TPU[:2])
    assert calls == ["gcloud compute tpus tpu-vm delete NAME --quiet --zone=us-west4-a"]


def test_a_tpu_run_goes_on_after_pre_emption_and_stops_at_an_error(cluster):
    def actions(calls):
        return [call.split()[4] for call in calls]

    done, calls = cluster("tpu_vm.sh", *RUN, codes=(75, 75, 0), states=("READY", "READY"))
    assert done.returncode == 0
    assert actions(calls) == ["ssh", "describe", "ssh", "describe", "ssh"]
    done, calls = cluster("tpu_vm.sh", *RUN, codes=(255, 0), states=("PREEMPTED",))
    assert done.returncode == 0 and "NAME is PREEMPTED: making it again" in done.stderr
    assert actions(calls) == ["ssh", "describe", "delete", "create", "scp", "ssh", "ssh"]
    done, calls = cluster("tpu_vm.sh", *RUN, codes=(1,), states=("READY",))
    assert done.returncode == 1
    assert actions(calls) == ["ssh", "describe"]


def test_a_job_set_is_filled_in_and_applied(cluster):
    settings = {"IMAGE": "repo/image:1", "CLAIM": "disk", "HOSTS": "8", "TOPOLOGY": "4x8"}
    done, calls = cluster("gke_jobset.sh", "run", "one", "--config=configs/a.py", "--workdir=/runs/one", **settings)
    assert (done.returncode, calls) == (0, ["kubectl apply -f -"])
    text = cluster.yaml.read_text()
    assert "@" not in text
    for line in (
        'name: "one"',
        "parallelism: 8",
        'cloud.google.com/gke-tpu-topology: "4x8"',
        'args: ["--config=configs/a.py", "--workdir=/runs/one"]',
        'value: "one-workers-0-0.one:8476"',
        'image: "repo/image:1"',
    ):
        assert line in text
    assert cluster("gke_jobset.sh", "delete", "one")[1] == ["kubectl delete jobset one"]
    done, calls = cluster("gke_jobset.sh", "run", "one", CLAIM="disk")
    assert done.returncode != 0 and "set IMAGE" in done.stderr and not calls
    done, calls = cluster("gke_jobset.sh", "run", "one", '--config="', **settings)
    assert done.returncode == 2 and "cannot stand in an argument" in done.stderr and not calls


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, []), (1, []), (75, ["scontrol requeue 7"])], ids=["done", "error", "pre-empted"]
)
def test_a_slurm_job_is_queued_again_only_after_pre_emption(cluster, code, requeued):
    done, calls = cluster("slurm.sbatch", "--config=configs/a.py", codes=(code,), SLURM_JOB_ID="7", PYTHON="python")
    assert done.returncode == code
    command = "srun --kill-on-bad-exit=0 python -m wpauc_jax.main --cluster=slurm --config=configs/a.py"
    assert calls == [command, *requeued]


@pytest.mark.parametrize(
    ("script", "arguments", "printed"),
    [
        ("tpu_vm.sh", RUN, r"--cluster=tpu\ --config=configs/a.py:b"),
        ("tpu_vm.sh", ("create", *TPU), "--accelerator-type=v5litepod-16"),
        ("tpu_vm.sh", ("setup", *TPU[:2]), "git -C"),
        ("tpu_vm.sh", ("delete", *TPU[:2]), "tpu-vm delete NAME --quiet"),
        ("gke_jobset.sh", ("run", "one", "--workdir=/runs/one"), 'args: ["--workdir=/runs/one"]'),
        ("gke_jobset.sh", ("delete", "one"), "kubectl delete jobset one"),
        ("slurm.sbatch", ("--config=a",), "--cluster=slurm --config=a"),
        ("local.sh", ("2", "--config=a"), "--num_processes=2 --process_id=1 --config=a"),
    ],
)
def test_a_dry_run_prints_the_commands_and_calls_nothing(cluster, script, arguments, printed):
    done, calls = cluster(script, "--dry-run", *arguments, IMAGE="image", CLAIM="disk")
    assert (done.returncode, calls) == (0, [])
    assert printed in done.stdout


@pytest.mark.parametrize("arguments", [(), ("no-number",), ("0",)])
def test_local_needs_a_number_of_processes(cluster, arguments):
    done, _ = cluster("local.sh", *arguments)
    assert done.returncode == 2 and "usage" in done.stderr


def test_local_ends_with_the_first_code_that_is_not_0(cluster, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\n[[ $* == *--process_id=1* ]] && exit 75\nexit 0\n")
    python.chmod(0o755)
    assert cluster("local.sh", "3", PYTHON=str(python))[0].returncode == 75


def test_scripts_stop_at_errors_and_pass_shellcheck():
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    assert len(scripts) == 4
    assert all("set -euo pipefail" in script.read_text() for script in scripts)
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck, "shellcheck is missing: make venv installs it"
    done = subprocess.run([shellcheck, *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
