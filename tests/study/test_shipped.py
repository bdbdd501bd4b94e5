"""The studies of configs/studies: each can be resolved for every set, and a smaller one of each runs to its page."""

import csv
import dataclasses
import pathlib

import pytest

from configs import benchmarks
from tests.study_worlds import InProcess
from wpauc_jax.config import ConfigError
from wpauc_jax.config.names import with_settings
from wpauc_jax.study import StudyOptions
from wpauc_jax.study.conduct import conduct
from wpauc_jax.study.files import read_study

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "studies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
SMALLER = {
    "data.synthetic.num_users": 60,
    "data.max_history": 4,
    "model.width": 8,
    "model.num_heads": 1,
    "model.num_kv_heads": 1,
    "model.head_dim": 4,
    "model.ffn_width": 8,
    "sft.batch_size": 8,
    "sft.steps": 3,
    "sft.evals": 1,
    "rl.batch_size": 8,
    "rl.steps": 2,
    "rl.evals": 1,
    "eval.batch_size": 32,
}


def test_all_are_here():
    assert NAMES == ["baselines", "negatives", "objectives", "topk_control"]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_fits_every_set(name):
    for argument in (None, *benchmarks.SPLITS):
        study = read_study(FOLDER / f"{name}.py", argument)
        assert study.resolved() and set(study.controls) & {*study.arms, "sft"}
        sizes = {len(arm.points) for arm in study.resolved()}
        assert (sizes == {1}) == (argument is None)  # in the synthetic world nothing is tuned
    with pytest.raises(ConfigError, match="knows no data set 'books'"):
        read_study(FOLDER / f"{name}.py", "books")


def test_the_objectives_are_compared_on_a_narrow_model_too():
    base = read_study(FOLDER / "objectives.py", "office-16-0.1").base
    assert (base.model.width, base.model.head_dim, base.model.ffn_width) == (16, 4, 32)
    assert base.sft.dropout == base.rl.dropout == 0.1
    assert read_study(FOLDER / "objectives.py", "office-16").base.sft.dropout == 0.3
    for numbers in ("x", "0", "12", "16-a", "16-0.1-2"):
        with pytest.raises(ConfigError, match="behind the name must be a width, a multiple of 8"):
            read_study(FOLDER / "objectives.py", f"office-{numbers}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_one_runs(name, tmp_path):
    study = read_study(FOLDER / f"{name}.py")
    study = dataclasses.replace(
        study, base=with_settings(study.base, SMALLER), options=StudyOptions(seeds=(0,), draws=100)
    )
    start, said = InProcess(), []
    assert conduct(study, tmp_path, start, said.append) == 0, said
    page = (tmp_path / "study.md").read_text()
    assert all(f"| {arm} |" in page for arm in (*study.arms, "sft", "optimum", "markov"))
    with (tmp_path / "pictures" / "recall_by_length.csv").open() as file:
        assert "optimum" in {row["arm"] for row in csv.DictReader(file)}
    assert (tmp_path / "pictures" / "recall_by_anchor.png").exists() == (name == "topk_control")
