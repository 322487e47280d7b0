"""Names of Rust functions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.symbols.demangle import demangle
from gprof_lite.symbols.rust_name import demangle_rust


# The examples are those of RFC 2603 and of a program built with rustc 1.95; checked with c++filt of binutils 2.40.
@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        pytest.param("_RNvC6_123foo3bar", "123foo::bar", id="identifier that starts with a digit"),
        pytest.param("_RNvCs1234_7mycrate3foo", "mycrate::foo", id="hash of the crate"),
        pytest.param("_RNCNvCs1234_7mycrate3foo0B3_", "mycrate::foo::{closure#0}", id="instance"),
        pytest.param("_RINvNtC3std3mem8align_ofINtC3foo3BarhEE", "std::mem::align_of::<foo::Bar<u8>>", id="generic"),
        pytest.param("_RINvC1a1fKja_EB2_", "a::f::<10>", id="constant"),
        pytest.param("_RINvC1a1fKb1_Kc41_E", "a::f::<true, 'A'>", id="bool and char"),
        pytest.param("_RINvC1a1fRL0_eQjPmTmhEAh3_SeE", None, id="constant without its type"),
        pytest.param("_RINvC1a1fRL0_eQjPmE", "a::f::<&str, &mut usize, *const u32>", id="references"),
        pytest.param("_RINvC1a1fTmhEAhj3_SeE", "a::f::<(u32, u8), [u8; 3], [str]>", id="tuple and arrays"),
        pytest.param("_RINvC1a1fFUKChEmE", 'a::f::<unsafe extern "C" fn(u8) -> u32>', id="function"),
        pytest.param("_RINvC1a1fDNtC1b1TEL_E", "a::f::<dyn b::T>", id="dyn"),
        pytest.param("_RNvMNtCsicMJf8kuAPe_3bag5leakyINtB2_3BagyE3putB4_", "<bag::leaky::Bag<u64>>::put", id="method"),
        pytest.param("_RNvXNtC1a1bNtB2_1SNtC1c1T1f", "<a::b::S as c::T>::f", id="trait method"),
        pytest.param("_RNCNvC1a1fs_0", "a::f::{closure#1}", id="closure"),
        pytest.param("_RNvC1au8gdel_5qa", "a::gödel", id="punycode"),
        pytest.param("_ZN3bag5leaky12Bag$LT$T$GT$3put17h8cfb0b3a2b97db44E", "bag::leaky::Bag<T>::put", id="legacy"),
        pytest.param("_ZN1a10b$u20$in$d17h8cfb0b3a2b97db44E", "a::b in$d", id="legacy escape"),
        pytest.param("_ZN4deep3BoxIiE3putEi", None, id="C++"),
        pytest.param("malloc", None, id="C"),
    ],
)  # fmt: skip
def test_a_symbol_is_written_as_its_source_has_it(symbol: str, name: str | None) -> None:
    assert demangle_rust(symbol) == name


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        pytest.param("_ZN4deep3BoxIiE3putEi", "deep::Box<int>::put(int)", id="C++"),
        pytest.param("_ZN4deep3BoxIiE3putEi.cold", "deep::Box<int>::put(int) [clone .cold]", id="part of a function"),
        pytest.param("_Zgarbage", "_Zgarbage", id="garbage"),
        pytest.param("_Rgarbage", "_Rgarbage", id="Rust garbage"),
        pytest.param("_Z" + "P" * 40_000, "_Z" + "P" * 40_000, id="too long"),
        pytest.param("_start", "_start", id="C"),
    ],
)
def test_every_symbol_has_a_name(symbol: str, name: str) -> None:
    assert demangle(symbol) == name


@pytest.mark.parametrize(
    "symbol",
    [
        pytest.param("_RNvC1a" + "T" * 16_000, id="deep"),
        # Each tuple holds the one before it twice.
        pytest.param(
            "_RINvC1a1f" + "ThhE" + "".join(f"TB{at}_B{at}_E" for at in "7bfjnrvzDHLPTX") + "E", id="doubling"
        ),
        pytest.param("_ZN" + "1" * 10_000, id="lengths without names"),
        pytest.param("_RB_", id="refers to itself"),
        pytest.param("_RINvC1a1f" + "TB0_E" * 3000 + "E", id="wide"),
    ],
)
def test_a_hostile_symbol_ends_soon_and_without_a_crash(symbol: str) -> None:
    found = demangle_rust(symbol)
    assert found is None or len(found) < 1_000_000


@given(st.text("RNvCsMXYIEBTDFGULKp0123456789_abhiju", max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_reader(text: str) -> None:
    assert demangle("_R" + text)
    assert demangle("_ZN" + text)
