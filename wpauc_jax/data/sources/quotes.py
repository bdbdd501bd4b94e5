"""Quotes in delimited text, read strictly: where records begin and end, and where a quote is wrong.

A field that begins with a double quote ends at the next single one. Two quotes in a row stand for one inside the field.
Behind the closing quote comes the separator or the end of the line, and nothing else. If a field does not begin with a
quote, its quotes are text. NumPy proves most blocks sound at once. The others are gone through record by record.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

_QUOTE = ord('"')
_DIGIT = re.compile(b"[0-9]")
_TIME = re.compile(rb'[ "]*[0-9][0-9 TtZz:./+-]*[ "]*')  # a number or a date, as far as a glance tells
BEHIND = "text behind a closing quote"
UNCLOSED = "a quoted field does not end"


@dataclasses.dataclass(frozen=True)
class Record:
    """Bytes `start` to `end` of a block, its line's end included. `fault` says what is wrong with its quotes."""

    line: int
    start: int
    end: int
    fault: str = ""
    at: int = 0  # the byte at fault
    is_line: bool = True  # whether a faulty record is one line for sure, so that it can be left out


def quotes_are_sound(block: bytes | memoryview, separator: bytes) -> bool:
    """Whether all quotes of a block of whole records open, close or double each other as they should."""
    text = np.frombuffer(block, np.uint8)
    places = np.flatnonzero(text == _QUOTE)
    if len(places) % 2:
        return False
    opening, closing = places[::2], places[1::2]
    before = text[np.maximum(opening - 1, 0)]
    starts = (opening == 0) | (before == ord("\n")) | (before == ord(separator)) | (before == _QUOTE)
    end = len(text) - 1
    after, later = text[np.minimum(closing + 1, end)], text[np.minimum(closing + 2, end)]
    ends = (closing == end) | (after == ord("\n")) | (after == ord(separator)) | (after == _QUOTE)
    ends |= (after == ord("\r")) & (later == ord("\n"))
    return bool(starts.all() and ends.all())


def records_of_lines(block: bytes) -> list[tuple[int, int]]:
    """First and last byte of each record of a sound block that goes over several lines; the last one excluded."""
    text = np.frombuffer(block, np.uint8)
    places = np.flatnonzero(text == _QUOTE)
    lines = np.flatnonzero(text == ord("\n"))
    is_inside = np.searchsorted(places, lines) % 2 == 1
    ends = np.append(lines[~is_inside] + 1, len(block))
    which = np.unique(np.searchsorted(ends, lines[is_inside], side="right"))
    starts = np.append(0, ends)[which]
    return list(zip(starts.tolist(), ends[which].tolist(), strict=True))


def whole_records(buffer: bytearray, filled: int, separator: bytes) -> int:
    """Behind the last whole record of the first `filled` bytes, after which more follow; 0 if there is none."""
    end = buffer.rfind(b"\n", 0, filled) + 1
    if not end or buffer.find(b'"', 0, end) < 0:
        return end
    sound = end
    is_inside = buffer.count(b'"', 0, sound) % 2 == 1
    while is_inside and sound:  # the last record goes on
        before = buffer.rfind(b"\n", 0, sound - 1) + 1
        is_inside = buffer.count(b'"', before, sound) % 2 == 0
        sound = before
    with memoryview(buffer)[:sound] as view:
        if quotes_are_sound(view, separator):
            return sound
    last = 0
    for record in records(bytes(buffer[:end]), separator, 1):
        if record.fault and not record.is_line:
            return last or (0 if record.fault == UNCLOSED else end)  # what stands before it comes first
        last = record.end
    return last


def records(block: bytes, separator: bytes, line: int) -> Iterator[Record]:
    """The records of a block, the first of which stands in `line`. Behind one whose end is doubtful none."""
    start = 0
    while start < len(block):
        end = _line_end(block, start)
        if block.find(b'"', start, end) < 0:
            yield Record(line, start, end)
            line += 1
        else:
            record = _quoted_record(block, separator, line, start)
            yield record
            if record.fault and not record.is_line:
                return
            end = record.end
            line += max(block.count(b"\n", start, end), 1)
        start = end


