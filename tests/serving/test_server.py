"""The server on a small finished run: lists, mistakes, load, and the page."""

import asyncio
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

import wpauc_jax
from tests.stages.test_old_run import ARCHIVE, CONFIG
from wpauc_jax.data.dataset import load_dataset, positions
from wpauc_jax.serving.app import Limits, make_app
from wpauc_jax.serving.batcher import Batcher, FullError
from wpauc_jax.serving.questions import MOST_ITEMS, MOST_USERS, Question
from wpauc_jax.serving.samples import sample_users

ROOT = pathlib.Path(__file__).parents[2]


def silent(text):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    parent = tmp_path_factory.mktemp("serving")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(parent, filter="data")
    (parent / "old_run" / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))
    return parent / "old_run"


@pytest.fixture(scope="module")
def recommender(folder):
    return wpauc_jax.Recommender.load(folder, say=silent)


@pytest.fixture(scope="module")
def client(recommender):
    with TestClient(make_app(recommender.served, Limits(body_bytes=50_000), say=silent)) as client:
        deadline = time.monotonic() + 120
        while client.get("/readyz").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield client


def ask(client, **body):
    return client.post("/recommend", json=body)


def test_lists_are_the_recommenders(client, recommender):
    histories = [list(recommender.items)[:3], list(recommender.items)[4:5], []]
    expected = recommender.recommend(histories, 4)
    for history, answer in zip(histories, expected, strict=True):
        items = ask(client, history=history, k=4).json()["items"]
        assert [item["id"] for item in items] == [item.id for item in answer]
        np.testing.assert_allclose([item["score"] for item in items], [item.score for item in answer], atol=1e-5)
    users = [{"user": place, "history": history, "k": 4} for place, history in enumerate(histories)]
    together = ask(client, users=users).json()["users"]
    assert [user["user"] for user in together] == [0, 1, 2]
    assert [[item["id"] for item in user["items"]] for user in together] == [[i.id for i in a] for a in expected]


