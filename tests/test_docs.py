"""The documents: what they name exists, and they can be read on a narrow screen."""

import ast
import dataclasses
import fnmatch
import importlib
import importlib.util
import pathlib
import re
import typing

import pytest

from tests.test_layers import ORDER, PACKAGE
from wpauc_jax.config import Config

ROOT = PACKAGE.parent
DOCUMENTS = sorted(
    path for pattern in ("*.md", "*/*.md") for path in ROOT.glob(pattern) if path.relative_to(ROOT).parts[0][0] != "."
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
MAX_WIDTH, MAX_COLUMNS = 120, 7

ALONE = re.compile(r"\s*(<?https?://\S+|!\[[^]]*\]\([^)]*\))\s*")  # a line that is one address, or one picture
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
SOURCE_PATH = re.compile(r"(?<![\w./*-])((?:[\w.-]+/)*[\w-]+\.(?:py|sh|sbatch|ya?ml|toml))\b(?:::(test_[\w*]+))?")
SHORT_TEST = re.compile(r"`::(test_[\w*]+)`")
MODULE = re.compile(r"python3? -m ([\w.]+)")
SETTING = re.compile(r"--config\.([a-z_]+(?:\.[a-z_0-9]+)*)(?:=([^\s`'\")]+))?")
SETTING_NAME = re.compile(r"([a-z_]+(?:\.[a-z_0-9]+)+)(?:=.*)?")
CONFIG_FILE = re.compile(r"--config=(configs/(?:\w+/)*\w+\.py)(?::([\w.-]+))?")
TARGET = re.compile(r"(?:`|^)make ([a-z-]+)", re.MULTILINE)
NEW_MODULE = re.compile(r"# a new module, ([\w.]+)\n")
FILE_ENDINGS = ("json", "jsonl", "npz", "py")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """The text in parts: ("", prose) and (language or "text", what stands between two fences)."""
    parts, language, lines = [], "", []
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            parts.append((language, "\n".join(lines)))
            language, lines = "" if language else line.strip().lstrip("`") or "text", []
        else:
            lines.append(line)
    return [*parts, (language, "\n".join(lines))]


def prose(text: str) -> str:
    return "\n".join(part for language, part in blocks(text) if not language)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}


def cells(row: str) -> list[str]:
    """The cells of a table's row; a bar in code or behind a backslash is none's border."""
    return CODE_SPAN.sub("code", row.replace("\\|", "")).strip().strip("|").split("|")


def found(path: str) -> list[pathlib.Path]:
    """The files that a path in a text can mean: from the repository or the package on, or a name alone."""
    if "/" in path:
        return [top / path for top in (ROOT, PACKAGE) if (top / path).is_file()]
    folders = (ROOT, *(ROOT / name for name in ("wpauc_jax", "tests", "benchmarks", "examples", "launch")))
    return [at for at in (ROOT / path,) if at.is_file()] or [at for top in folders[1:] for at in top.rglob(path)]


def field_of(name: str) -> dataclasses.Field | None:
    """The setting of that dotted name, or None."""
    kind, field = Config, None
    for part in name.split("."):
        fields = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if part not in fields:
            return None
        field, kind = fields[part], typing.get_type_hints(kind)[part]
    return field


def test_every_document_is_looked_at():
    assert {"README.md", "CONTRIBUTING.md", "docs/design.md", "docs/glossary.md"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_lines_and_tables_fit_a_screen(name):
    lines = text_of(name).splitlines()
    wide = {i: len(line) for i, line in enumerate(lines, 1) if len(line) > MAX_WIDTH and not ALONE.fullmatch(line)}
    assert not wide, f"{name}: lines (number: width) over {MAX_WIDTH}"
    rows = [line for line in prose(text_of(name)).splitlines() if line.startswith("|")]
    assert [row for row in rows if len(cells(row)) > MAX_COLUMNS] == []


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_fences_are_whole(name):
    text = text_of(name)
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) % 2 == 0, f"{name}: a code block is not closed"
    before = 0
    for line in prose(text).splitlines():
        width = len(cells(line)) if line.startswith("|") else 0
        assert not (width and before) or width == before, f"{name}: a row of another width: {line}"
        before = width


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for link in LINK.finditer(prose(text_of(name))):
        target = link[1] or link[2]
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        assert there.exists(), f"{name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{name} links to {target}: no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_tests_that_are_named_exist(name):
    last = ""
    for mention in re.finditer(f"{SOURCE_PATH.pattern}|{SHORT_TEST.pattern}", text_of(name)):
        path, test = mention[1] or last, mention[2] or mention[3]
        files = found(path)
        assert files, f"{name} names {path}, which does not exist"
        last = path
        if test:
            defined = re.findall(r"^def (test_\w+)", "\n".join(file.read_text() for file in files), re.MULTILINE)
            assert fnmatch.filter(defined, test), f"{name} names {path}::{test}, which does not exist"


