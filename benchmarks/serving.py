"""`wpauc serve` under load, on loopback: users a second, and how long an answer takes.

    python -m benchmarks.serving --export=FOLDER                     # what `wpauc export` wrote, or a work directory
    python -m benchmarks.serving --items=1000,10000,100000,1000000   # untrained models of one token an item
    python -m benchmarks.serving --export=FOLDER --clients=1,8,64 --seconds=10
    python -m benchmarks.serving --export=FOLDER --peer --peer-python=PYTHON    # and transformers on the same folder

The server is a process of its own. One request asks for one user's ten items, with a history of random items. In the
closed loop each of some clients asks again as soon as it has its answer. In the open loop requests come at random
times, whatever the answers do, at .5 and .8 of the rate of the last closed loop; so the wait in the queue counts. At
most 1,000 requests are without an answer at once; those beyond it are counted as dropped. With --peer the same
questions go to Hugging Face's `generate` (`benchmarks/serving_peer.py`) once the server has ended, and the lists are
compared. The last line is one JSON object.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

_MOST = 1000  # requests of the open loop without an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", default="", help="an export folder, or a run's work directory")
    parser.add_argument("--items", default="", help="sizes of catalogs of untrained models, between commas")
    parser.add_argument("--clients", default="1,8,64", help="clients of the closed loop, between commas")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--peer", action="store_true", help="ask `generate`, too; FOLDER is an export in float32")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter with PyTorch and transformers")
    parser.add_argument("--peer-batch", type=int, default=8, help="users at a time of the peer")
    parser.add_argument("--peer-users", type=int, default=64, help="how many users the peer answers, at most 256")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)  # serve so many items in this process
    options = parser.parse_args()
    if options.child:
        return serve(options.child)
    if not options.export and not options.items:
        parser.error("give --export=FOLDER or --items=1000,...")
    if options.peer and not options.export:
        parser.error("--peer answers from an export folder; give --export=FOLDER")
    commands: dict[str, list[str]] = {}
    for size in _numbers(options.items):
        commands[str(size)] = [sys.executable, "-m", "benchmarks.serving", f"--child={size}"]
    if options.export:
        commands["export"] = [sys.executable, "-m", "wpauc_jax", "serve", options.export, "--port=0"]
    results = {}
    for name, command in commands.items():
        with server(command) as address:
            results[name] = asyncio.run(measured(*address, _numbers(options.clients), options.seconds))
        for row in results[name]["loops"]:
            print(
                f"{name:>9} {row['loop']:>7} {row['load']:>8}: {row['users_per_s']:8.1f} users/s, "
                f"p50 {1e3 * row['p50_s']:7.1f} ms, p99 {1e3 * row['p99_s']:7.1f} ms, {row['dropped']} dropped"
            )
        asked = results[name].pop("asked")
        if options.peer and name == "export":
            results["peer"] = peer(options, asked[: options.peer_users])
            best = max(row["users_per_s"] for row in results[name]["loops"] if row["loop"] == "closed")
            results["peer"]["ratio"] = best / results["peer"]["users_per_s"]
            print(
                "     peer: {users_per_s:8.1f} users/s; the server answers {ratio:.1f} times as many; "
                "{same_lists:.0%} of the lists are the same, {same_items:.1%} of their items".format(**results["peer"])
            )
    print(json.dumps(results))


def peer(options: argparse.Namespace, asked: list[tuple[bytes, list[str]]]) -> dict[str, float]:
    """Users a second of `generate` on these questions, and how far its lists are the server's."""
    command = [options.peer_python, "-m", "benchmarks.serving_peer", options.export, str(options.peer_batch)]
    given = b"\n".join(body for body, _ in asked)
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"error: the peer ended with status {done.returncode}; its error stands above")
    batches = [json.loads(line) for line in done.stdout.splitlines()]
    theirs = [ids for batch in batches for ids in batch["lists"]]
    pairs = [(ids, others) for (_, ids), others in zip(asked, theirs, strict=True)]
    return {
        "users_per_s": len(asked) / sum(batch["seconds"] for batch in batches),
        "same_lists": float(np.mean([ids == others for ids, others in pairs])),
        "same_items": float(np.mean([len(set(ids) & set(others)) / len(ids) for ids, others in pairs])),
    }


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[tuple[str, int]]:
    """Starts a server and waits until it is ready; gives host and port."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    address, seen = "", []
    try:
        for line in process.stderr:
            seen.append(line)
            address = address or (line.split("/")[2] if line.startswith("http://") else "")
            if line.startswith("ready"):
                break
        else:
            raise RuntimeError(f"the server ended before it was ready: {''.join(seen[-3:])}")
        host, _, port = address.rpartition(":")
        yield host, int(port)
    finally:
        process.terminate()
        process.wait()


async def measured(host: str, port: int, clients: list[int], seconds: float) -> dict[str, Any]:
    """Closed loops with each number of clients, then open loops; and the questions with the server's lists."""
    ids = [item["id"] for item in await _get(host, port, "/items?q=")]
    draw = np.random.default_rng(0)
    bodies = [
        json.dumps({"history": [ids[place] for place in draw.integers(0, len(ids), 8)], "k": 10}).encode()
        for _ in range(256)
    ]
    loops = [
        {"loop": "closed", "load": f"{count}"} | await _closed(host, port, bodies, count, seconds) for count in clients
    ]
    for share in (0.5, 0.8):
        rate = share * loops[len(clients) - 1]["users_per_s"]
        loops.append({"loop": "open", "load": f"{rate:.0f}/s"} | await _open(host, port, bodies, rate, seconds))
    async with _Connection(host, port) as connection:
        answers = [json.loads(await connection.post(body))["items"] for body in bodies]
    lists = [[item["id"] for item in answer] for answer in answers]
    return {"loops": loops, "asked": list(zip(bodies, lists, strict=True))}


