"""Request bodies, and what is packed inside of them, never larger in memory than allowed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Final

from gprof_lite.server.refusal import Refusal, invalid

GZIP_MAGIC: Final = b"\x1f\x8b"
# zlib's window size, plus 16: a gzip header is expected. Source: zlib manual, inflateInit2.
_GZIP_WINDOW: Final = 31
_SLICE_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 1024 * 1024

# One profile, unpacked. Source: Pyroscope's default limit (wire.md), refused there with 400 as well.
MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
# Beyond this much it is no profile that grew too big but a gzip bomb; told apart by counting, nothing is kept.
_BOMB_BYTES: Final = 64 * 1024 * 1024


class _TooLong(Exception):
    """Unpacked data passes the limit. Never leaves this module."""


def read_body(stream: IO[bytes], encoding: str, limit: int) -> bytes:
    """A request's body, unpacked if its Content-Encoding is gzip.

    Raises:
        Refusal: 413, it is larger than ``limit`` as sent or unpacked; 415, unknown encoding; 400, broken gzip.
    """
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_large(limit)
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding != "gzip":
        raise Refusal("unsupported_media_type", f"content encoding {encoding[:40]!r}: only gzip is accepted")
    try:
        return gunzip(data, limit)
    except _TooLong as exc:
        raise _too_large(limit) from exc


def unpack_profile(data: bytes) -> bytes:
    """A pprof file, packed or not, as plain bytes of at most 4 MiB.

    Raises:
        Refusal: 400, it is larger or broken; 413, it is a gzip bomb.
    """
    if not data.startswith(GZIP_MAGIC):
        plain = data
    else:
        try:
            plain = gunzip(data, MAX_PROFILE_BYTES)
        except _TooLong as exc:
            if _is_bomb(data):
                raise _too_large(_BOMB_BYTES) from exc
            raise _big_profile() from exc
    if len(plain) > MAX_PROFILE_BYTES:
        raise _big_profile()
    return plain


def gunzip(data: bytes, limit: int) -> bytes:
    """Unpack all members of a gzip stream.

    Raises:
        _TooLong: more than ``limit`` bytes came out; no more than that and one MiB was ever held.
        Refusal: 400, it is not gzip or is cut off.
    """
    pieces: list[bytes] = []
    size = 0
    for piece in _pieces(data):
        size += len(piece)
        if size > limit:
            raise _TooLong
        pieces.append(piece)
    return b"".join(pieces)


def _is_bomb(data: bytes) -> bool:
    size = 0
    for piece in _pieces(data):
        size += len(piece)
        if size > _BOMB_BYTES:
            return True
    return False


def _pieces(data: bytes) -> Iterator[bytes]:
    """What comes out, in pieces of at most one MiB. Trailing zeros are padding, as for gzip itself."""
    view = memoryview(data)
    while len(view) and bytes(view[:2]) != b"\0\0"[: len(view)]:
        unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
        at = 0
        try:
            while not unpacker.eof and at < len(view):
                # Small slices: zlib copies the input that it has not used yet at every call.
                packed: bytes | memoryview = view[at : at + _SLICE_BYTES]
                at += len(packed)
                while len(packed) and not unpacker.eof:
                    yield unpacker.decompress(packed, _PIECE_BYTES)
                    packed = unpacker.unconsumed_tail
        except zlib.error as exc:
            raise invalid(f"the gzip data is broken: {exc}") from exc
        if not unpacker.eof:
            raise invalid("the gzip data is cut off: unexpected end")
        view = view[at - len(unpacker.unused_data) :]


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"the request is larger than {limit} bytes; send less at once")


def _big_profile() -> Refusal:
    return invalid(f"the profile has more than {MAX_PROFILE_BYTES} bytes uncompressed; split it")
