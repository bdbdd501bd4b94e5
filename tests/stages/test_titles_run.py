"""The whole job with titles as items, on a world where the next item is certain."""

import dataclasses
import json
import pathlib
import re

import pytest

from tests.data_worlds import circle
from tests.text_worlds import small_tokenizer_folder
from wpauc_jax import modes as run
from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    PromptConfig,
    RecommendConfig,
    RlConfig,
    SftConfig,
)
from wpauc_jax.doctor import checkpoints
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages.workspace import open_workspace

USERS = 48
NAMES = ["a", "b", "a b"]  # short, as the programs grow with the trie's depth
ITEMS = 4 * len(NAMES)  # every title four times: only the item id tells them apart


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("circle")
    circle(folder, items=ITEMS, users=USERS, shortest=6, longest=8)
    rows = [f"i{item}\t{NAMES[item % len(NAMES)]}" for item in range(ITEMS)]
    (folder / "circle.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *rows]) + "\n")
    return folder


def titles_config(data: pathlib.Path, style: str) -> Config:
    return Config(
        data=DataConfig(source="recbole", path=str(data), k_core=0, max_history=3),
        catalog=CatalogConfig(ids="title", tokenizer=str(small_tokenizer_folder()), max_title_tokens=16),
        prompt=PromptConfig(style=style, instruction="Items:", max_tokens=64),
        model=ModelConfig(num_layers=2, width=32, num_heads=2, num_kv_heads=1, head_dim=16, ffn_width=48),
        sft=SftConfig(batch_size=16, steps=300, evals=1, optim=OptimConfig(learning_rate=5e-3)),
        rl=RlConfig(batch_size=8, steps=2, evals=1, group_size=6, optim=OptimConfig(learning_rate=1e-4)),
        eval=EvalConfig(num_beams=10, batch_size=48, ndcg_at=(10,)),
    )


@pytest.fixture(scope="module", params=["list", pytest.param("chat", marks=pytest.mark.slow)])
def finished(request, data, tmp_path_factory) -> tuple[Config, pathlib.Path]:
    folder = tmp_path_factory.mktemp("work") / "run"
    config = titles_config(data, request.param)
    run.run_all(config, folder)
    return config, folder


def test_the_next_item_is_learnt_among_items_of_one_title(finished):
    _, folder = finished
    ranks = {stage: Ranks.load(folder / "ranks" / f"{stage}.npz") for stage in ("popularity", "sft", "rl")}
    assert ranks["popularity"].mean("recall@1") < 0.3
    assert ranks["sft"].mean("recall@1") > 0.7  # titles alone would allow 1/4
    assert ranks["rl"].mean("recall@1") > 0.7
    report = json.loads((folder / "catalog.json").read_text())["report"]
    assert (report["items"], report["repairs"], report["largest_group"]) == (ITEMS, ITEMS, 4)


def test_the_doctor_knows_the_checkpoints_of_both_stages(finished):
    config, folder = finished
    work = open_workspace(config, folder, print)
    assert [checkpoints.checkpoint_is_of_this_run(work, stage) for stage in ("sft", "rl")] == [[], []]


def test_recommend_answers_with_items_and_their_titles(finished, tmp_path):
    config, folder = finished
    walks = {f"u{start}": [f"i{(start + step) % ITEMS}" for step in range(3)] for start in range(ITEMS)}
    histories = tmp_path / "histories.jsonl"
    histories.write_text("".join(json.dumps({"user": user, "history": walk}) + "\n" for user, walk in walks.items()))
    settings = RecommendConfig(input=str(histories), output=str(tmp_path / "out.jsonl"), top_k=2)
    prompt = dataclasses.replace(config.prompt, widths=(24, 40))  # others than in training
    run.MODES["recommend"](dataclasses.replace(config, recommend=settings, prompt=prompt), folder)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    right = [answer["items"][0]["id"] == f"i{(start + 3) % ITEMS}" for start, answer in enumerate(answers)]
    assert sum(right) > 0.7 * ITEMS
    for answer in answers:
        for item in answer["items"]:
            assert item["title"] == NAMES[int(item["id"][1:]) % len(NAMES)]


def test_a_model_that_writes_titles_freely_finds_their_items(finished, capsys):
    """`eval.search=grounding` (BIGRec): with four items to a title, it finds the title nearly always."""
    config, folder = finished
    grounded = dataclasses.replace(
        config, mode="evaluate", eval=dataclasses.replace(config.eval, search="grounding", popularity=0.5)
    )
    before = (folder / "results.json").read_bytes(), {p: p.read_bytes() for p in (folder / "ranks").iterdir()}
    run.run(grounded, folder)
    said = capsys.readouterr()
    assert "eval.search: 'beams' then, 'grounding' now" in said.err
    assert Ranks.load(folder / "ranks" / "sft.npz").mean("recall@10") > 0.9
    work = open_workspace(dataclasses.replace(grounded, mode="doctor"), folder, lambda _: None)
    params = work.frozen.join(checkpoints.load_params(folder / "sft" / "best", work.first_params))
    assert not checkpoints.lists_are_of_the_catalog(work, "sft", params)
    (folder / "results.json").write_bytes(before[0])
    for path, content in before[1].items():
        path.write_bytes(content)


def ids_config(data: pathlib.Path) -> Config:
    """Semantic ids inside the vocabulary of the tokenizer, asked for behind a history of titles."""
    config = titles_config(data, "list")
    return dataclasses.replace(
        config,
        catalog=CatalogConfig(
            tokenizer=config.catalog.tokenizer, embedding="cooccurrence", embedding_width=4, levels=2, codes=4
        ),
        prompt=dataclasses.replace(config.prompt, history="titles", max_tokens=128),
        sft=dataclasses.replace(config.sft, steps=3, title_to_id=0.5, id_to_title=0.5, titles_to_id=0.5),
    )


def test_a_run_aligns_semantic_ids_with_titles(data, tmp_path, capsys):
    config = ids_config(data)
    run.MODES["sft"](config, tmp_path)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl", "sft") if "loss" in line]
    assert len(lines) == 3
    for line in lines:
        assert 0 < line["title_to_id"] + line["id_to_title"] + line["titles_to_id"] < 2 * line["loss"]
    capsys.readouterr()
    assert run.MODES["doctor"](config, tmp_path) == 0
    page = capsys.readouterr().out  # every title stands for four items here
    assert "title tasks ask for the item that they show\n         - items whose prompt of title_to_id asks" in page


def test_alignment_and_histories_of_titles_need_semantic_ids(data, tmp_path):
    config = titles_config(data, "list")
    aligned = dataclasses.replace(config, sft=dataclasses.replace(config.sft, title_to_id=0.5))
    with pytest.raises(ConfigError, match=r"sft\.title_to_id needs semantic ids"):
        run.MODES["sft"](aligned, tmp_path / "a")
    shown = dataclasses.replace(config, prompt=dataclasses.replace(config.prompt, history="titles"))
    with pytest.raises(ConfigError, match=r"prompt\.history='titles' needs semantic ids"):
        run.MODES["prepare"](shown, tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"catalog": CatalogConfig(ids="title")}, "catalog.ids='title'"),
        ({"prompt": PromptConfig(style="chat")}, "prompt.style='chat'"),
        ({"prompt": PromptConfig(instruction="Items:")}, "prompt.instruction='Items:'"),
        ({"prompt": PromptConfig(history="titles")}, "prompt.history='titles'"),
        ({"sft": SftConfig(id_to_title=0.5)}, "sft.id_to_title"),
    ],
)
def test_settings_of_text_without_text_are_refused_before_data_are_read(tmp_path, change, name):
    config = Config(data=DataConfig(path="/nowhere"), **change)
    with pytest.raises(ConfigError, match=f"^{re.escape(name)} needs a tokenizer: set model.pretrained or catalog"):
        run.MODES["prepare"](config, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompt": PromptConfig(style="chat", instruction="Items:", max_tokens=64)},
            r"the end of an item=\d+, this run has 0",
        ),
        ({"catalog": CatalogConfig(ids="title", max_title_tokens=16)}, "needs a tokenizer|catalog.tokenizer"),
        ({"prompt": PromptConfig(instruction="Items:", max_tokens=12)}, "prompt.max_tokens=12 is too small"),
        ({"model": ModelConfig(vocab_size=300)}, "model.vocab_size=300 is too small"),
    ],
)
def test_settings_that_do_not_fit_the_work_directory(data, tmp_path, change, message):
    config = titles_config(data, "list")
    run.MODES["prepare"](config, tmp_path)
    with pytest.raises(ConfigError, match=message):
        run.MODES["prepare"](dataclasses.replace(config, **change), tmp_path)