async def _closed(host: str, port: int, bodies: list[bytes], count: int, seconds: float) -> dict[str, Any]:
    end, times = time.perf_counter() + seconds, []

    async def client(number: int) -> None:
        async with _Connection(host, port) as connection:
            asked = number
            while time.perf_counter() < end:
                times.append(await connection.ask(bodies[asked % len(bodies)]))
                asked += count

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(count)))
    return _summary(times, time.perf_counter() - began, 0)


async def _open(host: str, port: int, bodies: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    idle: list[_Connection] = []
    waiting: set[asyncio.Task[None]] = set()
    dropped = 0

    async def one(body: bytes, due: float) -> None:
        connection = idle.pop() if idle else await _Connection(host, port).__aenter__()
        await connection.ask(body)
        times.append(time.perf_counter() - due)
        idle.append(connection)

    draw, began = np.random.default_rng(1), time.perf_counter()
    times_due = began + np.cumsum(draw.exponential(1 / rate, max(1, round(rate * seconds))))
    async with asyncio.TaskGroup() as group:  # raises what a request raises
        for number, due in enumerate(times_due):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(waiting) >= _MOST:
                dropped += 1
                continue
            task = group.create_task(one(bodies[number % len(bodies)], due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
    for connection in idle:
        await connection.__aexit__()
    return _summary(times, time.perf_counter() - began, dropped)


def _summary(times: list[float], seconds: float, dropped: int) -> dict[str, Any]:
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return {"users_per_s": len(times) / seconds, "p50_s": float(p50), "p99_s": float(p99), "dropped": dropped}


class _Connection:
    """One connection that stays open; asks one question at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> "_Connection":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._writer.close()

    async def ask(self, body: bytes) -> float:
        """Seconds until the answer. Raises RuntimeError for any status but 200."""
        began = time.perf_counter()
        await self.post(body)
        return time.perf_counter() - began

    async def post(self, body: bytes) -> bytes:
        """The answer. Raises RuntimeError for any status but 200."""
        head = f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return await self.send(f"{head}\r\n\r\n".encode() + body)

    async def send(self, request: bytes) -> bytes:
        """The body of the answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")
        )
        body = await self._reader.readexactly(length)
        if not head.startswith("HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]}: {body.decode()}")
        return body


async def _get(host: str, port: int, path: str) -> list[dict[str, str]]:
    async with _Connection(host, port) as connection:
        return json.loads(await connection.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))["items"]


def serve(items: int) -> None:
    """An untrained model of one token an item, with the tuned shape, as `wpauc serve` would serve it."""
    import socket

    import uvicorn

    from wpauc_jax.batches.prompts import PromptBuilder, PromptFormat
    from wpauc_jax.catalog.items import catalog_from_codes
    from wpauc_jax.config.tuned import MODEL
    from wpauc_jax.decode import Ranker
    from wpauc_jax.decode.scoring import trie_for
    from wpauc_jax.evaluation.evaluate import make_search
    from wpauc_jax.models import init
    from wpauc_jax.serving.app import make_app
    from wpauc_jax.stages.first_model import fitted
    from wpauc_jax.stages.recommender import Answering, Recommender

    catalog = catalog_from_codes(np.arange(items)[:, None], [items])
    builder = PromptBuilder(catalog, 10, PromptFormat(), exclude_history=True)
    policy, params = init(fitted(MODEL, catalog.vocab_size, 12))
    ranker = Ranker(policy, trie_for(catalog.sequences(), "constrained"))
    ids = [str(item) for item in range(items)]
    search_of = functools.partial(make_search, ranker)
    recommender = Recommender(catalog, builder, search_of, Answering("untrained", 0, params, ()), ids, ids, 20, 64)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    listener = socket.create_server(("127.0.0.1", 0))
    say(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    settings = uvicorn.Config(make_app(recommender, say=say), log_level="warning", access_log=False)
    uvicorn.Server(settings).run(sockets=[listener])


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


if __name__ == "__main__":
    main()
