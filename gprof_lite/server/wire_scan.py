"""A look at protobuf data before it is unpacked: how many fields there are.

An empty message takes two bytes on the wire and about a hundred in memory. Counting first keeps a body of the allowed
size from becoming gigabytes. Small data is not worth the look.
Source: protobuf's wire format: a tag is field number times 8 plus type; 0 varint, 1 and 5 fixed, 2 length and bytes.
"""

from __future__ import annotations

from typing import Final

from gprof_lite.server.refusal import invalid

MAX_FIELDS: Final = 400_000
_SMALL_BYTES: Final = 512 * 1024
_MAX_VARINT_BYTES: Final = 10


def check_field_count(data: bytes, *, nested: tuple[int, ...] = ()) -> None:
    """Refuse data with too many fields at the top, or inside of the ``nested`` field numbers (one level down).

    Data that is no protobuf passes: the decoder says it better.

    Raises:
        Refusal: 400, there are more than 400,000.
    """
    if len(data) < _SMALL_BYTES:
        return
    n_fields = 0
    spans = [(0, len(data), True)]
    while spans:
        at, end, is_top = spans.pop()
        while at < end:
            n_fields += 1
            if n_fields > MAX_FIELDS:
                raise invalid(f"the message has more than {MAX_FIELDS} fields")
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == 0:
                _, at = _varint(data, at)
            elif kind == 2:
                length, at = _varint(data, at)
                if is_top and tag >> 3 in nested:
                    spans.append((at, min(at + length, end), False))
                at += length
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if at >= len(data):
            return value, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, at
