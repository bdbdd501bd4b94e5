"""SFT and RL on a workspace: steps, batches and validation handed to the one loop."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wpauc_jax.batches.pipeline import prompt_batches, sft_batches, steps_per_epoch
from wpauc_jax.batches.rows import sft_rows
from wpauc_jax.config import Config, StageConfig
from wpauc_jax.data.later import Later
from wpauc_jax.evaluation.evaluate import ExactSearch, evaluate, evaluate_exact
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.models import Params
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.metric_lines import MetricWriter
from wpauc_jax.runtime.sharding import batch_rows, place_batch
from wpauc_jax.runtime.trackers import Tracked, Tracker, open_tracker
from wpauc_jax.stages.judge import open_judge
from wpauc_jax.stages.run import Say, best_folder, tell
from wpauc_jax.stages.trained import refuse_changes, settings_of
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.checkpoint import (
    BestCheckpoint,
    Checkpoints,
    changed_settings,
    drop_leftovers,
    finished_step,
    holds_steps,
    load_params,
)
from wpauc_jax.training.loop import Plan, fit
from wpauc_jax.training.memory import memory_line, state_bytes, tree_bytes
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import SFT_SCORING, make_sft_step
from wpauc_jax.training.state import Step, TrainState, init_state


def run_sft(work: Workspace, say: Say = tell) -> int:
    """Supervised fine-tuning from the first parameters or from another run's SFT; or on from the newest checkpoint.

    Does nothing if it is done. Returns the updates done in all.
    """
    settings = work.config.sft
    identity = {**work.identity(), "sft": _identity(settings)}
    done = _finished_step(work, "sft", identity)
    if done is not None:
        return done
    if settings.exclude_history and not work.builder.exclude_history:
        say("sft.exclude_history=True has no effect: every item is ranked (exclude_history)")
    packed = sft_rows(
        work.dataset,
        work.builder,
        work.sft_limits,
        settings.row_tokens,
        exclude_history=settings.exclude_history and work.builder.exclude_history,
    )
    plan = dataclasses.replace(_plan(work, "sft", settings, len(packed)), eval_at_start=bool(settings.start_from))
    optimizer = make_optimizer(settings.optim, plan.total_steps)
    ranker = work.ranker(SFT_SCORING[settings.loss])
    step = make_sft_step(ranker, optimizer, settings, seed=work.config.seed, frozen=work.frozen)
    batches = sft_batches(
        packed,
        settings.batch_size,
        seed=work.config.seed,
        rows=batch_rows(settings.batch_size),
        tasks={task: work.alignment(task) for task in settings.tasks},
    )
    _tell_of_a_new_start(work, "sft", say)
    state = init_state(_start_of_sft(work, say), optimizer, average=settings.ema > 0)
    return _run(work, "sft", state, step, batches, plan, settings, identity, say)


def _start_of_sft(work: Workspace, say: Say) -> Params:
    """The parameters before the first update: those of `sft.start_from`, which must answer as this run does."""
    start = work.config.sft.start_from
    if not start:
        return work.first_params
    refuse_changes(work, "sft", say, kept=pathlib.Path(start))
    return load_params(pathlib.Path(start, "sft", "best"), work.first_params)


def run_rl(work: Workspace, say: Say = tell) -> int:
    """Reinforcement learning from the best SFT parameters, or on from the newest checkpoint; nothing if it is done.

    Returns the updates done in all.
    """
    settings = work.config.rl
    shared = work.identity()
    identity = {
        **shared,
        "rl": _identity(settings) | shared["rl"],  # with the share that is held out, where none is
        "sft": _identity(work.config.sft),
        "sft_from": work.config.sft_from,
    }
    done = _finished_step(work, "rl", identity)
    if done is not None:
        _tell_of_another_sft(work, identity, say)
        return done
    refuse_changes(work, "sft", say, also=_sft_facts(work))
    params = load_params(best_folder(work, "sft"), work.first_params)
    plan = dataclasses.replace(_plan(work, "rl", settings, len(work.rl_positions)), eval_at_start=True)
    optimizer = make_optimizer(settings.optim, plan.total_steps)
    ranker = work.ranker(work.config.scoring)
    judge, prompts = open_judge(work, say)
    step = make_rl_step(ranker, optimizer, settings, seed=work.config.seed, frozen=work.frozen, judge=judge)
    batches = prompt_batches(
        work.dataset,
        work.builder,
        work.rl_positions,
        settings.batch_size,
        seed=work.config.seed,
        rows=batch_rows(settings.batch_size),
        later=_later(work),
        judge=prompts,
    )
    state = init_state(params, optimizer, reference=settings.keeps_reference, average=settings.ema > 0)
    _tell_of_a_new_start(work, "rl", say)
    return _run(work, "rl", state, step, batches, plan, settings, identity, say)


def _later(work: Workspace) -> Later | None:
    """What RL looks at of what users take after its rows."""
    settings = work.config.rl
    if not settings.looks_at_later:
        return None
    every = settings.false_negatives != "keep" and settings.false_negative == "later"
    return Later(work.dataset, 0 if every else settings.targets - 1, work.builder.exclude_history)


# The stages that train, in their order: what each does with a workspace.
STAGES: dict[str, Callable[[Workspace, Say], int]] = {"sft": run_sft, "rl": run_rl}


# How long a stage trains: a finished one goes on where it is to take more steps.
_DURATIONS = {stage: (f"{stage}.steps", f"{stage}.epochs") for stage in STAGES}


def _finished_step(work: Workspace, stage: str, identity: Mapping[str, Any]) -> int | None:
    """Of RL also where SFT has gone on since."""
    checkpoints, best = (work.folder / stage / name for name in ("checkpoints", "best"))
    done = finished_step(checkpoints, best, identity, leave_out=_DURATIONS["sft"] if stage == "rl" else ())
    if done is not None and is_main_process():
        settings: StageConfig = getattr(work.config, stage)
        drop_leftovers(checkpoints, reach=settings.faults.rollback_steps)
    return done


def _tell_of_a_new_start(work: Workspace, stage: str, say: Say) -> None:
    """Checkpoints that were deleted are not missed in silence."""
    folder = work.folder / stage
    if holds_steps(folder / "best") and not holds_steps(folder / "checkpoints"):
        say(f"{folder / 'checkpoints'} holds no checkpoint: {stage} starts anew, and {folder / 'best'} is replaced")


def _tell_of_another_sft(work: Workspace, identity: Mapping[str, Any], say: Say) -> None:
    """RL that began from an earlier SFT is left as it is."""
    found = changed_settings(work.folder / "rl" / "checkpoints", {"sft": identity["sft"]})
    if found:
        say(
            f"{work.folder / 'rl'} was trained from an earlier SFT ({'; '.join(found)}) and is left as it is; delete "
            "it to train it from the SFT of now"
        )


def _sft_facts(work: Workspace) -> dict[str, Any]:
    """What the SFT that RL begins from must have been trained with: RL's rows, and its settings here but the length."""
    rows = {"rl": work.identity()["rl"]}
    if work.config.sft_from:
        return rows
    lengths = {name.partition(".")[2] for name in _DURATIONS["sft"]}
    return rows | {"sft": {name: value for name, value in _identity(work.config.sft).items() if name not in lengths}}


