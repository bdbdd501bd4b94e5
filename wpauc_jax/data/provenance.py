"""The files that a prepared directory was made from: what they were, and whether they have changed since."""

import pathlib
from collections.abc import Sequence
from typing import Any

from wpauc_jax.data.folders import ending, visible
from wpauc_jax.data.hashing import file_digest


def recorded(paths: dict[str, str], digests: dict[str, str], root: pathlib.Path | None) -> list[dict[str, Any]]:
    """For the manifest: each file's place from the folder of `root` on, its size, time of change and sha256.

    `paths` and `digests` go by the names of RawData.files. A zip archive is one file, whatever was read from it.
    """
    if root is None:
        return []
    folder = _folder(root)
    found: dict[str, dict[str, Any]] = {}
    for name, text in paths.items():
        path = pathlib.Path(text)
        stat = path.stat()
        place = str(path.relative_to(folder)) if path.is_relative_to(folder) else text
        digest = digests[name] if name.endswith(path.name) else file_digest(path)
        found[place] = {"path": place, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
    return [found[place] for place in sorted(found)]


def changed(files: Sequence[dict[str, Any]], root: pathlib.Path) -> list[str]:
    """What has changed since `files` were recorded, in words. A file that is gone, or only touched, is none.

    A file is hashed only if its size is the same and its time is not.
    """
    folder = _folder(root)
    out = []
    for file in files:
        path = folder / file["path"]
        if not path.is_file():
            continue
        stat = path.stat()
        if stat.st_size != file["size"]:
            out.append(f"{path} has another size")
        elif stat.st_mtime_ns != file["mtime_ns"] and file_digest(path) != file["sha256"]:
            out.append(f"{path} has changed")
    known = {file["path"] for file in files}
    endings = {ending(folder / place) for place in known if "/" not in place}
    if root.is_dir() and files and any(_is_part(place) for place in known):
        out += [f"{path} is new" for path in visible(root) if path.name not in known and ending(path) in endings - {""}]
    return out


def _folder(root: pathlib.Path) -> pathlib.Path:
    return root if root.is_dir() else root.parent


def _is_part(place: str) -> bool:
    """Whether the file may be one of several parts of a table."""
    return "/" not in place and bool(ending(pathlib.Path(place)))
