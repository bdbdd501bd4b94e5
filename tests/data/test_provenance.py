"""Files that change under a prepared directory are noticed."""

import json
import os
import zipfile

import pytest

from tests.data_worlds import inter, write
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import provenance
from wpauc_jax.data.dataset import MANIFEST
from wpauc_jax.data.prepare import CHANGED, prepare

ROWS = [(f"u{n % 3}", f"i{n % 4}", 1_500_000_000 + n) for n in range(12)]
CSV = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)


def touch(path):
    """Another time of change, a second later."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.fixture
def world(tmp_path):
    """Two parts of a table, prepared."""
    for name in ("part-0.csv", "part-1.csv"):
        write(tmp_path / "raw" / name, CSV)
    config = DataConfig(path=str(tmp_path / "raw"), k_core=0)
    prepare(config, tmp_path / "p")
    return config, tmp_path / "raw", tmp_path / "p"


def test_what_is_the_same_or_only_touched_or_gone_is_no_change(world, monkeypatch):
    config, raw, folder = world
    hashed = []
    digest = provenance.file_digest
    monkeypatch.setattr(provenance, "file_digest", lambda path: hashed.append(path.name) or digest(path))
    prepare(config, folder)
    assert not hashed  # size and time say enough
    touch(raw / "part-1.csv")
    prepare(config, folder)
    assert hashed == ["part-1.csv"]
    (raw / "part-1.csv").unlink()
    prepare(config, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: write(raw / "part-0.csv", CSV + "u9,i9,1500000000\n"), r"part-0\.csv has another size"),
        (
            lambda raw: (write(raw / "part-0.csv", CSV.replace("i3", "i9")), touch(raw / "part-0.csv")),
            r"part-0\.csv has changed",
        ),
        (lambda raw: write(raw / "part-2.csv", CSV), r"part-2\.csv is new"),
    ],
)
def test_a_change_is_an_error_or_said(world, change, message):
    config, raw, folder = world
    change(raw)
    with pytest.raises(ConfigError, match=rf"{message} since .* was prepared; delete .* or set data\.changed=use"):
        prepare(config, folder)
    said = []
    prepare(DataConfig(**{**vars(config), "changed": "use"}), folder, said.append)
    assert any(line.startswith("warning: ") and "what was prepared is used" in line for line in said)


def test_other_files_in_the_folder_are_no_change(world):
    config, raw, folder = world
    for name in ("README.md", "_SUCCESS", ".part-3.csv", "x.parquet"):
        write(raw / name, "x")
    prepare(config, folder)


def test_a_file_a_zip_archive_and_a_moved_root(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ratings.dat", "".join(f"{u}::{i}::5::{t}\n" for u, i, t in ROWS))
        archive.writestr("movies.dat", "i1::One::Drama\n")
    config = DataConfig(path=str(tmp_path / "ml.zip"), k_core=0)
    prepare(config, tmp_path / "p")
    assert [file["path"] for file in json.loads((tmp_path / "p" / MANIFEST).read_text())["sources"]] == ["ml.zip"]
    touch(tmp_path / "ml.zip")
    prepare(config, tmp_path / "p")
    with (tmp_path / "ml.zip").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ConfigError, match=r"ml\.zip has another size"):
        prepare(config, tmp_path / "p")
    write(tmp_path / "one" / "a.inter", inter(ROWS))
    write(tmp_path / "two" / "a.inter", inter(ROWS[:-1]))
    config = DataConfig(root=str(tmp_path / "one"), path="a.inter", k_core=0)
    prepare(config, tmp_path / "q")
    with pytest.raises(ConfigError, match=r"two/a\.inter has another size"):  # the same settings, other data
        prepare(DataConfig(root=str(tmp_path / "two"), path="a.inter", k_core=0), tmp_path / "q")


def test_a_directory_of_the_version_before_opens(world):
    """Its manifest has neither files nor dates, and "s" was the default unit."""
    config, _, folder = world
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sources"], manifest["times"]
    manifest["settings"]["time_unit"] = "s"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert len(prepare(config, folder).item) == 24
    manifest["settings"]["time_unit"] = "ms"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"was prepared with data\.time_unit='ms', this run has 'auto'"):
        prepare(config, folder)


def test_every_choice_has_an_answer():
    assert set(DataConfig.__dataclass_fields__["changed"].metadata["choices"]) == set(CHANGED)
