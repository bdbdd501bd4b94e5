"""What lies in a folder: data, files that are no data, the parts of one table, or train, valid and test of one set."""

import pathlib
import re
from collections.abc import Sequence

from wpauc_jax.data.dataset import SPLITS
from wpauc_jax.data.errors import DataError, listed

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")  # endings of tables, each plain or gzip
_WORDS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "test": "test"}
_SPLIT = re.compile(rf"(?:(?P<stem>.*)[._-])?(?P<word>{'|'.join(_WORDS)})(?:-[0-9]+-of-[0-9]+)?", re.IGNORECASE)


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder that may be data, sorted; what begins with a dot or an underscore is none."""
    return sorted((path for path in folder.iterdir() if is_visible(path) and path.is_file()), key=_natural)


def is_visible(path: pathlib.Path) -> bool:
    """Whether a name is one that data may have: macOS and Spark leave files that begin with a dot or an underscore."""
    return not path.name.startswith((".", "_"))


def ending(path: pathlib.Path, endings: Sequence[str] = TABLES) -> str:
    """Which of the endings the name has, before .gz; "" for none."""
    name = path.name.lower().removesuffix(".gz")
    return next((end for end in endings if name.endswith(end)), "")


def parts_of(folder: pathlib.Path, without: Sequence[pathlib.Path] = ()) -> tuple[list[pathlib.Path], list[str]]:
    """The files of a folder that together are one table, and the names of what is left aside.

    Beside other tables `.json` is no table, but says something of them. Raises DataError where there is no table, and
    where tables are of several kinds.
    """
    files = [path for path in visible(folder) if path not in without]
    below = [f"{path.name}/" for path in sorted(folder.iterdir()) if path.is_dir() and is_visible(path)]
    kinds = {_KINDS[ending(path)] for path in files if ending(path)}
    if len(kinds) > 1:
        kinds.discard(_KINDS[".json"])
    tables = [path for path in files if ending(path) and _KINDS[ending(path)] in kinds]
    if not tables:
        found = f"only {listed([*(path.name for path in files), *below])}" if files or below else "no file"
        raise DataError(f"{folder} holds {found}: no table ({', '.join(TABLES)}); set data.path to the data")
    names = [path.name for path in tables]
    twice = next((name for name in names if f"{name}.gz" in names), None)
    if twice:
        raise DataError(f"{folder} holds {twice} and {twice}.gz, which are one table twice; keep one")
    if len(kinds) > 1:
        raise DataError(
            f"{folder} holds tables of several kinds: {listed(path.name for path in tables)}; set data.path to one file"
        )
    return tables, [*(path.name for path in files if path not in tables), *below]


_KINDS = {
    **{".csv": "text", ".tsv": "text", ".parquet": "parquet", ".pq": "parquet"},
    **{".jsonl": "lines", ".ndjson": "lines", ".json": "json"},
}


def split_files(path: pathlib.Path, endings: Sequence[str]) -> dict[str, pathlib.Path] | None:
    """The files NAME.train.END, NAME.valid.END and NAME.test.END, or train.END and so on, by split; None without any.

    An underscore or a hyphen may stand for the dot. `path` is their folder, or one of them. Raises DataError where one
    of the three is missing or there are several.
    """
    folder = path if path.is_dir() else path.parent
    groups: dict[tuple[str, str], dict[str, list[pathlib.Path]]] = {}
    for file in visible(folder):
        stem, split = _stem_and_split(file, endings)
        if split:
            groups.setdefault((stem, ending(file, endings)), {}).setdefault(split, []).append(file)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    if path.is_file():
        groups = {key: group for key, group in groups.items() if any(path in files for files in group.values())}
    if not groups:
        return None
    if len(groups) > 1:
        names = (f"{stem or 'train'}{end}" for stem, end in groups)
        raise DataError(f"{folder} holds splits of several data sets ({listed(names)}); set data.path to a train file")
    (group,) = groups.values()
    doubled = next((files for files in group.values() if len(files) > 1), None)
    if doubled:
        raise DataError(f"{folder} holds {' and '.join(file.name for file in doubled)}; keep one")
    missing = [split for split in SPLITS if split not in group]
    if missing:
        found = listed(files[0].name for files in group.values())
        raise DataError(f"{folder} holds {found}, but no {missing[0]} file beside them; put it there")
    return {split: group[split][0] for split in SPLITS}


def _stem_and_split(file: pathlib.Path, endings: Sequence[str]) -> tuple[str, str]:
    end = ending(file, endings)
    if not end:
        return "", ""
    name = file.name[: file.name.lower().rindex(end)]
    found = _SPLIT.fullmatch(name)
    return (found["stem"] or "", _WORDS[found["word"].lower()]) if found else ("", "")


def _natural(path: pathlib.Path) -> list[tuple[int, str]]:
    """A key that puts part-2 before part-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]+)", path.name)]
