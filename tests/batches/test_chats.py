"""A chat template that reads the clock: a work directory's prompts stay those of its first day."""

import itertools

import pytest

from tests.text_worlds import CHAT, changed_tokenizer
from wpauc_jax.batches.chats import FILE, keep_chats
from wpauc_jax.batches.prompts import text_format
from wpauc_jax.batches.title_tasks import INSTRUCTIONS
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import ConfigError, PromptConfig
from wpauc_jax.data.errors import DataError

CONFIG = PromptConfig(style="chat", instruction="Items:")
DATED = "{{ strftime_now('%d %B %Y, day %j') }}\n" + CHAT + "{{ strftime_now('%A') }}"


@pytest.fixture
def days(monkeypatch):
    """The days that follow each other, one a call of the function that is given back."""
    import datetime

    import transformers.utils.chat_template_utils as library

    number = itertools.count()

    def next_day():
        today = datetime.datetime(2031, 3, 1 + next(number), 12)

        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return today

        monkeypatch.setattr(library, "datetime", Clock)

    return next_day


def opened(folder, template, config=CONFIG, **options):
    """The run's format, its tokenizer, and what was said."""
    said: list[str] = []
    source = changed_tokenizer(folder.parent / "tokenizer")
    (source / "chat_template.jinja").write_text(template)
    tokenizer = Tokenizer(str(source))
    keep_chats(config, tokenizer, folder, said.append, **options)
    return text_format(config, tokenizer), tokenizer, said


def test_the_prompts_of_a_run_stay_those_of_its_first_day(tmp_path, days):
    days()
    first, tokenizer, said = opened(tmp_path / "run", DATED)
    assert "01 March 2031" in tokenizer.decode(first.head) and "Saturday" in tokenizer.decode(first.tail) and not said
    tasks = {text: tokenizer.chat(text + "\n") for text in INSTRUCTIONS.values()}
    before = (tmp_path / "run" / FILE).read_bytes()
    days()
    again, tokenizer, said = opened(tmp_path / "run", DATED)
    assert again == first
    assert {text: tokenizer.chat(text + "\n") for text in INSTRUCTIONS.values()} == tasks
    assert len(said) == 1 and "gives another prompt now than when this run began" in said[0]
    assert (tmp_path / "run" / FILE).read_bytes() == before
    later, _, _ = opened(tmp_path / "other", DATED, elsewhere=tmp_path / "run")
    assert later == first  # a run that goes on from another's SFT
    fresh, _, _ = opened(tmp_path / "fresh", DATED)
    assert fresh.head != first.head


def test_another_instruction_or_template_has_a_chat_of_its_own(tmp_path, days):
    days()
    first, _, _ = opened(tmp_path / "run", DATED)
    days()
    other, tokenizer, _ = opened(tmp_path / "run", DATED, PromptConfig(style="chat", instruction="Things:"))
    assert "02 March 2031" in tokenizer.decode(other.head) and "Things:" in tokenizer.decode(other.head)
    plain, _, _ = opened(tmp_path / "run", CHAT)
    assert plain.tail != first.tail
    days()
    again, _, _ = opened(tmp_path / "run", DATED)
    assert again == first


def test_a_template_without_a_clock_changes_nothing(tmp_path):
    source = Tokenizer(str(changed_tokenizer(tmp_path / "plain")))
    for _ in range(2):
        form, _, said = opened(tmp_path / "run", CHAT)
        assert form == text_format(CONFIG, source) and not said


def test_lists_keep_no_chat(tmp_path):
    opened(tmp_path / "run", "", PromptConfig())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"chats": 3}', '{"chats": [{"head": ["a"], "tail": []}]}', "[" * 9999])
def test_damaged_chats_are_named(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_text(content)
    with pytest.raises(DataError, match=r"chats\.json is damaged .*; delete it") as caught:
        opened(tmp_path / "run", CHAT)
    assert "\n" not in str(caught.value)


def test_where_nothing_can_be_written_the_run_goes_on(tmp_path):
    (tmp_path / "run").write_text("no folder")
    form, _, said = opened(tmp_path / "run", CHAT)
    assert form.tail and "cannot be written" in said[0]


@pytest.mark.parametrize(
    "template", ["{{ nothing.at.all }}", "{{ raise_exception('no roles') }}", "{% if %}", "{{ 1/0 }}"]
)
def test_a_template_that_fails_is_named(tmp_path, template):
    with pytest.raises(ConfigError, match=r"the chat template of .* fails \(.*prompt\.style='list'") as caught:
        opened(tmp_path / "run", template)
    assert "\n" not in str(caught.value)
