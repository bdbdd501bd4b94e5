"""Seals a folder with the hashes of its files. So damage is found before anything is read from it."""

import hashlib
import json
import pathlib
from collections.abc import Collection

SEAL = "hashes.json"


def seal(folder: pathlib.Path, *, leave_out: Collection[str] = ()) -> None:
    """Writes `hashes.json`, the SHA-256 of every file in `folder` and below but those in `leave_out`, by its path."""
    hashes = {name: _hash(path) for name, path in _files(folder).items() if name not in leave_out}
    (folder / SEAL).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def damage(folder: pathlib.Path, *, under: str = "") -> str | None:
    """What is wrong with a sealed folder, by file; None where every file is what it was when it was sealed.

    With `under`, only files whose path begins so are read; of the others it is only seen that they are there.
    """
    try:
        hashes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        sealed = dict(hashes)
    except FileNotFoundError:
        return f"{SEAL} is missing: it was not written to its end"
    except (ValueError, TypeError):
        return f"{SEAL} is damaged"
    found = _files(folder)  # only what lies in the folder is opened, whatever names the seal holds
    for name, digest in sealed.items():
        if name not in found:
            return f"{name} is missing"
        if name.startswith(under) and _hash(found[name]) != digest:
            return f"{name} is not what was written (its hash differs)"
    return None


def fingerprint(folder: pathlib.Path) -> str | None:
    """The SHA-256 of a folder's seal: equal where all sealed files are. None for a folder that is not sealed."""
    path = folder / SEAL
    return _hash(path) if path.exists() else None


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _hash(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
