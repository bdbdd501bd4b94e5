"""Questions that arrive within a few milliseconds share one search."""

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence

from wpauc_jax.serving.questions import Question
from wpauc_jax.stages.recommender import Recommendation

Answer = list[Recommendation]
Search = Callable[[Sequence[Question]], list[Answer]]  # on a thread of its own


class FullError(RuntimeError):
    """More questions wait than may."""


@dataclasses.dataclass
class Batcher:
    """One search at a time, of as many questions as wait, up to `most`.

    A question that finds the search idle waits `seconds` for others. Questions beyond `room` are refused.
    """

    search: Search
    most: int
    seconds: float
    room: int
    seen: Callable[[int], None] = lambda size: None  # is told the size of each batch

    def __post_init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Question, asyncio.Future[Answer]]] = asyncio.Queue()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "search")
        self._held = 0  # questions without an answer yet

    @property
    def held(self) -> int:
        """How many questions have no answer yet."""
        return self._held

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order. Raises FullError, and what the search raised."""
        if self._held + len(questions) > self.room:
            raise FullError(f"{self._held} questions wait already, of at most {self.room}")
        self._held += len(questions)
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in questions]
        try:
            for pair in zip(questions, futures, strict=True):
                self._waiting.put_nowait(pair)
            return list(await asyncio.gather(*futures))
        finally:  # also where the client hung up: its questions are passed over
            self._held -= len(questions)
            for future in futures:
                future.cancel()

    async def run(self) -> None:
        """Answers until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            deadline = asyncio.get_running_loop().time() + self.seconds
            while len(batch) < self.most:
                try:
                    left = max(deadline - asyncio.get_running_loop().time(), 0.0)
                    batch.append(await asyncio.wait_for(self._waiting.get(), left))
                except TimeoutError:
                    break
            batch = [(question, future) for question, future in batch if not future.done()]
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        self.seen(len(batch))
        questions = [question for question, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self.search, questions)
        except Exception as error:  # what one batch meets is no end of the server
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
