"""configs/own.py reads the CSV that the README and its own docstring show."""

import dataclasses
import pathlib
import textwrap

import pytest

from tests.configs.test_configs import CONFIGS, parse
from tests.data_worlds import read_all, write
from tests.test_docs import blocks, text_of
from wpauc_jax.config import ConfigError
from wpauc_jax.data.prepare import prepare

HEADER = "user_id,item_id,timestamp"


def of_the_readme():
    (text,) = (code for language, code in blocks(text_of("README.md")) if language == "csv")
    return text


def of_the_docstring():
    text = (CONFIGS / "own.py").read_text(encoding="utf-8")
    return textwrap.dedent(text[text.index(f"    {HEADER},title") :].partition("\n\n")[0])


@pytest.mark.parametrize("text", [of_the_readme, of_the_docstring])
def test_the_csv_that_is_shown_is_read(tmp_path, text):
    header, *lines = text().splitlines()
    assert header == f"{HEADER},title" and len(lines) >= 2
    path = write(tmp_path / "events.csv", "\n".join([header, *lines]) + "\n")
    data = parse("own.py", f"--config.data.path={path}").data
    interactions, items, _ = read_all(data.source, pathlib.Path(data.location))
    fields = [line.split(",") for line in lines]
    assert interactions.select("user", "item", "time").rows() == [(u, i, int(time)) for u, i, time, _ in fields]
    assert dict(items.select("item", "title").rows()) == {item: title for _, item, _, title in fields}


def test_titles_may_be_missing_and_the_path_may_not(tmp_path):
    path = write(tmp_path / "events.csv", f"{HEADER}\nann,b17,3\nann,c4,4\nann,b17,5\n")
    config = dataclasses.replace(parse("own.py").data, path=str(path), k_core=0)
    assert prepare(config, tmp_path / "prepared").item_ids == ["b17", "c4"]
    with pytest.raises(ConfigError, match=r"data.path is empty; .* needs a file or a folder"):
        prepare(parse("own.py").data, tmp_path / "nothing")