def _run(
    work: Workspace,
    name: str,
    state: TrainState,
    step: Step,
    batches: Any,
    plan: Plan,
    settings: StageConfig,
    identity: Mapping[str, Any],
    say: Say,
) -> int:
    folder = work.folder / name
    frozen = tree_bytes(work.frozen)
    say(memory_line(name, state_bytes(state) | ({"frozen parameters": frozen} if frozen else {})))
    trained_with = {"identity": identity, "settings": settings_of(work.config)}
    with (
        Checkpoints(
            folder / "checkpoints",
            reach=settings.faults.rollback_steps,
            meta=identity,
            may_change=[one for stage in ("sft", name) for one in _DURATIONS[stage]],
        ) as checkpoints,
        BestCheckpoint(folder / "best", trained_with=trained_with) as best,
        MetricWriter(
            work.folder / "metrics.jsonl",
            tracker=_tracker(work),
            enabled=is_main_process(),
        ) as writer,
    ):
        result = fit(
            name,
            state,
            step,
            batches,
            plan=plan,
            checkpoints=checkpoints,
            best=best,
            writer=writer,
            evaluate=_Validation(work, name),
            rows_per_step=settings.batch_size,
            unit="rows" if name == "sft" else "users",
            place=place_batch,
        )
    return result.step


