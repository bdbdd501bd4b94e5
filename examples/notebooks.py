"""Executes the notebooks of this folder and writes what they print and draw back into them.

    python -m examples.notebooks            # all of them
    python -m examples.notebooks own_csv    # one

A notebook runs in an empty folder. Its code cells are executed in their order, in one namespace, as Jupyter does. The
value of a cell's last line is shown, unless a semicolon ends it. Jupyter itself is not needed.
"""

import ast
import base64
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).parent


def execute(notebook: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """The notebook with the outputs of its code cells; runs in `folder`. What a cell raises is raised."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                cell = cell | {"execution_count": number, "outputs": _outputs("".join(cell["source"]), names, number)}
            cells.append(cell)
    finally:
        os.chdir(before)
    return notebook | {"cells": cells}


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, its last value, and the figures it leaves open. Progress on stderr is left out."""
    import matplotlib.pyplot as plt

    tree = ast.parse(source)
    shows = bool(tree.body) and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = tree.body.pop() if shows else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
    for figure in map(plt.figure, plt.get_fignums()):
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=80)
        image = {"image/png": base64.b64encode(picture.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "data": image, "metadata": {}})
    plt.close("all")
    if value is not None:
        data = {"text/plain": repr(value).splitlines(True)}
        outputs.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": number})
    return outputs


def main(names: list[str]) -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                done = execute(json.loads(path.read_text()), pathlib.Path(folder))
            path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
            print(f"{path} is executed")


if __name__ == "__main__":
    main(sys.argv[1:])
