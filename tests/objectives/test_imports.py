"""The objectives can be used by anyone who has JAX: they import nothing else, and stay that way."""

import ast
import pathlib
import subprocess
import sys

import pytest

from wpauc_jax import objectives

FOLDER = pathlib.Path(objectives.__file__).parent
ROOT = FOLDER.parent.parent
FOREIGN = ("flax", "optax", "orbax", "transformers", "grain", "absl", "ml_collections", "polars", "sklearn")


def test_importing_loads_no_other_library():
    code = (
        "import sys, wpauc_jax.objectives\n"
        f"print(','.join(sorted({{name.split('.')[0] for name in sys.modules}} & set({FOREIGN!r}))))\n"
        "print(','.join(name for name in sys.modules if name.startswith('wpauc_jax.')"
        " and not name.startswith('wpauc_jax.objectives')))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    foreign, own = result.stdout.split("\n")[:2]
    assert foreign == "", f"importing wpauc_jax.objectives loads {foreign}"
    assert own == "", f"importing wpauc_jax.objectives loads {own}"


def allowed(module):
    """jax, the standard library, and the package itself; NumPy is jax's, not ours to lean on."""
    top = module.split(".")[0]
    return top == "jax" or top in sys.stdlib_module_names or module.startswith("wpauc_jax.objectives")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_source_imports_jax_alone(path):
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            modules.append(node.module)
    assert modules
    assert [module for module in modules if not allowed(module)] == []
    assert not allowed("flax.nnx") and not allowed("wpauc_jax.config")


def test_all_lists_what_is_public():
    assert sorted(objectives.__all__) == objectives.__all__
    for name in objectives.__all__:
        value = getattr(objectives, name)
        assert value.__module__.startswith("wpauc_jax.objectives"), name
        assert value.__doc__, name
