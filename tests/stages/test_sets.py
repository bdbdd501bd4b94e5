"""Users' test items as sets: which samples they are, and what a run reports of them."""

import dataclasses
import json

import numpy as np
import pytest

from tests.data.test_later import dataset
from tests.stages.test_old_run import CONFIG
from wpauc_jax.config import Config, ConfigError, EvalConfig
from wpauc_jax.modes import run
from wpauc_jax.stages.evaluate import users_sets


def test_each_item_of_a_user_is_once_in_the_set_and_the_first_prompt_is_shown():
    """Of the first user places 2 to 5 hold the items 3, 2, 3, 4; before them stand 1 and 2."""
    rows = np.array([2, 3, 4, 5, 9, 10])
    members, shown = users_sets(dataset(), rows, exclude_history=False)
    assert members.tolist() == [2, 3, 5, 9, 10] and shown.tolist() == [2, 2, 2, 9, 9]
    members, shown = users_sets(dataset(), rows, exclude_history=True)  # item 2 and the second user's 7 are theirs
    assert members.tolist() == [2, 5, 10] and shown.tolist() == [2, 2, 9]


def test_one_test_item_of_a_user_is_no_set():
    with pytest.raises(ConfigError, match=r"eval\.sets=True means nothing where data\.split='leave_one_out'"):
        Config(eval=EvalConfig(sets=True))


@pytest.mark.slow
def test_a_run_reports_them(tmp_path, capsys):
    config = dataclasses.replace(
        CONFIG,
        mode="sft",
        data=dataclasses.replace(CONFIG.data, split="chronological"),
        sft=dataclasses.replace(CONFIG.sft, steps=2, evals=1, saves=1),
        eval=dataclasses.replace(CONFIG.eval, sets=True),
    )
    run(config, tmp_path)
    run(dataclasses.replace(config, mode="evaluate"), tmp_path)
    sets = json.loads((tmp_path / "results.json").read_text())["sets"]["sft"]
    assert 0 < sets["recall@1"] <= sets["recall@3"] <= sets["recall@5"] <= 1 and 0 < sets["wpauc_users@5"] <= 1
    assert "WPAUC@3" in capsys.readouterr().out
