"""Files of any size, plain, gzip or in a zip archive, as blocks of whole lines."""

import codecs
import contextlib
import dataclasses
import gzip
import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

import numpy as np

from wpauc_jax.data.errors import DataError, shown
from wpauc_jax.data.sources.quotes import whole_records
from wpauc_jax.data.tables import FilesRead

BLOCK = 1 << 24  # bytes; large enough to keep cores busy, small enough that memory is reused, not returned
_PACKED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
LONGEST_LINE = 1 << 26  # bytes; what is longer is no text

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Input:
    """A file, or with `member` a file in a zip archive."""

    path: pathlib.Path
    member: str = ""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.member.rpartition("/")[2] or self.path.name

    @property
    def label(self) -> str:
        """The file in messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes as stored. Raises DataError if there are none to read."""
        try:
            if not self.member:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive, _member(archive, self.member) as member:
                    yield member
        except (OSError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {self.label}: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return archive.open(name)
    except RuntimeError as error:  # encrypted, or of a kind that Python does not unpack
        raise zipfile.BadZipFile(str(error)) from error


class _Hashing:
    """Hashes the bytes that are read from a stream."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.sha256.update(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        size = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(buffer[:size])
        return size


def text_blocks(source: Input, files: FilesRead, separator: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """The number of a block's first line, and the block: whole lines of a file, which may be gzip.

    With a `separator` double quotes hold fields together, so that a line break between them ends no line. A byte order
    mark at the beginning of the file or of a line is left out: files may have been joined. `files` receives the file's
    hash at the end.
    Raises DataError for a damaged file and for a line that does not end.
    """
    with source.open() as stored:
        hashing = _Hashing(stored)
        try:
            yield from _whole_lines(_unpacking(stored, hashing), separator, source.label)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{source.label}: damaged gzip file ({error}); fetch it again") from error
        while hashing.read(BLOCK):  # what may stand behind a gzip stream
            pass
        files.record(source.name, source.path, hashing.sha256.hexdigest())


def _unpacking(stored: BinaryIO, hashing: Any) -> Any:
    """What to read the text from: `hashing`, which reads from `stored`, or what is packed in it."""
    packed = stored.read(2) == b"\x1f\x8b"
    stored.seek(0)
    return gzip.GzipFile(fileobj=hashing) if packed else hashing


def _whole_lines(stream: Any, separator: bytes, label: str) -> Iterator[tuple[int, bytes]]:
    """Blocks that end with a line. One buffer is filled again and again: fresh memory would cost more than reading."""
    buffer, filled, number = bytearray(BLOCK), 0, 1
    begins = True
    while True:
        size = stream.readinto(memoryview(buffer)[filled:])
        filled += size
        if begins and (filled >= len(codecs.BOM_UTF8) or not size):
            begins = False
            if buffer.startswith(codecs.BOM_UTF8):
                filled -= len(codecs.BOM_UTF8)
                buffer[:filled] = buffer[len(codecs.BOM_UTF8) : len(codecs.BOM_UTF8) + filled]
        if not size:
            end = filled
        elif separator:
            end = whole_records(buffer, filled, separator)
        else:
            end = buffer.rfind(b"\n", 0, filled) + 1
        if end:
            block = bytes(memoryview(buffer)[:end])
            yield number, block.replace(b"\n" + codecs.BOM_UTF8, b"\n") if codecs.BOM_UTF8 in block else block
            number += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # bytes.count is slower
            buffer[: filled - end] = buffer[end:filled]
            filled -= end
        if not size:
            return
        if filled == len(buffer):
            if filled >= LONGEST_LINE:
                raise DataError(
                    f"{label}, line {number}: longer than {LONGEST_LINE >> 20} MiB; this is no line of text, or a "
                    "quote in it opens a field and never closes it"
                )
            buffer.extend(bytes(len(buffer)))


def ahead(blocks: Iterable[_T]) -> Iterator[_T]:
    """The blocks, the next one being read while one is in use."""
    iterator = iter(blocks)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, None)
        while (block := future.result()) is not None:
            future = pool.submit(next, iterator, None)
            yield block


def first_lines(source: Input, count: int) -> list[str]:
    """Up to `count` lines of a file from its beginning; as far as they are UTF-8."""
    with source.open() as stored:
        stream = _unpacking(stored, stored)
        lines: list[str] = []
        with contextlib.suppress(EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError):
            lines.extend(stream.readline(LONGEST_LINE).decode("utf-8-sig") for _ in range(count))
    return [line.rstrip("\r\n") for line in lines if line.strip()]


def first_line(source: Input) -> str:
    """The first line of a file, as far as it is one. Raises DataError for a file that is empty or not UTF-8 there."""
    with source.open() as stored:
        stream = _unpacking(stored, stored)
        try:
            line = stream.readline(LONGEST_LINE)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{source.label}: damaged gzip file ({error}); fetch it again") from error
    if not line:
        raise DataError(f"{source.label}: the file is empty")
    packed = next((name for sign, name in _PACKED.items() if line.startswith(sign)), None)
    if packed:
        raise DataError(f"{source.label}: the file is packed by {packed}; unpack it, or pack it with gzip")
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{source.label}: the file is UTF-16, not UTF-8 text; save it as UTF-8")
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{source.label}, line 1: not UTF-8 text: {shown(line)}") from error
