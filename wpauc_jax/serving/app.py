"""The HTTP interface: recommendations, items, health, metrics, and the page."""

import asyncio
import contextlib
import dataclasses
import importlib.resources
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import prometheus_client as prometheus
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wpauc_jax.serving.batcher import Batcher, FullError
from wpauc_jax.serving.questions import MOST_ITEMS, MOST_USERS, QuestionError, Rules, read_questions
from wpauc_jax.serving.samples import Sample
from wpauc_jax.serving.search import SIZES, ServedSearch
from wpauc_jax.stages.recommender import Recommendation, Recommender

_FOUND = 20  # items that a search for titles gives
_PAGE_FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how long it may wait."""

    most_k: int = 100  # items of a list
    body_bytes: int = 1_000_000
    seconds: float = 10.0  # until an answer
    room: int = 4096  # questions that may wait
    batch_seconds: float = 0.003  # how long a question waits for others


def make_app(
    recommender: Recommender,
    limits: Limits = Limits(),
    *,
    samples: Sequence[Sample] = (),
    say: Callable[[str], None] = print,
) -> Starlette:
    """The application for one recommender; its programs are compiled once it runs. The page offers the `samples`."""
    server = _Server(recommender, limits, samples, say)
    routes = [
        Route("/recommend", server.recommend, methods=["POST"]),
        Route("/items", server.items),
        Route("/samples", server.samples),
        Route("/healthz", server.healthy),
        Route("/readyz", server.ready),
        Route("/metrics", server.measured),
        *(Route(path, _file(*file)) for path, file in _PAGE_FILES.items()),
    ]
    return Starlette(routes=routes, lifespan=server.lifespan)


class _Server:
    def __init__(
        self, recommender: Recommender, limits: Limits, samples: Sequence[Sample], say: Callable[[str], None]
    ) -> None:
        self._limits, self._samples, self._say = limits, samples, say
        self._titles = list(zip(recommender.item_ids, recommender.titles, strict=True))
        self._lower = [f"{title}\n{item}".lower() for item, title in self._titles]
        most_k = min(limits.most_k, recommender.catalog.num_items)
        places = {item: place for place, item in enumerate(recommender.item_ids)}
        most_users = min(MOST_USERS, limits.room)  # more would never find room at once
        self._rules = Rules(places, recommender.builder.exclude_history, most_k, most_users)
        self._facts = recommender.answering.facts()
        self._search = ServedSearch(recommender, most_k)
        self._is_ready = False
        self._registry = registry = prometheus.CollectorRegistry()
        counter, histogram = prometheus.Counter, prometheus.Histogram
        self._requests = counter("wpauc_requests", "Answers to POST /recommend", ["status"], registry=registry)
        self._latency = histogram("wpauc_seconds", "Seconds until an answer", registry=registry)
        self._sizes = histogram("wpauc_batch_users", "Users of a search", buckets=SIZES, registry=registry)
        self._batcher = Batcher(self._search, SIZES[-1], limits.batch_seconds, limits.room, seen=self._sizes.observe)
        prometheus.Gauge("wpauc_waiting", "Users without an answer yet", registry=registry).set_function(
            lambda: self._batcher.held
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Compiles in the background, and answers until the server ends."""
        tasks = [asyncio.create_task(self._batcher.run()), asyncio.create_task(self._compile())]
        yield
        for task in tasks:
            task.cancel()

    async def _compile(self) -> None:
        began = time.perf_counter()
        count = await asyncio.to_thread(self._search.compile)
        self._is_ready = True
        self._say(f"ready: {count} programs, compiled in {time.perf_counter() - began:.1f} s")

    async def recommend(self, request: Request) -> Response:
        """POST /recommend."""
        began = time.perf_counter()
        try:
            content, status = await self._answer(request), 200
        except QuestionError as error:
            content, status = {"error": str(error)}, error.status
        except FullError as error:
            content, status = {"error": f"{error}; try again"}, 429
        except TimeoutError:
            content, status = {"error": f"no answer within {self._limits.seconds:g} seconds; try again"}, 504
        except ClientDisconnect:
            content, status = {"error": "the client hung up"}, 499
        self._requests.labels(str(status)).inc()
        self._latency.observe(time.perf_counter() - began)
        return JSONResponse(content, status, headers={"Retry-After": "1"} if status in (429, 503) else None)

    async def _answer(self, request: Request) -> dict[str, Any]:
        if not self._is_ready:
            raise QuestionError("the server is compiling its programs; GET /readyz says when it is ready", 503)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise QuestionError(f"the content type is {kind!r}; send application/json", 415)
        questions, alone = read_questions(await self._body(request), self._rules)
        answers = await asyncio.wait_for(self._batcher.ask(questions), self._limits.seconds)
        if alone:
            return {**self._facts, "items": _listed(answers[0])}
        users = [
            {"user": question.user, "items": _listed(answer)}
            for question, answer in zip(questions, answers, strict=True)
        ]
        return {**self._facts, "users": users}

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._limits.body_bytes:
                raise QuestionError(f"the body has more than {self._limits.body_bytes:,} bytes", 413)
        return bytes(body)

    async def items(self, request: Request) -> Response:
        """GET /items?q=: items whose title or id has the words; /items?ids=A,B: these, as far as they are there."""
        if "ids" in request.query_params:
            places = [self._rules.places.get(item) for item in request.query_params["ids"].split(",")[:MOST_ITEMS]]
            named = [self._titles[place] for place in places if place is not None]
            return JSONResponse({"items": [{"id": item, "title": title} for item, title in named]})
        words = request.query_params.get("q", "")[:200].lower().split()
        found = []
        for text, (item, title) in zip(self._lower, self._titles, strict=True):
            if all(word in text for word in words):
                found.append({"id": item, "title": title})
                if len(found) == _FOUND:
                    break
        return JSONResponse({"items": found})

    async def samples(self, request: Request) -> Response:
        """GET /samples: users of the run's test set, their histories, and what they took next; none of an export."""

        def named(item: str) -> dict[str, str]:
            place = self._rules.places.get(item)
            return {"id": item, "title": "" if place is None else self._titles[place][1]}

        users = [
            {"user": one.user, "history": list(map(named, one.history)), "taken": named(one.taken)}
            for one in self._samples
        ]
        return JSONResponse({"users": users})

    async def healthy(self, request: Request) -> Response:
        """GET /healthz: the process lives."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """GET /readyz: it can answer."""
        state = {"status": "ready" if self._is_ready else "compiling", "exclude_history": self._rules.exclude_history}
        return JSONResponse({**self._facts, **state}, 200 if self._is_ready else 503)

    async def measured(self, request: Request) -> Response:
        """GET /metrics, in Prometheus' format."""
        return Response(prometheus.generate_latest(self._registry), media_type=prometheus.CONTENT_TYPE_LATEST)


def _listed(answer: list[Recommendation]) -> list[dict[str, Any]]:
    return [item._asdict() | {"score": round(item.score, 6)} for item in answer]


def _file(name: str, kind: str) -> Callable[[Request], Any]:
    content = importlib.resources.files("wpauc_jax.serving").joinpath(name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send
