"""A study small enough to be run in a test, and a way to run its jobs in this process."""

import contextlib
import dataclasses
import io
import time

from tests.stages.test_old_run import CONFIG
from wpauc_jax import modes
from wpauc_jax.study import Study, StudyOptions
from wpauc_jax.study.runs import make_ready
from wpauc_jax.study.workers import Outcome

BASE = dataclasses.replace(
    CONFIG,
    sft=dataclasses.replace(CONFIG.sft, steps=4, evals=1, saves=1),
    rl=dataclasses.replace(CONFIG.rl, steps=2, evals=1, saves=1),
    eval=dataclasses.replace(CONFIG.eval, recall_at=(1, 2, 3), ndcg_at=(3,)),
)
ARMS = {"grpo": {"rl.weighting": "none"}, "anchor0": {"rl.anchor": 0}, "anchor2": {"rl.anchor": 2}}


def small_study(arms=ARMS, *, controls=("grpo",), metrics=("recall@1", "recall@3"), grid=None, base=BASE, **options):
    """Two seeds unless told otherwise, few draws."""
    options = {"seeds": (0, 1), "draws": 200} | options
    return Study(base, arms, controls, metrics, grid or {}, StudyOptions(**options))


class InProcess:
    """Does jobs in this process; `started` lists what it was asked to do."""

    def __init__(self):
        self.started = []

    def __call__(self, job):
        began = time.monotonic()
        self.started.append((job.title, job.modes))
        make_ready(job)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                for mode in job.modes:
                    modes.run(dataclasses.replace(job.config, mode=mode), job.folder)
        except Exception as error:
            return Outcome(time.monotonic() - began, f"{error}")
        return Outcome(time.monotonic() - began)
