"""Every package that the code imports is declared."""

import ast
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {"absl": "absl-py", "sklearn": "scikit-learn", "orbax": "orbax-checkpoint"}  # packages named otherwise


def imported() -> set[str]:
    """The first parts of all modules that the package imports, anywhere."""
    found = set()
    for path in (ROOT / "wpauc_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"wpauc_jax"}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[\[<>=~! ]", name)[0].lower() for names in lists for name in names}
    missing = {NAMES.get(name, name).lower() for name in imported()} - declared
    assert not missing and "scipy" in declared, f"pyproject.toml does not declare {sorted(missing)}"