@pytest.mark.parametrize("name", NAMES)
def test_commands_can_be_given(name):
    text = text_of(name)
    for module in MODULE.findall(text):
        own = ROOT / module.replace(".", "/")
        if (ROOT / module.partition(".")[0]).is_dir():
            assert own.with_suffix(".py").is_file() or (own / "__main__.py").is_file(), f"{name}: python -m {module}"
        else:
            assert importlib.util.find_spec(module), f"{name}: python -m {module}"
    for path, argument in CONFIG_FILE.findall(text):
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        made = getattr(module, "get_study" if path.startswith("configs/studies/") else "get_config")
        made(argument or None)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(TARGET.findall(text)) <= targets


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_are_named_exist(name):
    text = text_of(name)
    for setting, value in SETTING.findall(text):
        field = field_of(setting)
        assert field, f"{name} names --config.{setting}, which is no setting"
        choices = field.metadata.get("choices")
        assert not (choices and value) or value in choices, f"{name}: --config.{setting}={value}"
    sections = {name for name, hint in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(hint)}
    for span in CODE_SPAN.findall(prose(text)):
        match = SETTING_NAME.fullmatch(span)
        if match and match[1].partition(".")[0] in sections and not match[1].endswith(FILE_ENDINGS):
            assert field_of(match[1]), f"{name} names the setting {match[1]}, which is none"


@pytest.mark.parametrize("name", NAMES)
def test_python_in_a_document_is_python_and_imports_what_exists(name):
    """An example may import a module that it adds: test_contributing.py executes it."""
    code = [code for language, code in blocks(text_of(name)) if language == "python"]
    added = {match[1] for block in code for match in [NEW_MODULE.match(block)] if match}
    for block in code:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wpauc_jax"):
                if node.module in added:
                    continue
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{name}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", NAMES)
def test_the_spelling_is_catalog(name):
    assert "catalogue" not in CODE_SPAN.sub("", prose(text_of(name))).lower()


def test_the_readme_has_the_map_of_folders_in_their_order():
    rows = re.findall(r"^\| `([a-z_/.]+)` \|", text_of("README.md"), re.MULTILINE)
    rooms = [row.removesuffix("/").removesuffix(".py") for row in rows]
    assert [room for room in rooms if room in ORDER] == list(ORDER)
    maps = [name for name in NAMES if "| `objectives/` |" in text_of(name)]
    assert maps == ["README.md"], "the map stands once; other documents link to it"


def test_the_walk_goes_down_the_list_of_folders():
    walk = prose(text_of("docs/design.md")).partition("## The walk")[2].partition("\n## ")[0]
    steps = re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]
    links = [re.findall(r"\]\(\.\./wpauc_jax/([a-z_]+)[^)]*\)", step) for step in steps]
    assert len(steps) >= 9 and all(len(link) == 1 for link in links), links
    places = [ORDER.index(folder) for (folder,) in links]
    assert places == sorted(places)


def test_the_doctors_page_has_every_check():
    source = ast.parse((PACKAGE / "doctor" / "examination.py").read_text(encoding="utf-8"))
    names = {
        node.value.elts[0].value
        for node in ast.walk(source)
        if isinstance(node, ast.Yield)
        and isinstance(node.value, ast.Tuple)
        and isinstance(node.value.elts[0], ast.Constant)
    }
    page = " ".join(text_of("docs/doctor.md").split())
    assert len(names) > 15
    assert {name for name in names if name not in page} == set()


def test_the_reader_sees_what_it_should():
    text = "# A `b`-c: d?\n\nx\n```python\n# e\n```\n| `a|b` | c \\| d |\n"
    assert anchors(text) == {"a-b-c-d"}
    assert [language for language, _ in blocks(text)] == ["", "python", ""]
    assert len(cells("| `a|b` | c \\| d |")) == 2
    assert field_of("rl.optim.learning_rate") and not field_of("rl.optim.rate") and not field_of("seed.x")
    assert [match[1] for match in SOURCE_PATH.finditer("see `decode/search.py`, x.py::test_a and a/b.pyc")] == [
        "decode/search.py",
        "x.py",
    ]
    assert not found("decode/nothing.py") and found("search.py") and found("decode/search.py")
    assert not ALONE.fullmatch("see https://example.org") and ALONE.fullmatch("https://example.org")
