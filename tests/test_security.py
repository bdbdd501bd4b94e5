"""What the project reads can do nothing but be read: no pickle, no unpacking, no path out of a data file, no code."""

import ast
import hashlib
import pathlib
import sys
import zipfile

import numpy as np
import pytest

from tests.data_worlds import atomic, inter, write
from tests.test_layers import MODULES, imports_of
from wpauc_jax.catalog.embeddings import item_embeddings
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.config import CatalogConfig, ConfigError, DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.evaluation.ranks import Ranks, RanksError

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("wpauc_jax",)
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# Modules that load code with data, or whose files may hold objects.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "yaml"}
# Calls by their last name that run code, unpack archives to a folder, or read pickles.
UNSAFE_CALLS = {
    *("eval", "exec", "compile_command", "__import__", "import_module", "system", "popen"),
    *("extract", "extractall", "unpack_archive", "read_pickle"),
}
# Who may talk to a network, or start another program; each of them verifies what arrives by a checksum.
FETCHERS = {"data.fetch"}
JOINERS = {"runtime.distributed"}  # tries the port on which process 0 is to listen
SERVERS = {"serving.__main__"}  # listens where its user says
STARTERS = {"study.workers"}  # starts this package's own runs, as lists of words and never through a shell


def faults_of(source: str) -> list[str]:
    """What in a file could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            last = call.split(".")[-1]
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            # A method called eval or compile of one's own object runs no text; the built-in has no owner.
            if last in UNSAFE_CALLS and not (last in ("eval", "exec") and "." in call):
                found.append(f"line {node.lineno}: calls {call}")
            if last == "load" and call.split(".")[0] in ("np", "numpy") and given.get("allow_pickle") != "False":
                found.append(f"line {node.lineno}: {call} without allow_pickle=False")
            found += [
                f"line {node.lineno}: {call}({name}={given[name]})"
                for name in ("shell", "trust_remote_code", "allow_pickle")
                if given.get(name, "False") != "False"
            ]
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_no_file_loads_pickles_runs_text_or_unpacks_archives(name):
    assert faults_of(SOURCES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch.serialization",
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_search_finds_each_kind(line):
    assert len(faults_of(line)) >= 1


def test_the_search_leaves_what_is_safe():
    assert faults_of("np.load(path, allow_pickle=False); model.eval(); ast.literal_eval(text); pl.read_csv(p)") == []


@pytest.mark.parametrize("name", MODULES)
def test_only_the_fetchers_talk_to_a_network_or_start_programs(name):
    _, others = imports_of(MODULES[name].read_text(encoding="utf-8"), MODULES)
    assert name in FETCHERS | JOINERS | SERVERS | STARTERS or not others & {
        "urllib",
        "http",
        "requests",
        "socket",
        "ftplib",
        "subprocess",
    }


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_arrays_that_hold_objects_are_refused_and_never_unpickled(tmp_path):
    went_off = tmp_path / "went-off"
    bomb = np.array([Bomb(went_off)], dtype=object)
    np.savez(tmp_path / "bomb.npz", sample=bomb, tokens=bomb, lengths=bomb, num_candidates=bomb)
    np.save(tmp_path / "bomb.npy", bomb)
    with pytest.raises(RanksError, match=r"bomb\.npz: not a file of ranks"):
        Ranks.load(tmp_path / "bomb.npz")
    with pytest.raises(DataError, match=r"bomb\.npz is not a catalog "):
        Catalog.load(tmp_path / "bomb.npz")
    with pytest.raises(ConfigError, match=r"bomb\.npy' cannot be read"):
        item_embeddings(CatalogConfig(embedding=str(tmp_path / "bomb.npy")), None)
    assert not went_off.exists()
    np.load(tmp_path / "bomb.npy", allow_pickle=True)  # the bomb works
    assert went_off.exists()


def tree(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_archive_with_paths_out_of_it_is_read_and_nothing_is_unpacked(tmp_path):
    rows = [(user, item, 3, user + item) for user in range(1, 4) for item in range(1, 5)]
    items = [f"{i}|Film {i}|01-Jan-1995|||" + "|".join(["0"] * 19) for i in range(1, 5)]
    archive = tmp_path / "in" / "ml-100k.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("../../../escaped/u.data", atomic(*rows))
        out.writestr("/tmp/../escaped/u.item", "\n".join(items) + "\n")
        out.writestr("../escaped/other.py", "raise SystemExit")
    before = tree(tmp_path)
    dataset = prepare(DataConfig(source="movielens", path=str(archive), k_core=0), tmp_path / "prepared")
    assert (dataset.num_users, dataset.num_items) == (3, 4)
    added = tree(tmp_path).keys() - before.keys()
    assert added and all(name.startswith("prepared/") for name in added)


OPENED: list[str] = []
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def test_paths_in_data_files_are_never_opened(tmp_path):
    """Ids, titles and codes that are paths of files which exist stay text, from the raw files to the prepared ones."""
    secret = tmp_path / "secret.txt"
    secret.write_text("not for the catalogue")
    names = [
        str(secret),
        f"file://{secret}",
        "../secret.txt",
        "secret.txt",
        "/dev/stdin",
        "~/.ssh/id",
        "|true",
        "$(true)",
    ]
    rows = [(names[(u + t) % 7], names[(u + 2 * t) % 7], t) for u in range(8) for t in range(5)]
    write(tmp_path / "data" / "data.inter", inter(rows))
    described = ((name, f"{secret} {i}") for i, name in enumerate(names))
    write(tmp_path / "data" / "data.item", atomic(("item_id:token", "title:token_seq"), *described))
    del OPENED[:]
    config = DataConfig(source="recbole", path=str(tmp_path / "data"), k_core=0)
    dataset = prepare(config, tmp_path / "prepared")
    item_embeddings(CatalogConfig(embedding="text", embedding_width=2), dataset)
    opened = list(OPENED)
    assert any(path.endswith("data.inter") for path in opened)  # the hook sees what is opened
    assert not [path for path in opened if "secret" in path or "ssh" in path or path == "/dev/stdin"]
    assert set(dataset.item_ids) <= set(names) and all(str(secret) in title for title in dataset.titles)
    prepared = [path for path in (tmp_path / "prepared").rglob("*") if path.is_file()]
    assert prepared and not any(b"not for the catalogue" in path.read_bytes() for path in prepared)
