"""The Yelp Open Dataset: a folder with `yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`.

A line holds one JSON object; files are plain or gzip. A review has `user_id`, `business_id` and `date`, such as
`2018-07-07 22:09:11`, which is taken as UTC. A business has `business_id`, `name`, `address`, `city`, `state` and
`categories`. Its title is the name with the address behind it, because the branches of a chain share a name.
"""

import pathlib
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.archives import YELP_BUSINESSES, YELP_REVIEWS
from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.sources.jsonlines import as_text, id_of, json_interactions, json_objects
from wpauc_jax.data.tables import FilesRead, RawData, ReadOptions, item_table


def read_yelp(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set in the folder `path`. Raises DataError for a missing or malformed file."""
    reviews, businesses = find_yelp(path, YELP_REVIEWS), find_yelp(path, YELP_BUSINESSES)
    for source, name in ((reviews, YELP_REVIEWS), (businesses, YELP_BUSINESSES)):
        if source is None:
            raise DataError(f"{path} is not the Yelp Open Dataset: it has no {name}")
    assert reviews and businesses
    files = FilesRead()
    interactions = json_interactions(reviews, ("user_id", "business_id", "date"), "s", rejects, files)
    return RawData(interactions, _items(businesses, rejects, files), files, rejects)


def find_yelp(path: pathlib.Path, name: str) -> Input | None:
    """The file called `name`, plain or gzip, in the folder `path`."""
    return next((Input(file) for file in (path / name, path / f"{name}.gz") if file.is_file()), None)


def _items(source: Input, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    for objects in json_objects(source, rejects, files):
        rows = []
        for line, fields in objects:
            item, fault = id_of(fields.get("business_id"), "business_id")
            if fault:
                rejects.add(source.label, line, fault, shown(repr(fields.get("business_id"))))
                continue
            name, city, state, categories, address = (
                " ".join(as_text(fields.get(field)).split())
                for field in ("name", "city", "state", "categories", "address")
            )
            place = ", ".join(dict.fromkeys(filter(None, [*map(str.strip, address.split(",")), city, state])))
            title = f"{name} ({place})" if name and place else name
            rows.append((item, title, ". ".join(filter(None, [title, categories])), line))
        yield item_table(rows, source.label)
