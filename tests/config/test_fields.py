"""Whatever is put into a setting: a usable value, or one line that names it."""

import dataclasses
import functools
import math
import operator
import pathlib
import time
import types
import typing

import ml_collections
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RecommendConfig,
    RlConfig,
    SftConfig,
    SyntheticConfig,
    from_config_dict,
    to_config_dict,
)
from wpauc_jax.config.fields import Checked, a_path, at_least, choice


def every_field(kind=Config, prefix=""):
    """(dotted name, the dataclass that holds it, its field, its type) of every setting."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from every_field(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, kind, field, hints[field.name]


FIELDS = {name: rest for name, *rest in every_field()}

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63, 10**400, math.nan, math.inf, -math.inf, 5e-324, 1.5]),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.text(max_size=20),
    st.sampled_from(["~", "~/x", "~nobody-of-this-name/x", "a\0b", "\ud83d", "x" * 9999, "line\nline"]),
    st.none(),
    st.lists(NUMBERS, max_size=4),
    st.lists(NUMBERS, max_size=4).map(tuple),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.binary(max_size=5),
    st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2),
    st.sampled_from([np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3), object(), Config, complex(1, 1)]),
    st.builds(dict).map(ml_collections.ConfigDict),
)


def one_line(make) -> object:
    """What `make()` returns; a ConfigError is checked and stands for itself."""
    began = time.perf_counter()
    try:
        return make()
    except ConfigError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 1000
        return error
    finally:
        assert time.perf_counter() - began < 1


@settings(max_examples=1000)
@given(st.sampled_from(sorted(FIELDS)), ANYTHING)
@example("eval.recall_at", (0, 1))
@example("eval.recall_at", ())
@example("recommend.top_k", int(2e9))
@example("rl.anchor", 0)
def test_no_value_of_any_field_leads_to_anything_but_settings_or_one_line(name, value):
    kind, field, hint = FIELDS[name]
    found = one_line(lambda: kind(**{field.name: value}))
    if isinstance(found, ConfigError):
        assert field.name in str(found)
    else:
        kept = getattr(found, field.name)
        plain = typing.get_args(hint) if isinstance(hint, types.UnionType) else [typing.get_origin(hint) or hint]
        assert kept is None or not all(isinstance(one, type) for one in plain) or type(kept) in plain
        assert not isinstance(kept, float) or math.isfinite(kept)


@settings(max_examples=250)
@given(st.sampled_from(sorted(FIELDS)), ANYTHING)
def test_nor_does_a_config_dict_that_holds_it(name, value):
    config = to_config_dict(Config()).unlock()
    *sections, last = name.split(".")
    section = functools.reduce(operator.getitem, sections, config)
    try:
        with section.ignore_type():
            section[last] = value
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return  # ml_collections refused it: the command line says so in one line
    found = one_line(lambda: from_config_dict(config, Config))
    assert isinstance(found, Config) or last in str(found) or sections[-1] in str(found)


@pytest.mark.parametrize("value", [None, 3, "rl", [], {"seed": 1}, Config()])
def test_a_configuration_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="get_config returns to_config_dict"):
        from_config_dict(value, Config)
    broken = ml_collections.ConfigDict({"rl": 5})
    with pytest.raises(ConfigError, match="rl=5 holds no settings"):
        from_config_dict(broken, Config)


def test_every_number_has_both_bounds_or_is_a_plain_count():
    """A float without bounds would take any size; a whole number has the largest int32 at least."""
    open_floats = [
        name
        for name, (_, field, hint) in FIELDS.items()
        if hint is float and ("most" not in field.metadata and "below" not in field.metadata)
    ]
    assert not open_floats
    for name, (kind, field, hint) in FIELDS.items():
        if hint is int:
            with pytest.raises(ConfigError, match=f"{field.name}=.* must be at most"):
                kind(**{field.name: 2**40})
            with pytest.raises(ConfigError, match=f"{field.name}=-1 must be at least"):
                kind(**{field.name: -1})
        if hint is float:
            for bad in (math.nan, math.inf, -math.inf):
                with pytest.raises(ConfigError, match=f"{field.name}=.* must be a finite number"):
                    kind(**{field.name: bad})
        assert hint is not bool or kind(**{field.name: True}), name


def test_every_file_or_folder_may_begin_with_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ("path", "root", "dir", "cache", "input", "output", "from", "tokenizer", "pretrained", "embedding")
    for name, (kind, field, hint) in FIELDS.items():
        if hint is str and any(word in field.name.split("_") for word in words):
            assert field.metadata.get("path"), f"{name} looks like a file or folder: a_path() expands its ~"
            beside = {"reward": "collaborative", "weighting": "none"} if name == "rl.reward_from" else {}
            assert getattr(kind(**beside, **{field.name: "~/here"}), field.name) == str(tmp_path / "here")
            with pytest.raises(ConfigError, match=f"{field.name}='~no-such-user/x' begins with a home directory"):
                kind(**{field.name: "~no-such-user/x"})
    assert DataConfig(root="~", path="toys").location == str(tmp_path / "toys")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(learning_rate=0), "optim.learning_rate=0.0 must be above 0"),
        (lambda: OptimConfig(b1=2), "optim.b1=2.0 must be below 1"),
        (lambda: OptimConfig(b2=1.0), "optim.b2=1.0 must be below 1"),
        (lambda: RlConfig(clip_low=1.5), "rl.clip_low=1.5 must be at most 1"),
        (lambda: RlConfig(temperature=0), "rl.temperature=0.0 must be above 0"),
        (lambda: RlConfig(group_size=True), "rl.group_size=True must be a whole number"),
        (lambda: RlConfig(group_size=16.0), "rl.group_size=16.0 must be a whole number"),
        (lambda: RlConfig(group_size="16"), "rl.group_size='16' must be a whole number"),
        (lambda: RlConfig(anchor=15), "rl.anchor=15 is beyond the last negative: rl.group_size=16 has ranks 0 to 14"),
        (lambda: RlConfig(batch_size=10_000, group_size=10_000), "rl.batch_size=10000 x rl.group_size=10000"),
        (lambda: SftConfig(epochs=math.nan), "sft.epochs=nan must be a finite number"),
        (lambda: SftConfig(loss="catalogue"), "sft.loss='catalogue' is now spelled 'catalog'"),
        (lambda: EvalConfig(recall_at=(1, 5.5)), r"eval.recall_at=5.5 must be a whole number"),
        (lambda: EvalConfig(recall_at=(5, 1)), r"eval.recall_at=\(5, 1\) must be in ascending order"),
        (lambda: EvalConfig(ndcg_at=()), r"eval.ndcg_at=\(\) must hold at least one"),
        (lambda: EvalConfig(ndcg_at=5), r"eval.ndcg_at=5 must be a tuple"),
        (lambda: EvalConfig(num_beams=9000, batch_size=9000), "eval.batch_size=9000 x eval.num_beams=9000"),
        (lambda: RecommendConfig(input="a.jsonl", output="./a.jsonl"), "recommend.output='./a.jsonl' is recommend.inp"),
        (lambda: ModelConfig(num_heads=4, num_kv_heads=3), "model.num_heads=4 must be a multiple of model.num_kv_hea"),
        (lambda: ModelConfig(head_dim=7), "model.head_dim=7 must be even"),
        (lambda: ModelConfig(num_layers=1000, width=200_000, ffn_width=10**6), "more than 1,000,000,000,000; lower"),
        (lambda: DataConfig(start="2020-01-02", end="2020-01-02"), "data.start='2020-01-02' is not before data.end="),
        (lambda: DataConfig(start=20200102), "data.start=20200102 must be text"),
        (
            lambda: SyntheticConfig(num_users=10**8, longest=10**6),
            "data.synthetic.num_users=100000000 x data.synthetic",
        ),
        (lambda: CatalogConfig(seed=2**32), "catalog.seed=4294967296 must be at most 4,294,967,295"),
        (lambda: Config(seed=-1), "seed=-1 must be at least 0"),
        (lambda: Config(mode="recommend"), "recommend.input is empty"),
        (lambda: Config(catalog=CatalogConfig(ids="file")), "catalog.path is empty; catalog.ids='file' needs"),
        (lambda: Config(sft=RlConfig()), r"sft=RlConfig\(.* must be a SftConfig"),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_setting_that_sft_and_rl_share_is_named_in_full():
    config = to_config_dict(Config()).unlock()
    config.sft.optim.b1 = 2.0
    with pytest.raises(ConfigError, match=r"^sft\.optim\.b1=2\.0 must be below 1$"):
        from_config_dict(config, Config)
    config.sft.optim.b1, config.rl.faults.window = 0.9, 1
    with pytest.raises(ConfigError, match=r"^rl\.faults\.window=1 must be at least 4$"):
        from_config_dict(config, Config)


def test_values_get_the_fields_plain_type():
    assert type(SftConfig(epochs=3).epochs) is float
    assert type(SftConfig(steps=np.int64(3)).steps) is int
    assert EvalConfig(recall_at=[1, 2]).recall_at == (1, 2)
    assert type(to_config_dict(Config(sft=SftConfig(epochs=3))).sft.epochs) is float  # so that 1.5 may be given for it


def test_fields_of_a_users_own_are_checked_alike():
    @dataclasses.dataclass(frozen=True)
    class Own(Checked, section="own."):
        size: int = at_least(3, 1, 9)
        names: tuple[str, ...] = ()
        where: str = a_path()
        kind: str = choice("a", "b")

    assert Own(names=["x"]) == Own(names=("x",))
    for wrong in ({"size": 10}, {"names": (1,)}, {"where": pathlib.Path("x")}, {"kind": ["a"]}):
        with pytest.raises(ConfigError, match=f"own.{next(iter(wrong))}="):
            Own(**wrong)
