"""The notebooks of examples/: they run from their first cell to their last, and hold what they printed and drew."""

import json
import pathlib

import pytest

from examples.notebooks import FOLDER, execute

NOTEBOOKS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.ipynb"))}


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(notebook):
    """What the cells print or show, as one text."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return "".join("".join(output.get("text", []) or output["data"].get("text/plain", [])) for output in outputs)


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_as_it_was_executed(name):
    cells = code_cells(NOTEBOOKS[name])
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 200_000
    assert texts(NOTEBOOKS[name]) or pictures(NOTEBOOKS[name])


def test_a_csv_of_ones_own_becomes_lists(tmp_path):
    """After two things of tea and one of the garden the next thing of the garden leads, as the stored notebook says."""
    printed = texts(execute(NOTEBOOKS["own_csv"], tmp_path))
    lists = printed.split("after ")[1:]
    assert len(lists) == 3 and all(len(text.strip().splitlines()) == 4 for text in lists)
    assert "Watering can" in lists[0].splitlines()[1]
    assert pathlib.Path(tmp_path, "run", "report.html").is_file()


@pytest.mark.slow
def test_a_sweep_of_anchors_becomes_pictures(tmp_path):
    done = execute(NOTEBOOKS["anchor_sweep"], tmp_path)
    assert len(pictures(done)) == 2
    assert "optimum" in texts(done)
