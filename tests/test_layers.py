"""The architecture, enforced: who may import whom, which files know jax, how long a file may be."""

import ast
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "wpauc_jax"
MAX_LINES = 400

# From the bottom up. A module imports only from rows above its own; modules of one row do not know each other.
# A package's own name is its __init__, which hands out what the modules above it hold.
LAYERS = (
    # L0: formulas, settings, files
    ("", "files", "objectives.checks", "settings"),
    ("config",),
    ("objectives.masked",),
    ("objectives.advantage", "objectives.ranking"),
    ("objectives.tawin",),
    ("objectives.metrics", "objectives.minimax", "objectives.pairwise", "objectives.policy"),
    ("objectives",),
    # L1: data and catalogue, and what needs no model
    (
        "data",
        "data.archives",
        "data.order",
        "data.packing",
        "data.sources.tables",
        "data.tokenizer",
        "distributed",
        "hlo",
        "optim",
        "sharding",
        "writers",
    ),
    ("catalog.trie", "data.dataset", "data.fetch", "data.filters", "data.ids", "data.splits", "data.statistics"),
    ("data.sources.blocks", "data.sources.minionerec", "data.sources.synthetic"),
    (
        "data.ingest",
        "data.sources.delimited",
        "data.sources.jsonlines",
        "data.sources.parquet",
        "data.sources.sequences",
    ),
    ("data.build", "data.sources.amazon", "data.sources.recbole", "data.sources.yelp"),
    ("data.sources.movielens", "data.sources.tabular"),
    ("data.sources.detect", "data.store"),
    ("data.sources",),
    ("catalog.embeddings", "catalog.items", "data.histories", "data.prepare", "ranks"),
    ("baselines", "catalog.sid", "catalog.titles", "data.prompts"),
    ("catalog.build", "data.alignment", "data.pieces"),
    ("data.rows",),
    ("catalog", "data.pipeline"),
    # L1, too: the parts of the loop
    ("integrity", "skips", "termination", "watch"),
    ("feed",),
    ("ledger",),
    # L2: models
    ("models.attention", "models.kernels", "models.log_partition", "models.hf", "models.matmul", "models.rope"),
    ("models.decoder",),
    ("models.policy",),
    ("models.lora", "models.pretrained", "models.vocabulary"),
    ("models.export", "models.partition"),
    ("models",),
    # L3: decoding
    ("alignment", "decode"),
    ("rollout", "exact"),
    # L4: steps, evaluation, checkpoints, the loop
    ("evaluate", "steps", "storage"),
    ("checkpoint",),
    ("loop",),
    # L5: stages on a work directory, tables and plots
    ("first_model", "report"),
    ("workspace",),
    ("compare", "compile_check", "export", "doctor.findings", "plots", "recommend", "train"),
    ("doctor.catalogue", "doctor.checkpoints", "doctor.population", "doctor.prompts", "doctor.splits"),
    ("doctor.tables",),
    ("doctor.examination",),
    ("doctor",),
    ("run",),
    # L6: flags
    ("main",),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}


def modules():
    """Every file of the package by its name in LAYERS."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(source, known):
    """What a file imports: (own modules by their name in LAYERS, top names of other packages)."""
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
            if top == "wpauc_jax":
                own.add(rest)
            else:
                others.add(top)
    return own, others


def test_every_file_has_its_layer():
    assert set(MODULES) == set(LEVEL), "put new files into LAYERS, take removed ones out"
    assert sum(len(row) for row in LAYERS) == len(LEVEL), "a file stands in LAYERS twice"


@pytest.mark.parametrize("name", MODULES)
def test_imports_come_from_lower_layers(name):
    own, _ = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    assert own <= set(LEVEL), f"unknown modules {own - set(LEVEL)}"
    wrong = {other for other in own if LEVEL[other] >= LEVEL[name]}
    assert not wrong, f"wpauc_jax.{name} may not import {sorted(wrong)}: their layer is not below its own"


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in ("data", "catalog")])
def test_data_and_catalogue_stay_off_the_device(name):
    _, others = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    if name == "catalog.trie":  # the one that lives on the device
        assert others & JAX == {"jax"}
    else:
        assert not others & JAX


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] == "objectives"])
def test_objectives_import_jax_and_nothing_else(name):
    own, others = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    assert {other.partition(".")[0] for other in own} <= {"objectives"}
    assert others - set(sys.stdlib_module_names) <= {"jax"}


def test_config_dicts_stop_at_the_command_line():
    users = {name for name, path in MODULES.items() if "ml_collections" in path.read_text(encoding="utf-8")}
    assert users == {"main", "settings"}


def test_no_module_is_too_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_the_reader_of_imports_sees_every_form():
    source = """
import os, jax.numpy as jnp
from wpauc_jax import run
from wpauc_jax.data import fetch
from wpauc_jax.models import Policy
def late():
    import wpauc_jax.decode
    from optax import adamw
"""
    own, others = imports_of(source, {"run", "data", "data.fetch", "models", "decode"})
    assert own == {"run", "data.fetch", "models", "decode"}
    assert others == {"os", "jax", "optax"}
    with pytest.raises(AssertionError, match="line 1: write imports in full"):
        imports_of("from .decode import search", set())
