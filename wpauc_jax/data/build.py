"""The second stage of preparation: it sorts, filters and splits the records, and keeps the items that are left."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.config import DataConfig
from wpauc_jax.data.errors import DataError
from wpauc_jax.data.filters import REPEATS, k_core, title_faults
from wpauc_jax.data.ingest import Records
from wpauc_jax.data.matching import share_with_titles
from wpauc_jax.data.order import stable_order
from wpauc_jax.data.splits import SPLITTERS
from wpauc_jax.data.statistics import statistics_of

_RANGE_ROWS = 1 << 20  # rows of a range of users that are sorted together, more or less


@dataclasses.dataclass(frozen=True)
class Prepared:
    """n interactions sorted by user and then by time; users and items are numbered in the order of their ids."""

    columns: dict[str, np.ndarray]  # user int32[n], item int32[n], time int64[n], split int8[n]
    users: pl.Series  # raw ids
    items: pl.DataFrame  # item_id, title, text
    statistics: dict[str, Any]
    notes: list[str]  # what to say of titles


def build(records: Records, config: DataConfig) -> Prepared:
    """Filters, sorts, splits and counts. The records' columns are used up. Raises DataError if nothing is left.

    The items are those that keep an interaction, with data.split=published all that are described; an item that the
    items table lacks has no title and no text.
    """
    described = _descriptions(records)
    columns = records.columns
    found = len(columns["user"])
    met = np.flatnonzero(np.bincount(columns["item"], minlength=len(records.item_ids)))
    notes = share_with_titles(records.item_ids.gather(met), described)
    dropped: dict[str, Any] = {"outside_window": records.facts["outside"]}
    dropped["by_title"] = _filter_titles(columns, records.item_ids, described, config)
    _sort(columns)
    before = len(columns["user"])
    _select(columns, REPEATS[config.repeats](columns["user"], columns["item"]))
    dropped["repeats"] = before - len(columns["user"])
    before = len(columns["user"])
    if config.k_core > 1:
        _select(columns, k_core(columns["user"], columns["item"], config.k_core))
    dropped["interactions_by_k_core"] = before - len(columns["user"])
    if not len(columns["user"]):
        raise DataError(
            f"nothing is left of {found:,} interactions when every user and every item must have "
            f"data.k_core={config.k_core}; lower it, or the demands on titles"
        )
    users = _renumber(columns, "user", len(records.user_ids))
    if config.split == "published":
        kept_items = np.arange(len(records.item_ids))
    else:
        kept_items = _renumber(columns, "item", len(records.item_ids))
    depth = columns.pop("depth", None)
    columns["split"] = SPLITTERS[config.split](columns)
    if depth is not None and config.split == "published" and not records.facts["rejects"]:
        _check_depth(depth, columns, users, records)
    items = _items(records, described, records.item_ids.gather(kept_items))
    statistics = statistics_of(columns["user"], columns["item"], columns["split"], len(items))
    statistics["protocol"] = config.split
    statistics["items_without_title"] = items["title"].null_count()
    dropped["users"] = len(records.user_ids) - len(users)
    dropped["items"] = len(records.item_ids) - len(items)
    dropped["described_items_without_interactions"] = len(described) - int(
        described["item"].is_in(items["item_id"].implode()).sum()
    )
    dropped["rows"] = records.facts["rejects"]
    statistics["dropped"] = dropped
    return Prepared(columns, records.user_ids.gather(users), items, statistics, notes)


def _check_depth(depth: np.ndarray, columns: dict[str, np.ndarray], users: np.ndarray, records: Records) -> None:
    """Raises DataError for rows of valid or test whose own history is not as long as what stands before them."""
    lengths = np.bincount(columns["user"])
    place = np.arange(len(depth)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    wrong = np.flatnonzero((depth != place) & (columns["split"] > 0))
    if len(wrong):
        user = records.user_ids[int(users[columns["user"][wrong[0]]])]
        item = records.item_ids[int(columns["item"][wrong[0]])]
        raise DataError(
            f"{len(wrong):,} rows of valid and test know another history than the rows before them make: that of user "
            f"{user!r} and item {item!r} has {depth[wrong[0]]} items, not {place[wrong[0]]}; the files are not of one "
            "data set, or choose another data.split"
        )


def _descriptions(records: Records) -> pl.DataFrame:
    """item, title and the row of the first description of each item."""
    if not records.items:
        return pl.DataFrame(schema={"row": pl.UInt32, "item": pl.String, "title": pl.String})
    scanned = pl.scan_parquet(records.items).select("item", "title", "line", "file").with_row_index("row").collect()
    first = scanned.unique("item", keep="first", maintain_order=True)
    if len(first) < len(scanned) and not records.facts["repeated_items"]:
        again = scanned.filter(~pl.col("item").is_first_distinct()).row(0, named=True)
        raise DataError(
            f"{again['file']}: item {again['item']!r} is described a second time in line {again['line']}; keep one"
        )
    return first.drop("line", "file")


def _items(records: Records, described: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """item_id, title and text of `ids`, in their order."""
    wanted = ids.to_frame("item_id").join(
        described, left_on="item_id", right_on="item", how="left", maintain_order="left"
    )
    if not records.items:
        return wanted.select("item_id", "title", text=pl.lit(None, pl.String))
    texts = pl.scan_parquet(records.items).select("text").with_row_index("row")
    found = texts.join(wanted.lazy().select("row").drop_nulls(), on="row", how="semi").collect(engine="streaming")
    return wanted.join(found, on="row", how="left", maintain_order="left").select("item_id", "title", "text")


def _filter_titles(
    columns: dict[str, np.ndarray], item_ids: pl.Series, described: pl.DataFrame, config: DataConfig
) -> dict[str, int]:
    """Drops interactions with items whose titles will not do; how many items by reason."""
    if config.require_title and described.is_empty():
        raise DataError(
            "data.require_title=True, and nothing says what any item is called: put the file that describes the items "
            "beside the interactions, or name it in data.items_path"
        )
    titles = item_ids.to_frame("item").join(described, on="item", how="left", maintain_order="left")["title"]
    faults = title_faults(titles, require=config.require_title, markup=config.drop_markup, words=config.title_words)
    bad = np.logical_or.reduce(list(faults.values()))
    if bad.any():
        _select(columns, ~bad[columns["item"]])
    return {reason: int(items.sum()) for reason, items in faults.items()}


def _sort(columns: dict[str, np.ndarray]) -> None:
    """Sorts the rows by user and then by time, equal times as they stand, in place.

    First pieces of the rows are sorted by ranges of users, then ranges by user and time: so every access is to what the
    processor's caches hold, and several pieces or ranges are sorted at once.
    """
    count, last_user = len(columns["user"]), int(columns["user"].max())
    shift = max(last_user.bit_length() - max(count // _RANGE_ROWS, 1).bit_length(), 0)
    num_ranges = (last_user >> shift) + 1

    def by_range(start: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        piece = {name: values[start : start + _RANGE_ROWS] for name, values in columns.items()}
        ranges = (piece["user"] >> shift).astype(np.int16)  # few bits: NumPy sorts them by radix
        order = np.argsort(ranges, kind="stable")
        return {name: values[order] for name, values in piece.items()}, np.bincount(ranges, minlength=num_ranges)

    with ThreadPoolExecutor() as pool:
        pieces, counts = zip(*pool.map(by_range, range(0, count, _RANGE_ROWS)), strict=True)
        ends = np.cumsum(counts, axis=1)  # in each piece, of each range
        totals = np.cumsum(np.sum(counts, axis=0))
        columns.update({name: np.empty(count, values.dtype) for name, values in columns.items()})

        def sort_range(number: int) -> None:
            parts = [slice(end[number] - part[number], end[number]) for end, part in zip(ends, counts, strict=True)]
            here = {
                name: np.concatenate([piece[name][part] for piece, part in zip(pieces, parts, strict=True)])
                for name in columns
            }
            order = stable_order(here["user"], here["time"])
            place = slice(totals[number] - len(order), totals[number])
            for name, values in here.items():
                columns[name][place] = values[order]

        list(pool.map(sort_range, range(num_ranges)))


def _select(columns: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """Takes the rows, a mask or numbers, of every column in place."""
    if rows.dtype == bool and rows.all():
        return
    with ThreadPoolExecutor() as pool:
        columns.update(zip(columns, pool.map(lambda column: column[rows], columns.values()), strict=True))


def _renumber(columns: dict[str, np.ndarray], name: str, count: int) -> np.ndarray:
    """Numbers a column's values 0, 1, 2, ... without gaps, in place; what they were before."""
    present = np.zeros(count, bool)
    present[columns[name]] = True
    if not present.all():
        columns[name] = (np.cumsum(present, dtype=np.int32) - np.int32(1))[columns[name]]
    return np.flatnonzero(present)