def test_what_is_excluded_cannot_answer(client, recommender):
    ids = list(recommender.items)
    items = ask(client, history=ids[:2], k=12, exclude_history=True, exclude=ids[2:4]).json()["items"]
    assert {item["id"] for item in items} == set(ids[4:])
    assert len(ask(client, history=ids[:2], k=12, exclude_history=False).json()["items"]) == 12


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[" * 20_000, 400, "the body is no JSON"),
        (b"[]", 400, "the body must be an object"),
        (b'{"users": []}', 400, "users must be a list of 1 to"),
        (b'{"history": "B1"}', 422, "history must be a list of item ids"),
        (b'{"history": ["nowhere"]}', 422, 'history has the item "nowhere", which the catalog lacks'),
        (b'{"users": [{"history": []}, {"history": [[1]]}]}', 422, "users[1]: history has the item [1], which"),
        (b'{"k": 0}', 422, "k=0 must be a whole number from 1 to 12"),
        (b'{"k": 2000000000}', 422, "k=2000000000 must be"),
        (b'{"k": true}', 422, "k=true must be"),
        (b'{"exclude_history": "no"}', 422, 'exclude_history="no" must be true or false'),
        (b'{"histroy": []}', 422, "'histroy' is unknown; use user, history"),
        (json.dumps({"history": ["1"] * (MOST_ITEMS + 1)}).encode(), 422, "history has more than 512 items"),
        (json.dumps({"users": [{}] * (MOST_USERS + 1)}).encode(), 400, "users must be a list"),
        (b'{"history": ["' + b"x" * 60_000 + b'"]}', 413, "the body has more than 50,000 bytes"),
    ],
)
def test_a_mistake_is_one_line_and_the_server_lives(client, body, status, message):
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and message in answer.json()["error"]
    assert client.post("/recommend", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert len(ask(client, k=2).json()["items"]) == 2


def test_items_are_found_by_words_and_by_ids(client, recommender):
    item, title = next(iter(recommender.items.items()))
    assert {"id": item, "title": title} in client.get("/items", params={"q": title.upper()}).json()["items"]
    assert client.get("/items", params={"ids": f"nowhere,{item}"}).json()["items"] == [{"id": item, "title": title}]
    assert client.get("/items", params={"q": "no such words"}).json()["items"] == []


def test_health_metrics_and_page(client):
    assert client.get("/healthz").status_code == 200 and client.get("/readyz").json()["stage"] == "rl"
    before = client.get("/metrics").text
    ask(client, k=1)
    after = client.get("/metrics").text
    count = [line for line in after.splitlines() if line.startswith('wpauc_requests_total{status="200"}')]
    assert count and count[0] not in before
    assert "<title>Recommendations</title>" in client.get("/").text and "recommend" in client.get("/page.js").text


def test_samples_are_the_runs_test_rows(folder, recommender):
    """What the page shows as taken next is what the prepared data say, and never part of the history that is asked."""
    found = sample_users(folder, count=5)
    dataset = load_dataset(folder / "data")
    rows = {(dataset.users[user], dataset.item_ids[dataset.item[place]]) for place, user in rows_of_test(dataset)}
    assert len(found) == 5 and {(one.user, one.taken) for one in found} <= rows
    user = list(dataset.users).index(found[0].user)
    history = [dataset.item_ids[item] for item in dataset.item[dataset.offsets[user] : dataset.offsets[user + 1]]]
    place = history.index(found[0].taken, len(found[0].history))
    assert history[max(0, place - CONFIG.data.max_history) : place] == found[0].history
    with TestClient(make_app(recommender.served, samples=found, say=silent)) as client:
        users = client.get("/samples").json()["users"]
    assert [one["user"] for one in users] == [one.user for one in found]
    assert users[0]["taken"] == {"id": found[0].taken, "title": recommender.items[found[0].taken]}


def rows_of_test(dataset):
    places = positions(dataset, "test")
    return zip(places.tolist(), dataset.user_of(places).tolist(), strict=True)


def test_a_run_without_its_data_is_served_and_says_what_is_missing(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    said = []
    assert sample_users(tmp_path, say=said.append) == []
    assert len(said) == 1 and said[0].startswith("the page offers no users of the test set: ")


def test_an_export_has_no_samples(client, folder, tmp_path):
    (tmp_path / "prompt.json").write_text("{}")
    (tmp_path / "items.jsonl").write_text("")
    assert sample_users(tmp_path) == []
    assert client.get("/samples").json() == {"users": []}


def test_a_request_that_never_finds_room_is_told_so_and_not_to_try_again(recommender):
    with TestClient(make_app(recommender.served, Limits(room=3), say=silent)) as client:
        deadline = time.monotonic() + 120
        while client.get("/readyz").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        answer = ask(client, users=[{"k": 1}] * 4)
        assert answer.status_code == 400 and "users must be a list of 1 to 3 objects" in answer.json()["error"]
        assert ask(client, users=[{"k": 1}] * 3).status_code == 200


def question(number):
    return Question(number, np.zeros(0, np.int64), 1, np.zeros(0, np.int64))


def test_questions_share_searches_and_too_many_are_refused():
    sizes, gate = [], threading.Event()

    def search(questions):
        gate.wait(10)
        sizes.append(len(questions))
        if any(question.user == "bad" for question in questions):
            raise ValueError("broken")
        return [[question.user] for question in questions]

    async def scene():
        batcher = Batcher(search, most=4, seconds=0.05, room=10)
        running = asyncio.create_task(batcher.run())
        asked = [asyncio.create_task(batcher.ask([question(number)])) for number in range(10)]
        await asyncio.sleep(0.2)
        with pytest.raises(FullError, match="10 questions wait already, of at most 10"):
            await batcher.ask([question("late")])
        asked[9].cancel()  # a client that hung up
        gate.set()
        answers = await asyncio.gather(*asked[:9])
        with pytest.raises(ValueError, match="broken"):
            await batcher.ask([question("bad")])
        again = await batcher.ask([question("again")])
        running.cancel()
        return answers, again, batcher.held

    answers, again, held = asyncio.run(scene())
    assert answers == [[[number]] for number in range(9)] and again == [["again"]] and held == 0
    assert max(sizes) == 4 and sizes[:2] == [4, 4]


def test_a_question_that_takes_too_long_is_told(recommender):
    app = make_app(recommender.served, Limits(seconds=0.0), say=silent)
    with TestClient(app) as client:
        assert ask(client, k=1).status_code == 503  # still compiling
        deadline = time.monotonic() + 120
        while client.get("/readyz").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        answer = ask(client, k=1)
        assert answer.status_code == 504 and "no answer within 0 seconds" in answer.json()["error"]


@pytest.fixture
def process(folder):
    """`wpauc serve` as a process: (process, address)."""
    command = [sys.executable, "-m", "wpauc_jax", "serve", str(folder), "--port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    address = ""
    for line in server.stderr:
        address = address or (line.split()[0] if line.startswith("http://") else "")
        if line.startswith("ready"):
            break
    assert address, "it ended before it was ready"
    yield server, address
    server.kill()
    server.wait()


@pytest.mark.slow
def test_the_process_ends_gracefully_and_a_taken_port_is_one_line(process, folder):
    server, address = process
    port = address.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "wpauc_jax", "serve", str(folder), f"--port={port}"]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 1 and second.stderr.splitlines()[-1].startswith("error: 127.0.0.1:")
    asking = socket.create_connection(("127.0.0.1", int(port)))
    body = b'{"k": 2}'
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    asking.sendall(head.encode() + body)
    time.sleep(0.005)
    server.send_signal(signal.SIGTERM)
    answer = asking.recv(65_536)
    assert b"200 OK" in answer and b'"items"' in answer
    assert server.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, which draws the page")
def test_the_page_shows_a_list_in_a_browser(process, recommender):
    _, address = process
    ids = list(recommender.items)[:2]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    found = subprocess.run(
        [*command, f"{address}?history={','.join(ids)}"], capture_output=True, text=True, timeout=120
    )
    expected = recommender.recommend([ids], 10)[0]
    page = found.stdout
    assert "ready; rl answers" in page and page.count('class="bar"') == len(expected)
    assert all(recommender.items[item] in page for item in ids)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, which draws the page")
def test_the_page_shows_what_a_user_of_the_test_set_took_next(process, recommender, folder):
    _, address = process
    sample = sample_users(folder)[0]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    found = subprocess.run([*command, f"{address}?user={sample.user}"], capture_output=True, text=True, timeout=120)
    ids = [item.id for item in recommender.recommend([sample.history], 10)[0]]
    place = f"place {ids.index(sample.taken) + 1} of the list" if sample.taken in ids else "not among these"
    assert f"This user took next: {recommender.items[sample.taken]}" in found.stdout and place in found.stdout
    assert found.stdout.count('class="taken"') == (sample.taken in ids)
