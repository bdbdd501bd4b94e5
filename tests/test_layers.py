"""The architecture, enforced: who may import whom, which files know jax, how long a file may be."""

import ast
import graphlib
import pathlib
import re
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "wpauc_jax"
MAX_LINES = 400

# The order in which data flows. A folder, or a module at the top, imports only from what stands before it.
ORDER = (
    *("objectives", "config", "runtime", "data", "catalog", "batches", "models", "decode", "training", "evaluation"),
    *("stages", "doctor", "compile_check", "report", "modes", "main", "compare", "study"),
    *("api", "serving", "configs", "__main__"),
)
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}


def modules():
    """Every file of the package by its name, as in "data.sources.amazon"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(source, known):
    """What a file imports: (own modules by such names, top names of other packages)."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full, from wpauc_jax on"
            # `from package import module` imports the module, `from module import name` what it holds.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("wpauc_jax.") in known else node.module for name in names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if name == "wpauc_jax":  # its version
                continue
            if top == "wpauc_jax":
                own.add(rest)
            else:
                others.add(top)
    return own, others


def room(name):
    """The folder of a module, or the module itself where it stands at the top."""
    return name.partition(".")[0]


def test_every_file_is_in_a_folder_of_the_order():
    assert {room(name) for name in MODULES} - {""} == set(ORDER), "a new folder joins ORDER where its data comes from"


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_come_from_folders_before(name):
    own, _ = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    assert own <= set(MODULES), f"unknown modules {own - set(MODULES)}"
    wrong = {other for other in own if ORDER.index(room(other)) > ORDER.index(room(name))}
    assert not wrong, f"wpauc_jax.{name} may not import {sorted(wrong)}: their folder comes after its own"


@pytest.mark.parametrize("folder", [folder for folder in ORDER if (PACKAGE / folder).is_dir()])
def test_no_folder_imports_in_a_circle(folder):
    inside = {name: path for name, path in MODULES.items() if room(name) == folder}
    graph = {
        name: imports_of(path.read_text(encoding="utf-8"), MODULES)[0] & set(inside) for name, path in inside.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError and names the circle


@pytest.mark.parametrize("folder", [folder for folder in ORDER if (PACKAGE / folder).is_dir()])
def test_each_folder_says_what_belongs_there_and_what_does_not(folder):
    text = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")))
    assert text and len(re.findall(r"[.](?=\s|$)", text)) >= 2, f"{folder}/__init__.py needs two sentences"


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in ("data", "catalog")])
def test_data_and_catalogue_stay_off_the_device(name):
    _, others = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    on_the_device = {"catalog.trie": {"jax"}, "catalog.rqvae": {"jax", "flax", "optax"}}  # the latter trains a network
    assert others & JAX == on_the_device.get(name, set())


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] == "objectives"])
def test_objectives_import_jax_and_nothing_else(name):
    own, others = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    assert {other.partition(".")[0] for other in own} <= {"objectives"}
    assert others - set(sys.stdlib_module_names) <= {"jax"}


def test_config_dicts_stop_at_the_command_line():
    users = {name for name, path in MODULES.items() if "ml_collections" in path.read_text(encoding="utf-8")}
    users = {name for name in users if room(name) != "configs"}  # which make what the command line changes
    assert users == {"config.fields", "config.command_line", "study.command_line", "api"}


def test_no_module_is_too_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_the_reader_of_imports_sees_every_form():
    source = """
import os, jax.numpy as jnp
from wpauc_jax import modes
from wpauc_jax.data import fetch
from wpauc_jax.models import Policy
def late():
    import wpauc_jax.decode.search
    from optax import adamw
"""
    own, others = imports_of(source, {"modes", "data", "data.fetch", "models", "decode.search"})
    assert own == {"modes", "data.fetch", "models", "decode.search"}
    assert others == {"os", "jax", "optax"}
    with pytest.raises(AssertionError, match="line 1: write imports in full"):
        imports_of("from .decode import search", set())
