"""Amazon reviews and metadata of 2018 in the publisher's shape, drawn small, with what the real files are full of."""

import gzip
import json
import pathlib

import numpy as np

DAY = 86_400
TITLES = {
    "B00PLAIN01": {"title": "Steel Ruler, 30 cm"},
    "B00ENTITY2": {"title": "Nuts &amp; Bolts,  &quot;M4&quot;"},  # entities, two spaces
    "B00TWENTY3": {"title": " ".join(f"word{n}" for n in range(20))},
    "B00LIST004": {"title": ["Safety", "Goggles"]},
    "B00SAME005": {"title": "Nitrile Gloves"},
    "B00SAME006": {"title": "Nitrile Gloves"},  # another item of the same title
    "0012345678": {"title": "Handbook of Screws"},  # a number
    "B00LESS007": {"title": "Tube <5 mm, 3 > 2"},  # no markup, for all its angles
    "B00TOOLNG8": {"title": " ".join(f"word{n}" for n in range(21))},
    "B00SPAN009": {"title": '<span id="productTitle">Drill</span>'},
    "B00HIDDEN0": {"title": "Drill &lt;b&gt;new&lt;/b&gt;"},  # markup behind entities
    "B00EMPTY01": {"title": ""},
    "B00NOTITL2": {},
    "B00NULL003": {"title": None},
}
NOT_DESCRIBED = "B00ABSENT4"  # no line in the metadata
FIRST = "2016-10-01"  # the first day of the shorter window


def draw_reviews(seed: int = 0) -> list[tuple[str, str, int]]:
    """(user, item, time) in the order of the file: some outside the windows or at an edge, with repeats and ties."""
    rng = np.random.default_rng(seed)
    items = [*TITLES, NOT_DESCRIBED]
    day = _day(FIRST)
    rows = []
    for user in range(70):
        met = rng.choice(len(items), rng.integers(3, 12))  # with replacement: a user meets an item again
        rows += [(f"A{user * 7919 % 101:03}", items[item], (day + int(rng.integers(0, 400))) * DAY) for item in met]
        if user % 9 == 0:
            rows.append(rows[-1])  # one review twice
    edges = ("1996-09-30", "2016-09-30", "2016-10-01", "2018-10-31", "2018-11-01", "2018-12-24")
    rows += [(rows[place * 11][0], "B00PLAIN01", _day(edges[place % 6]) * DAY) for place in range(24)]
    order = rng.permutation(len(rows))
    return [rows[place] for place in order]


def _day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(int))


def write_category(folder: pathlib.Path, category: str, reviews: list[tuple[str, str, int]]) -> dict[str, bytes]:
    """`CATEGORY_5.json.gz` and `meta_CATEGORY.json.gz` in the folder; what is in them, by name."""
    lines = [
        {
            **{"overall": 1.0 + time % 5, "verified": True, "reviewTime": "10 1, 2016", "reviewerID": user},
            **{"asin": item, "reviewText": "said <b>much</b>", "unixReviewTime": time, "style": {"Size:": " 1"}},
        }
        for user, item, time in reviews
    ]
    meta = [
        {"category": ["Industrial"], "brand": "Acme", "asin": item, "description": ["good"], **title}
        for item, title in TITLES.items()
    ]
    meta += [
        {"asin": "B00PLAIN01", "title": "Another Name of the Ruler"},  # a second line: the first one counts
        {"asin": "B00NOTITL2", "title": "A Name that comes too late"},
        {"asin": "B00NOBODY5", "title": "Bought by nobody"},
    ]
    bodies = {}
    for name, objects in ((f"{category}_5.json.gz", lines), (f"meta_{category}.json.gz", meta)):
        text = "".join(json.dumps(fields) + "\n" for fields in objects)
        bodies[name] = gzip.compress(text.encode(), mtime=0)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bodies[name])
    return bodies
