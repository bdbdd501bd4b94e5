"""Quotes in delimited text: what other programs write is read as it is meant, and no damage makes rows fewer unseen."""

import csv
import io

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, read_all, write
from wpauc_jax.data.sources import DataError, blocks
from wpauc_jax.data.sources.quotes import fields_of, quotes_are_sound, records, whole_records

LOG = "user_id,item_id,timestamp\n"
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

titles = st.text(st.sampled_from(list('ab7" ,;\n\\é')), min_size=1, max_size=9).filter(lambda text: text.strip())


def table(rows, **form) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", **form)
    writer.writerow(["item_id", "title", "colour"])
    writer.writerows(rows)
    return out.getvalue()


def items_of(folder, text, bad_rows="error"):
    """The items of a table, and how many rows were left out."""
    log = write(folder / "log.csv", LOG + "u,i0,1500000000\n")
    (folder / "items.csv").write_text(text, encoding="utf-8", newline="")
    _, items, raw = read_all("tabular", log, bad_rows, items_path="items.csv")
    return items.select("item", "title").rows(), raw.rejects.counts.total()


@quick
@given(st.lists(titles, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(60, 300))
def test_what_a_sound_writer_wrote_is_read_as_it_was(tmp_path_factory, names, end, everything, size):
    assume(not any("\n" in name and "," in name for name in names))  # such a field may be taken for rows; see below
    rows = [(f"i{n}", name, "red") for n, name in enumerate(names)]
    form = {"quoting": csv.QUOTE_ALL} if everything else {}
    text = table(rows, **form).replace("\n", end) if not any("\n" in name for name in names) else table(rows, **form)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(blocks, "BLOCK", size)
        found, rejected = items_of(tmp_path_factory.mktemp("sound"), text)
    assert found == [(item, name) for item, name, _ in rows] and not rejected


@quick
@given(
    st.lists(titles.filter(lambda text: "\n" not in text), min_size=1, max_size=12), st.sampled_from(["error", "skip"])
)
def test_backslash_escapes_lose_no_row_unseen(tmp_path_factory, names, policy):
    rows = [(f"i{n}", f'{name}" disc', "red") for n, name in enumerate(names)]
    text = table(rows, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
    with pytest.raises(DataError, match=r"items\.csv, lines? \d+"):
        items_of(tmp_path_factory.mktemp("slash"), text)
    try:
        found, rejected = items_of(tmp_path_factory.mktemp("slash"), text, policy)
    except DataError as error:
        assert "items.csv, line" in str(error)
    else:
        assert len(found) + rejected == len(rows)


@quick
@given(st.integers(3, 12), st.data())
def test_quotes_left_open_lose_no_row_unseen(tmp_path_factory, count, data):
    """A quote more before some fields, behind some, or both: an error with the line, or every row is there."""
    lines = [f"i{n},name {n},red" for n in range(count)]
    for _ in range(data.draw(st.integers(1, 4))):
        row, place = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(["before", "behind", "within"]))
        item, name, colour = lines[row].split(",")
        name = {"before": f'"{name}', "behind": f'{name}"', "within": f'{name[:2]}"{name[2:]}'}[place]
        lines[row] = f"{item},{name},{colour}"
    text = "item_id,title,colour\n" + "".join(line + "\n" for line in lines)
    folder = tmp_path_factory.mktemp("open")
    for policy in ("error", "skip"):
        try:
            found, rejected = items_of(folder, text, policy)
        except DataError as error:
            assert "items.csv, line" in str(error)
        else:
            assert len(found) + rejected == count
            assert policy == "skip" or [item for item, _ in found] == [f"i{n}" for n in range(count)]


@quick
@given(st.lists(st.sampled_from(list('a",\n\r\\')), max_size=40).map("".join), st.integers(4, 30))
def test_records_end_where_a_block_does_whatever_stands_in_it(text, size):
    """Cut into blocks or not, the records are the same ones up to the first that is at fault."""
    whole = text.encode()
    expected = [(r.fault, whole[r.start : r.end]) for r in records(whole, b",", 1)]
    found, buffer = [], bytearray()
    for start in range(0, len(whole), size):
        buffer += whole[start : start + size]
        end = whole_records(buffer, len(buffer), b",")
        found += [(r.fault, bytes(buffer[r.start : r.end])) for r in records(bytes(buffer[:end]), b",", 1)]
        if found and any(fault for fault, _ in found):
            break
        del buffer[:end]
    else:
        found += [(r.fault, bytes(buffer[r.start : r.end])) for r in records(bytes(buffer), b",", 1)]
    sound = next((n for n, (fault, _) in enumerate(expected) if fault), len(expected))
    assert found[:sound] == expected[:sound]


@quick
@given(st.lists(st.sampled_from(list('a",\n')), max_size=30).map("".join))
def test_numpy_calls_sound_only_what_the_strict_parser_does(text):
    block = text.encode()
    if not quotes_are_sound(block, b","):
        return
    found = list(records(block, b",", 1))
    assert not any(record.fault for record in found)
    parsed = list(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    assert [[f.decode() for f in fields_of(block[r.start : r.end], b",")] for r in found] == [
        row or [""] for row in parsed
    ]


FAULTS = {
    'i1,"5\\" disc",red\n': "line 3: text behind a closing quote: 'i1,\"5",
    'i1,"Blue" Pump,red\n': "line 3: text behind a closing quote",
    'i1,"Blue" ,red\n': "line 3: text behind a closing quote",
    'i1,"Blue\nPump" x,red\n': "line 3: text behind a closing quote: .* where the row ends cannot be told",
    'i1,"Blue Pump,red\n': "line 3: a quoted field does not end",
    'i1,"Blue, red,red\ni2,Pump",red\n': "lines 3 to 4: one row whose quoted field has line breaks",
    'i1,"Blue,red\ni2,Pump",red\n': "lines 3 to 4: one row whose quoted field has line breaks, or a row a line",
}


@pytest.mark.parametrize("bad", FAULTS)
def test_a_fault_names_its_line_and_where_it_is(tmp_path, bad):
    long = "x" * 500
    text = f"item_id,title,colour\ni0,A,{long}\n{bad}"
    with pytest.raises(DataError, match=rf"items\.csv, {FAULTS[bad]}"):
        items_of(tmp_path, text)


def test_a_line_at_fault_is_left_out_where_it_is_one_line_for_sure(tmp_path):
    text = 'item_id,title,colour\ni0,A,red\ni1,"5\\" disc",red\ni2,"a ""b""",red\ni3,"x" y,red\ni4,7" vinyl,red\n'
    assert items_of(tmp_path, text, "skip") == ([("i0", "A"), ("i2", 'a "b"'), ("i4", '7" vinyl')], 2)
    for doubtful in ('i5,"x\ny" z,red\n', 'i5,"x\n', 'i5,"a" b "c,red\n'):
        with pytest.raises(DataError, match=r"items\.csv, line 7: .*where the row ends cannot be told"):
            items_of(tmp_path, text + doubtful, "skip")


def test_a_text_of_several_lines_is_one_field(tmp_path):
    text = 'item_id,title,colour\ni1,"Dear all,\nyes, it is,\n\nRegards,Ann,me",red\ni2,B,red\n'
    assert items_of(tmp_path, text)[0] == [("i1", "Dear all,\nyes, it is,\n\nRegards,Ann,me"), ("i2", "B")]


def test_interactions_are_never_swallowed(tmp_path):
    rows = [f"{user},i{n},15000000{user_number}{n}" for user_number, user in enumerate(['"al', "bo"]) for n in range(4)]
    path = write(tmp_path / "x.csv", LOG + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"x\.csv, line 2: text behind a closing quote"):
        read_all("tabular", path)
    write(path, LOG + '"a\nb",i1,1500000000\n')
    with pytest.raises(DataError, match=r"x\.csv, line 2: 'user_id' has a line break"):
        read_all("tabular", path)
    assert len(read_all("tabular", path, "skip")[0]) == 0
    write(path, LOG + '"",i1,1500000000\n')
    with pytest.raises(DataError, match=r"x\.csv, line 2: no value for 'user_id'"):
        read_all("tabular", path)


def test_a_quote_in_files_without_quoting_is_text(tmp_path):
    write(tmp_path / "a.inter", atomic(("user_id:token", "item_id:token"), ('"u', "1"), ('"u', '2"')))
    write(tmp_path / "a.item", atomic(("item_id:token", "title:token_seq"), ("1", '"Weird Al'), ('2"', '12" x "a"')))
    interactions, items, _ = read_all("recbole", tmp_path)
    assert interactions.select("user", "item").rows() == [('"u', "1"), ('"u', '2"')]
    assert items["title"].to_list() == ['"Weird Al', '12" x "a"']
    folder = tmp_path / "ml"
    write(folder / "ratings.dat", '1::1::5::1500000000\n"1::2::4::1500000001\n')
    write(folder / "movies.dat", '1::"Weird Al (1990)::Drama\n2::Plain (1991)::Drama\n')
    interactions, items, _ = read_all("auto", folder)
    assert interactions["user"].to_list() == ["1", '"1']
    assert items["title"].to_list() == ['"Weird Al (1990)', "Plain (1991)"]


# A quote that opens in one row and another that closes in a later one: ids with blanks, and rows without their end.
OPEN = {
    "ids with blanks": 'title,user_id,item_id,timestamp\n"A,u 1,i 1,1500000000\nB,u 2,i 2,1500000001\nC",u 3,i 3,1\n',
    "no title between": f'{LOG[:-1]},title\nu1,i1,1500000000,"A\nu1,i2,1500000001\nu1,i3,1500000002,C"\n',
    "a comma too many": f'{LOG[:-1]},title\nu1,i1,1500000000,"A\nu1,i2,1500000001,B\nu1,i3,1500000002,C, D"\n',
}


@pytest.mark.parametrize("kind", OPEN)
def test_a_quote_left_open_in_a_log_swallows_no_interaction(tmp_path, kind):
    with pytest.raises(
        DataError, match=r"log\.csv, lines 2 to 4: one row whose quoted field has line breaks, or a row"
    ):
        read_all("tabular", write(tmp_path / "log.csv", OPEN[kind]))


def test_a_title_of_several_lines_is_read(tmp_path):
    title = "a, b, c\nd, e, f, g\nh,i,j,k"
    log = write(tmp_path / "log.csv", f'{LOG[:-1]},title\nu1,i1,1500000000,"{title}"\nu1,i2,1500000001,B\n')
    found, items, _ = read_all("tabular", log)
    assert len(found) == 2 and items["title"].to_list() == [title, "B"]
