"""The wheel in an environment of its own: it holds what runs need, and the command works in any folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import wpauc_jax

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: object, cwd: pathlib.Path) -> str:
    """What a command prints. Nothing of this checkout is on its path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")  # pip leaves build/ behind
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "wpauc_jax", source / "wpauc_jax")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", folder, source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_pages_templates_and_configurations(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = ["serving/page.html", "serving/page.js", "report/page.html.jinja"]
    needed += [
        f"configs/{name}.py" for name in ("quickstart", "own", "baselines", "recipes/rere", "studies/objectives")
    ]
    assert {f"wpauc_jax/{name}" for name in needed} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "configs"))]


def test_it_trains_recommends_and_exports_in_an_empty_environment(wheel, tmp_path):
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    lock = ROOT / "requirements.lock"
    bin_folder = environment / "bin"
    run(bin_folder / "pip", "install", "--quiet", "--constraint", lock, wheel, cwd=tmp_path)
    wpauc = bin_folder / "wpauc"
    assert run(wpauc, "--version", cwd=tmp_path).strip().endswith(wpauc_jax.__version__)
    small = ["--config.sft.steps=20", "--config.rl.steps=4", "--config.data.synthetic.num_users=200"]
    table = run(wpauc, "train", "--config=synthetic", "--workdir=run", *small, cwd=tmp_path)
    assert "optimum" in table and "sft" in table
    (tmp_path / "histories.jsonl").write_text('{"user": "ann", "history": ["3", "5"]}\n')
    run(wpauc, "recommend", "--workdir=run", "--input=histories.jsonl", "--output=lists.jsonl", cwd=tmp_path)
    assert (tmp_path / "lists.jsonl").read_text().startswith('{"user": "ann"')
    run(wpauc, "export", "--workdir=run", "--output=model", cwd=tmp_path)
    assert (tmp_path / "model" / "README.md").is_file()
