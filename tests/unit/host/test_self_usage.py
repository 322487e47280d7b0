from __future__ import annotations

import os

from gprof_lite.host.self_usage import read_self_usage


def test_it_sees_a_descriptor_more() -> None:
    before = read_self_usage()
    reader, writer = os.pipe()
    try:
        during = read_self_usage()
    finally:
        os.close(reader)
        os.close(writer)

    assert during.n_descriptors == before.n_descriptors + 2
    assert during.rss_bytes > 1 << 20
    assert during.cpu_s >= before.cpu_s
    assert during.n_threads >= 1