def fields_of(record: bytes, separator: bytes) -> list[bytes]:
    """The fields of a record without fault, quotes removed."""
    content = record.removesuffix(b"\n").removesuffix(b"\r")
    if b'"' not in content:
        return content.split(separator)
    fields, place = [], 0
    while True:
        if content[place : place + 1] == b'"':
            close = _closing(content, place)
            fields.append(content[place + 1 : close].replace(b'""', b'"'))
            end = close + 1
        else:
            end = content.find(separator, place)
            end = len(content) if end < 0 else end
            fields.append(content[place:end])
        if end >= len(content):
            return fields
        place = end + 1


def could_be_rows(record: bytes, separator: bytes, width: int, ids: Sequence[int], time: int | None = None) -> bool:
    """Whether a record of several lines may as well be a row a line, whose quotes are text.

    A line but the first may be a row if it has up to `width` fields and those numbered `ids` look like ids: they have a
    digit, or no blank, if those of the first line are so. Trailing fields may be missing where rows have two ids. Where
    rows have a time, one such line with a time is enough; otherwise every line must be such a one. A quote that was
    never closed looks so, with a later one that was never opened; a text of several lines hardly ever does.
    """
    first, *others = (line.removesuffix(b"\r").split(separator) for line in record.split(b"\n") if line.strip())
    least = max([*ids, *([] if time is None else [time])]) + 1 if len(ids) > 1 else width
    if len(first) < least:
        return False

    def is_id(text: bytes, place: int) -> bool:
        has_blank, has_digit = b" " in first[place], _DIGIT.search(first[place])
        return bool(text.strip()) and (has_blank or b" " not in text) and (not has_digit or bool(_DIGIT.search(text)))

    def is_row(row: list[bytes]) -> bool:
        if not least <= len(row) <= width or not all(is_id(row[place], place) for place in ids):
            return False
        return time is None or bool(_TIME.fullmatch(row[time]))

    return all(map(is_row, others)) if time is None else any(map(is_row, others))


def _line_end(block: bytes, start: int) -> int:
    end = block.find(b"\n", start)
    return len(block) if end < 0 else end + 1


def _closing(block: bytes, opening: int) -> int:
    """The quote that closes a field; -1 if none does."""
    close = block.find(b'"', opening + 1)
    while close >= 0 and block[close + 1 : close + 2] == b'"':
        close = block.find(b'"', close + 2)
    return close


def _quoted_record(block: bytes, separator: bytes, line: int, start: int) -> Record:
    """The record that begins at `start`, of which at least the first line holds a quote."""
    place = start
    while True:
        if block[place : place + 1] == b'"':
            close = _closing(block, place)
            if close < 0:
                return Record(line, start, len(block), UNCLOSED, place, is_line=False)
            after = block[close + 1 : close + 3]
            if after[:1] == b"\n" or after in (b"", b"\r", b"\r\n"):
                return Record(line, start, _line_end(block, close))
            if after[:1] != separator:
                return _faulty(block, line, start, close)
            place = close + 2
        else:
            end = _line_end(block, place)
            following = block.find(separator, place, end)
            if following < 0:
                return Record(line, start, end)
            place = following + 1


def _faulty(block: bytes, line: int, start: int, close: int) -> Record:
    """A record with text behind a closing quote. It is one line for sure if the quotes in its line pair up.

    Where a backslash stands before a quote, whoever wrote the file meant that quote as text.
    """
    end = _line_end(block, start)
    pairs = (block.count(b'"', start, end) - block.count(b'\\"', start, end)) % 2 == 0
    return Record(line, start, end, BEHIND, close, is_line=close < end and pairs)
