"""A rule in 24 bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.unwind import rule
from gprof_lite.unwind.rule import Rule, decode


@pytest.mark.parametrize(
    ("encoded", "bits", "fields"),
    [
        pytest.param(rule.encode_base(rule.RSP, 8, None), 0x000008, Rule(rule.RSP, 8), id="at a function's entry"),
        pytest.param(rule.encode_base(rule.RSP, 16, -16), 0xFE0010, Rule(rule.RSP, 16, -16), id="rbp pushed"),
        pytest.param(rule.encode_base(rule.RBP, 16, -16), 0xFE0011, Rule(rule.RBP, 16, -16), id="frame pointer"),
        pytest.param(rule.encode_base(rule.RSP, 65528, 1016), 0x7FFFF8, Rule(rule.RSP, 65528, 1016), id="largest"),
        pytest.param(rule.encode_base(rule.RSP, 0, -1024), 0x800000, Rule(rule.RSP, 0, -1024), id="smallest"),
        pytest.param(rule.encode_deref(-8), 0x00FFFA, Rule(rule.DEREF_RBP, -8), id="aligned stack"),
        pytest.param(rule.encode_deref(32760), 0x007FFA, Rule(rule.DEREF_RBP, 32760), id="aligned stack, largest"),
        pytest.param(rule.encode_plt(11), 0x00005B, Rule(rule.PLT, 11), id="PLT"),
        pytest.param(rule.encode_special(rule.WHY_EXPRESSION), 0x00001C, Rule(rule.SPECIAL, 3), id="special"),
        pytest.param(rule.END, 0x000005, Rule(rule.END), id="end"),
        pytest.param(rule.NONE, 0x000006, Rule(rule.NONE), id="none"),
        pytest.param(rule.SIGNAL, 0x000007, Rule(rule.SIGNAL), id="signal"),
    ],
)
def test_the_bits_are_these(encoded: int, bits: int, fields: Rule) -> None:
    assert encoded == bits
    assert decode(bits) == fields


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        pytest.param(rule.encode_base(rule.RSP, 65536, None), rule.WHY_OFFSET, id="CFA too far"),
        pytest.param(rule.encode_base(rule.RSP, -8, None), rule.WHY_OFFSET, id="CFA below"),
        pytest.param(rule.encode_base(rule.RSP, 12, None), rule.WHY_OFFSET, id="CFA not on a word"),
        pytest.param(rule.encode_base(rule.RBP, 16, 1024), rule.WHY_FRAME_POINTER, id="rbp too far above"),
        pytest.param(rule.encode_base(rule.RBP, 16, -1032), rule.WHY_FRAME_POINTER, id="rbp too far below"),
        pytest.param(rule.encode_base(rule.RBP, 16, -12), rule.WHY_FRAME_POINTER, id="rbp not on a word"),
        pytest.param(rule.encode_base(rule.RBP, 16, 0), rule.WHY_FRAME_POINTER, id="rbp at the CFA"),
        pytest.param(rule.encode_deref(32768), rule.WHY_OFFSET, id="aligned stack, too far"),
        pytest.param(rule.encode_deref(-32776), rule.WHY_OFFSET, id="aligned stack, too far below"),
    ],
)
def test_what_does_not_fit_is_special_and_says_why(encoded: int, why: int) -> None:
    assert decode(encoded) == Rule(rule.SPECIAL, why)


@given(st.sampled_from((rule.RSP, rule.RBP)), st.integers(0, 8191), st.integers(-128, 127))
def test_what_fits_comes_back(kind: int, offset: int, saved: int) -> None:
    assert decode(rule.encode_base(kind, offset * 8, saved * 8 or None)) == Rule(kind, offset * 8, saved * 8)


@given(st.integers(0, rule.MAX_RULE))
def test_any_bits_are_some_rule(bits: int) -> None:
    assert str(decode(bits)).startswith(rule.KIND_NAMES[bits & 7])
