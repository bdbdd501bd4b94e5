"""What a run does not import: libraries that take seconds to load, and that a machine with an accelerator may lack."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

from wpauc_jax.config import DataConfig, SyntheticConfig
from wpauc_jax.data.prepare import prepare

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "exclude_history": "off",
    "data.source": "synthetic",
    "data.k_core": 0,
    "data.synthetic.num_users": 40,
    "data.synthetic.num_items": 12,
    "catalog.ids": "atomic",
    "model.num_layers": 1,
    "model.width": 16,
    "model.ffn_width": 16,
    "sft.steps": 1,
    "rl.epochs": 0,  # what it imports is imported with SFT
    "eval.num_beams": 10,
}
SCRIPT = """
    import json, sys
    import wpauc_jax.objectives
    others = [name for name in sys.modules if name.startswith("wpauc_jax.") and ".objectives" not in name]
    from wpauc_jax import main, modes
    found = {"objectives": others, "drawing": [name for name in ("matplotlib", "scipy") if name in sys.modules]}
    for name in ("polars", "sklearn", "transformers", "torch"):
        sys.modules[name] = None  # an import of it is an error
    found["code"] = main.main(sys.argv)
    print(json.dumps(found))
"""


def test_a_run_from_a_prepared_directory_imports_no_reader_and_no_clustering(tmp_path):
    world = SyntheticConfig(num_users=40, num_items=12)
    prepare(DataConfig(source="synthetic", k_core=0, synthetic=world), tmp_path / "data")
    flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), "--config=configs/own.py", f"--workdir={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *flags], capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"objectives": [], "drawing": [], "code": 0}
    assert (tmp_path / "results.json").exists()
