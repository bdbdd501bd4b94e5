"""The catalog of a work directory. It is built once and kept in catalog.npz and catalog.json.

A catalog that does not fit the settings or the data is refused.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from wpauc_jax.catalog.build import build_catalog, check_codes
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError
from wpauc_jax.config.recorded import value_of
from wpauc_jax.data.dataset import Dataset, Items
from wpauc_jax.data.errors import DataError
from wpauc_jax.runtime.files import atomic_path

Say = Callable[[str], None]
T = TypeVar("T")

_DELETE = "delete catalog.npz and catalog.json to have them made again, and what was trained with them"


def open_catalog(
    config: CatalogConfig,
    folder: pathlib.Path,
    dataset: Dataset | Items,
    tokenizer: Tokenizer | None,
    end: int,
    say: Say,
    *,
    strict: bool = True,
) -> Catalog:
    """The catalog in `folder`, built if there is none; only then are interactions needed.

    The settings determine it, so a missing or damaged file is made anew. Where one of the two is damaged, the new
    catalog must be the one that the other file knows.

    Raises ConfigError where the settings, the data or the tokenizer are others than before, for files of another run,
    and where what is made anew differs from what was. Without `strict`, files of another run are taken as they are, to
    be examined.
    """
    path, facts_path = folder / "catalog.npz", folder / "catalog.json"
    for line in tokenizer.remarks if tokenizer else []:
        say(line)
    facts = _facts(config, dataset, tokenizer, end)
    stored, damage = _read(path, Catalog.load)
    before, more_damage = _read(facts_path, _load_facts)
    if before and path.exists():
        _check_facts(path, before["settings"], facts)
    if stored and before:
        catalog = stored
    else:
        catalog = _make(config, dataset.whole(), tokenizer, end, say)
        if damage or more_damage:
            say(f"{damage or more_damage}; it is made anew")
            known = stored.fingerprint if stored else (before or {}).get("fingerprint", catalog.fingerprint)
            if catalog.fingerprint != known:
                raise ConfigError(
                    f"{damage or more_damage}, and made anew it is another catalog than before; {_DELETE}"
                )
        catalog.save(path)
        _save_facts(facts_path, facts, catalog)
    if strict:
        _check_origin(path, before or {}, catalog, dataset)
    if tokenizer:
        check_codes(catalog, tokenizer)
    return catalog


def _read(path: pathlib.Path, load: Callable[[pathlib.Path], T]) -> tuple[T | None, str]:
    """What a file holds, None where it is not there or damaged; and how it is damaged."""
    if not path.exists():
        return None, ""
    try:
        return load(path), ""
    except DataError as error:
        return None, str(error)


def _facts(config: CatalogConfig, dataset: Dataset | Items, tokenizer: Tokenizer | None, end: int) -> dict[str, Any]:
    """What a catalog depends on, by the names that messages use."""
    settings = {f"catalog.{name}": value for name, value in dataclasses.asdict(config).items()}
    facts = {"data": dataset.fingerprint, **settings}
    if tokenizer:
        facts |= {"the tokenizer's fingerprint": tokenizer.fingerprint, "the end of an item": end}
    return facts


def _load_facts(path: pathlib.Path) -> dict[str, Any]:
    """What catalog.json holds. Raises DataError for a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise DataError(f"{path} is damaged (it holds no settings)")
    return content


def _check_facts(path: pathlib.Path, before: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        then = value_of(before, name)
        if then != value:
            raise ConfigError(
                f"{path} was built with {name}={then!r}, this run has {value!r}; "
                "set --workdir to another directory, or delete this one"
            )


def _check_origin(path: pathlib.Path, before: dict[str, Any], catalog: Catalog, dataset: Dataset | Items) -> None:
    """Raises ConfigError for a catalog that is another run's."""
    if catalog.num_items != dataset.num_items:
        raise ConfigError(
            f"{path} has {catalog.num_items} items, the data {dataset.num_items}: it is another run's; {_DELETE}"
        )
    if before.get("fingerprint", catalog.fingerprint) != catalog.fingerprint:
        raise ConfigError(f"{path} is another run's, and not the one that catalog.json describes; {_DELETE}")


def _make(config: CatalogConfig, dataset: Dataset, tokenizer: Tokenizer | None, end: int, say: Say) -> Catalog:
    say("building the catalog of item token sequences")
    catalog = build_catalog(config, dataset, tokenizer, end=end)
    say("catalog: " + ", ".join(f"{name} {value}" for name, value in catalog.report().items()))
    if tokenizer and catalog.reused:
        names = zip(catalog.code_names, catalog.codes.tolist(), strict=True)
        first = next(name for name, token in names if token < catalog.first_code)
        say(
            f"{catalog.reused} codes are tokens of {tokenizer.path} already, such as {first}: they keep their numbers "
            f"and the checkpoint's rows; {len(catalog.codes) - catalog.reused} codes are new tokens"
        )
    return catalog


def _save_facts(path: pathlib.Path, facts: dict[str, Any], catalog: Catalog) -> None:
    content = {"settings": facts, "report": catalog.report(), "fingerprint": catalog.fingerprint}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
