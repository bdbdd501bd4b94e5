"""configs/yelp.py from the folder of the Open Dataset to the rows of the protocol."""

import json

import numpy as np

from tests.configs.test_amazon import by_hand, rows_of
from tests.configs.test_configs import parse
from wpauc_jax.data.prepare import prepare

DAY, HOUR = 86_400, 3600
FIRST = int(np.datetime64("2021-01-01", "D").astype(int)) * DAY
PLACES = {
    "-b1": {"name": "Cheddar's", "address": "1 Main St, Ste 2", "city": "Avon", "state": "IN"},
    "_b2": {"name": "Cheddar's", "address": "9 Elm St", "city": "Reno", "state": "NV"},  # of the same chain
    "b3": {"name": "Market Wagon", "address": "", "city": "Reno", "state": "NV"},
    "b4": {"name": " ".join("many" for _ in range(18)), "address": "", "city": "Reno", "state": "NV"},
    "b5": {"name": " ".join("many" for _ in range(19)), "address": "", "city": "Reno", "state": "NV"},
    "b6": {"name": "", "address": "3 Oak St", "city": "Reno", "state": "NV"},
}


def titles() -> dict[str, str]:
    parts = {item: (f["name"], f["address"], f["city"], f["state"]) for item, f in PLACES.items()}
    return {
        item: f"{name} ({', '.join(filter(None, place))})" if name else "" for item, (name, *place) in parts.items()
    }


def test_from_the_folder_of_the_open_dataset_to_the_rows_of_the_protocol(tmp_path):
    rng = np.random.default_rng(0)
    reviews = [
        (f"u{user}", item, FIRST + int(rng.integers(-40 * 24, 400 * 24)) * HOUR)  # some before 2021, some after
        for user in range(30)
        for item in rng.choice(list(PLACES), 9)
    ]
    reviews += [(f"u{user}", "-b1", FIRST + edge) for user in range(9) for edge in (-1, 0, 365 * DAY - 1, 365 * DAY)]
    folder = tmp_path / "yelp"
    folder.mkdir()
    dates = [str(np.datetime64(time, "s")).replace("T", " ") for _, _, time in reviews]
    lines = [
        {"review_id": str(n), "user_id": user, "business_id": item, "stars": 1.0, "text": "so", "date": date}
        for n, ((user, item, _), date) in enumerate(zip(reviews, dates, strict=True))
    ]
    places = [{"business_id": item, **fields, "categories": None} for item, fields in PLACES.items()]
    for name, objects in (("review", lines), ("business", places)):
        path = folder / f"yelp_academic_dataset_{name}.json"
        path.write_text("".join(json.dumps(fields) + "\n" for fields in objects))
    config = parse("yelp.py", f"--config.data.path={folder}").data
    dataset = prepare(config, tmp_path / "prepared")
    expected = by_hand(reviews, config.start, config.end, titles())
    assert set(dataset.item_ids) == {"-b1", "_b2", "b3", "b4"}  # b5's title has a word too many, b6 has no name
    assert dict(zip(dataset.item_ids, dataset.titles, strict=True)).items() <= titles().items()
    for split, rows in expected.items():
        assert rows_of(dataset, split) == rows
        assert len(rows) > 5
    for setting in ("root", "cache"):  # both hold a folder yelp
        again = prepare(parse("yelp.py", f"--config.data.{setting}={tmp_path}").data, tmp_path / setting)
        assert again.fingerprint == dataset.fingerprint
