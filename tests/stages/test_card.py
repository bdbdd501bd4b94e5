"""The model card of an export: it says what the run's own files say, and nothing of another run."""

import dataclasses
import json
import pathlib
import re
import tarfile

import pytest

import wpauc_jax
from tests.stages.test_old_run import ARCHIVE, CONFIG
from wpauc_jax.config import ExportConfig
from wpauc_jax.models.pretrained import _FILES
from wpauc_jax.stages.card import _without_folder, license_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "old_run"


def exported(run: pathlib.Path, name: str) -> str:
    path = run.parent / name
    export = dataclasses.replace(CONFIG, mode="export", export=ExportConfig(path=str(path), dtype="float32"))
    wpauc_jax.run(export, run)
    return (path / "README.md").read_text()


def test_before_an_evaluation_the_card_says_that_there_is_none(run):
    card = exported(run, "before")
    assert card.startswith("---\nlibrary_name: wpauc_jax\n")
    assert "These parameters were not evaluated" in card and "| recall@" not in card


def test_the_card_has_the_numbers_of_the_run(run):
    wpauc_jax.run(dataclasses.replace(CONFIG, mode="evaluate"), run)
    card = exported(run, "after")
    results = json.loads((run / "results.json").read_text())
    manifest = json.loads((run / "data" / "manifest.json").read_text())
    assert f"# A recommender of {results['items']} items" in card
    assert f"{manifest['statistics']['interactions']:,} interactions" in card
    for digest in manifest["input"].values():
        assert digest in card
    for stage, facts in results["stages"].items():
        (row,) = re.findall(rf"^\| {stage} \| (.*) \|$", card, re.M)
        first = next(iter(facts["metrics"]))
        assert row.startswith(f"{facts['metrics'][first]:.4f} ± {facts['standard_errors'][first]:.4f}")
    assert f'- `catalog.ids="{CONFIG.catalog.ids}"' in card or CONFIG.catalog.ids == "kmeans"
    assert str(run.parent) not in card  # no path of this machine
    assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 200


def test_a_path_of_this_machine_is_told_by_its_last_part(tmp_path):
    assert _without_folder(str(tmp_path)) == tmp_path.name
    for value in ("Qwen/Qwen2.5-0.5B", "text+cooccurrence", "", 16, None):
        assert _without_folder(value) == value


OWN = {"license": "other", "license_name": "qwen-research", "license_link": "LICENSE"}


@pytest.mark.parametrize(
    ("card", "config", "license"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# Model\n", {}, {"license": "apache-2.0"}),
        ('---\nlicense: "mit"\n---\n', {"license": "apache-2.0"}, {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: qwen-research\nlicense_link: LICENSE\n---\n", {}, OWN),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {}, {"license": ["mit", "apache-2.0"]}),
        ("---\nlanguage: en\n---\nlicense: mit\n", {}, {"license": "unknown"}),
        ("---\nlanguage: en\n---\n", {"license": "mit"}, {"license": "mit"}),
        ("---\nlicense: [\n---\n", {}, {"license": "unknown"}),
        ("---\n- a list\n---\n", {"license": "mit"}, {"license": "mit"}),
        ("license: mit\n", {}, {"license": "unknown"}),
        (None, {"license": "mit"}, {"license": "mit"}),
        (None, {}, {"license": "unknown"}),
    ],
)
def test_the_licence_is_what_the_base_model_states(card, config, license, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path) == license


def test_the_hub_is_asked_for_the_card():
    assert "README.md" in _FILES
