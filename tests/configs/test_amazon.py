"""configs/amazon.py from the publisher's files to a trained model, against a plain reading of the same protocol."""

import collections
import gzip
import html
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.amazon_worlds import DAY, TITLES, draw_reviews, write_category
from tests.configs.test_configs import CONFIGS, parse
from wpauc_jax.data import archives
from wpauc_jax.data.dataset import Dataset, positions
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError

CATEGORIES = {"industrial": "Industrial_and_Scientific", "office": "Office_Products", "toys": "Toys_and_Games"}
SMALL = {
    "eval.recall_at": "(1,3)",
    "eval.ndcg_at": "(3,)",
    **{"catalog.levels": 1, "catalog.codes": 8, "sft.steps": 2, "sft.evals": 1, "sft.batch_size": 4},
    **{"rl.steps": 1, "rl.evals": 1, "rl.batch_size": 4, "rl.group_size": 4, "eval.num_beams": 10},
    **{"model.num_layers": 1, "model.width": 8, "model.num_heads": 1, "model.num_kv_heads": 1},
    **{"model.head_dim": 8, "model.ffn_width": 8},
}


def plain_title(title) -> str:
    text = " ".join(title) if isinstance(title, list) else title or ""
    return " ".join(html.unescape(text).split())


KNOWN = {item: plain_title(fields.get("title")) for item, fields in TITLES.items()}


class Publisher:
    """Serves files under the paths of Amazon 2018; keeps what was asked."""

    def __init__(self):
        self.bodies: dict[str, bytes] = {}
        self.asked: list[str] = []
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.asked.append(self.path)
                body = publisher.bodies.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.host = f"http://127.0.0.1:{self._http.server_port}/amazon_v2"

    def close(self):
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def publisher(monkeypatch):
    out = Publisher()
    monkeypatch.setattr(archives, "AMAZON2018_HOSTS", (out.host.replace("amazon_v2", "moved"), out.host))
    yield out
    out.close()


