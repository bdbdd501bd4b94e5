"""Reads files as bytes, unpacks and hashes them."""

import gzip
import hashlib
import pathlib
import zlib

from wpauc_jax.data.errors import DataError


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of a file. Raises DataError if there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def file_digest(path: pathlib.Path) -> str:
    """The sha256 of a file. Raises DataError if there is none."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def unpacked(stored: bytes, label: str) -> bytes:
    """`stored`, decompressed if it is gzip. Raises DataError for a damaged or cut archive."""
    if not stored.startswith(b"\x1f\x8b"):
        return stored
    try:
        return gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{label}: damaged gzip file ({error}); fetch it again") from error
