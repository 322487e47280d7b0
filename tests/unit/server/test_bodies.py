"""Bodies within their limits."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.server.bodies import MAX_PROFILE_BYTES, read_body, unpack_profile
from gprof_lite.server.refusal import Refusal


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_gzip_of_several_members_is_unpacked(parts: list[bytes]) -> None:
    data = b"".join(map(gzip.compress, parts))
    assert read_body(io.BytesIO(data), " GZIP ", 10_000) == b"".join(parts)


def test_padding_of_zeros_is_ignored() -> None:
    assert unpack_profile(gzip.compress(b"abc") + bytes(10)) == b"abc"


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [
        pytest.param(b"x" * 1001, "", 413, id="too-long"),
        pytest.param(gzip.compress(bytes(1001)), "gzip", 413, id="too-long-unpacked"),
        pytest.param(gzip.compress(b"abc")[:-9], "gzip", 400, id="cut-off"),
        pytest.param(b"no gzip at all", "gzip", 400, id="no-gzip"),
        pytest.param(gzip.compress(b"a") + b"rubbish", "gzip", 400, id="rubbish-behind"),
        pytest.param(b"x", "br", 415, id="other-encoding"),
    ],
)
def test_refuses(data: bytes, encoding: str, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        read_body(io.BytesIO(data), encoding, 1000)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("size", "status"),
    [
        pytest.param(MAX_PROFILE_BYTES + 1, 400, id="a-big-profile"),
        pytest.param(200 * 2**20, 413, id="a-bomb"),
    ],
)
def test_a_profile_that_is_too_big_is_told_from_a_bomb(size: int, status: int) -> None:
    packer = zlib.compressobj(wbits=31)
    data = b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.compress(bytes(size % 2**20))
    with pytest.raises(Refusal) as refused:
        unpack_profile(data + packer.flush())
    assert refused.value.status == status