def by_hand(reviews: list[tuple[str, str, int]], first: str, end: str, titles=KNOWN) -> dict[str, list[tuple]]:
    """(user, history, target, time) of every row of each split, by the protocol in plain Python."""
    days = [int(np.datetime64(day, "D").astype(int)) for day in (first, end)]
    rows = [
        row
        for row in reviews
        if days[0] * DAY <= row[2] < days[1] * DAY
        and (title := titles.get(row[1], ""))
        and not re.search("</?[a-z]+[^<]*>", title)
        and len(title.split(" ")) <= 20
    ]
    while True:
        users = collections.Counter(user for user, _, _ in rows)
        items = collections.Counter(item for _, item, _ in rows)
        left = [row for row in rows if users[row[0]] >= 5 and items[row[1]] >= 5]
        if len(left) == len(rows):
            break
        rows = left
    samples = []
    for user in sorted(users):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        samples += [
            (user, tuple(item for _, item, _ in own[max(n - 10, 0) : n]), own[n][1], own[n][2])
            for n in range(1, len(own))
        ]
    samples.sort(key=lambda sample: sample[3])
    cuts = [0, len(samples) * 8 // 10, len(samples) * 9 // 10, len(samples)]
    names = ("train", "valid", "test")
    return {name: sorted(samples[cuts[n] : cuts[n + 1]]) for n, name in enumerate(names)}


def rows_of(dataset: Dataset, split: str) -> list[tuple]:
    places = positions(dataset, split)
    users, histories = dataset.user_of(places), dataset.histories(places, 10)
    return sorted(
        (
            dataset.users[user],
            tuple(dataset.item_ids[item] for item in history if item >= 0),
            dataset.item_ids[dataset.item[place]],
            int(dataset.time[place]),
        )
        for place, user, history in zip(places, users, histories, strict=True)
    )


@pytest.mark.parametrize(("name", "argument"), [("industrial", ""), ("office", ":office"), ("toys", ":toys")])
def test_from_the_publishers_files_to_the_rows_of_the_protocol(name, argument, publisher, tmp_path):
    category = CATEGORIES[name]
    reviews = draw_reviews(seed=len(name))
    bodies = write_category(tmp_path / "local", category, reviews)
    folders = ("categoryFilesSmall", "metaFiles2")
    publisher.bodies = {
        f"/amazon_v2/{folder}/{file}": body for folder, (file, body) in zip(folders, bodies.items(), strict=True)
    }
    config = parse(f"amazon.py{argument}", f"--config.data.cache={tmp_path / 'cache'}").data
    dataset = prepare(config, tmp_path / "prepared")
    expected = by_hand(reviews, config.start, config.end)
    for split, rows in expected.items():
        assert rows_of(dataset, split) == rows
        assert len(rows) > 5
    assert {item: dataset.titles[n] for n, item in enumerate(dataset.item_ids)} == {
        item: KNOWN[item] for item in sorted({row[2] for rows in expected.values() for row in rows})
    }
    assert sum("moved" in path for path in publisher.asked) == 2  # the first host has neither file

    publisher.asked.clear()
    local = parse(f"amazon.py{argument}", f"--config.data.root={tmp_path / 'local'}").data
    assert rows_of(prepare(local, tmp_path / "again"), "test") == expected["test"]
    reviews_of_my_own = tmp_path / "mine" / "reviews_mine.json"
    reviews_of_my_own.parent.mkdir()
    reviews_of_my_own.write_bytes(gzip.decompress(bodies[f"{category}_5.json.gz"]))
    mine = parse(f"amazon.py{argument}", f"--config.data.path={reviews_of_my_own}").data
    with pytest.raises(DataError, match="nothing says what any item is called: put the file that describes"):
        prepare(mine, tmp_path / "mine-prepared")
    (reviews_of_my_own.parent / "meta_mine.json").write_bytes(gzip.decompress(bodies[f"meta_{category}.json.gz"]))
    assert rows_of(prepare(mine, tmp_path / "mine-prepared"), "test") == expected["test"]
    assert publisher.asked == []


def test_the_two_windows_differ():
    """Else the test above could not tell them apart."""
    reviews = draw_reviews()
    day = np.datetime64("2016-09-30", "D").astype(int) * DAY
    assert any(time == day for _, _, time in reviews)
    assert by_hand(reviews, "1996-10-01", "2018-11-01") != by_hand(reviews, "2016-10-01", "2018-11-01")


def main(config: str, folder: pathlib.Path, **settings) -> subprocess.CompletedProcess:
    """The command itself, in a process without a network: a proxy that nobody listens at stands before every host."""
    command = [sys.executable, "-m", "wpauc_jax.main", f"--config=configs/{config}", f"--workdir={folder}"]
    command += [f"--config.{name}={value}" for name, value in settings.items()]
    nobody = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")} | {"no_proxy": ""}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **nobody}
    return subprocess.run(command, cwd=CONFIGS.parent, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_without_a_network_says_what_to_do_and_then_runs(tmp_path):
    cache = tmp_path / "cache"
    refused = main("amazon.py", tmp_path / "run", **{"data.cache": cache})
    assert refused.returncode == 1
    (error,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert refused.stderr.endswith(error + "\n")
    archive = archives.find_archive("amazon2018:Industrial_and_Scientific")
    for part in (str(cache), *(part for file in archive.files for part in (file.name, *file.addresses))):
        assert part in error
    write_category(cache / "amazon2018-Industrial_and_Scientific", CATEGORIES["industrial"], draw_reviews())
    done = main("amazon.py", tmp_path / "run", **{"data.cache": cache}, **SMALL)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = len(by_hand(draw_reviews(), "1996-10-01", "2018-11-01")["test"])
    assert results["samples"] == rows
    assert {"popularity", "sft", "rl"} <= set(results["stages"])