def _tracker(work: Workspace) -> Tracker:
    run = Tracked(work.folder, dataclasses.asdict(work.config))
    return open_tracker(work.config.tracking, run, enabled=is_main_process())


def select_metric(config: Config, stage: str) -> str:
    """The validation metric by which a stage keeps its best checkpoint: what is asked for, or what it aims at."""
    aim = f"recall@{config.rl.target_k}"
    if config.eval.select:
        return config.eval.select
    return aim if stage == "rl" and aim in config.eval.metric_names else config.eval.metric_names[-1]


def _plan(work: Workspace, name: str, settings: StageConfig, rows: int) -> Plan:
    per_epoch = steps_per_epoch(rows, settings.batch_size)
    return Plan(
        total_steps=settings.steps or (max(1, round(settings.epochs * per_epoch)) if settings.epochs else 0),
        evals=settings.evals,
        saves=settings.saves,
        patience=settings.patience,
        select=select_metric(work.config, name),
        faults=settings.faults,
    )


def _identity(settings: StageConfig) -> dict[str, Any]:
    """What a stage's result depends on. A run that a fault has stopped may go on with other settings for faults."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "faults"}


class _Validation:
    """params -> metrics on the validation rows, with `eval.exact` also among all items as "exact/...".

    Where one token tells an item, all items are ranked in any case. `top1_expected` is the mean probability of the
    first items of lists, `top1_observed` how often they are the target; RL has the `hit_rate` of lists as long as those
    of its steps, where lists are long enough.
    """

    def __init__(self, work: Workspace, stage: str) -> None:
        config = work.config.eval
        self._config, self._one_token = config, work.one_token
        self._search = work.exact_search() if config.exact or work.one_token else work.search(config.num_beams)
        self._frozen = work.frozen
        self._batches = work.eval_batches(work.valid_positions)
        self._list_length = {"rl": work.config.rl.list_length}.get(stage, 0)

    def __call__(self, params: Params) -> dict[str, float]:
        config, params = self._config, self._frozen.join(params)
        first: list[np.ndarray] = []  # log-probabilities of the first items of lists
        if not isinstance(self._search, ExactSearch):
            ranks = evaluate(self._search, params, self._batches, on_first=first.append)
            return ranks.metrics(config.recall_at, config.ndcg_at) | self._diagnosed(ranks, first)
        exact = evaluate_exact(self._search, params, self._batches, on_first=first.append)
        among_all = exact.ranks.metrics(config.recall_at, config.ndcg_at)
        metrics = among_all if self._one_token else exact.beams.metrics(config.recall_at, config.ndcg_at)
        metrics |= self._diagnosed(exact.ranks, first)
        if not config.exact:
            return metrics
        return metrics | {f"exact/{name}": value for name, value in (among_all | exact.metrics()).items()}

    def _diagnosed(self, ranks: Ranks, first: list[np.ndarray]) -> dict[str, float]:
        found = {}
        if self._config.search == "beams":  # whose scores are log-probabilities
            found = {
                "top1_expected": float(np.exp(np.concatenate(first), dtype=np.float64).mean()),
                "top1_observed": ranks.mean("recall@1"),
            }
        if 0 < self._list_length <= ranks.num_candidates:
            found["hit_rate"] = ranks.mean(f"recall@{self._list_length}")
        return found
