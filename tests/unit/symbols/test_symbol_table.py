"""Many symbols in little memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.symbols.symbol_table import Symbol, SymbolTable


def test_a_symbol_covers_its_size_and_no_more() -> None:
    # GIVEN two functions with a hole between them, added in the wrong order
    table = SymbolTable.of([(200, 10, b"second"), (100, 50, b"first")])

    # THEN each is found from its first to its last byte
    assert table.find(100) == table.find(149) == Symbol(100, 150, "first")
    assert table.find(209) == Symbol(200, 210, "second")
    assert table.find(99) is table.find(150) is table.find(210) is None


def test_a_symbol_without_size_reaches_to_the_next_one() -> None:
    table = SymbolTable.of([(100, 0, b"first"), (200, 0, b""), (300, 0, b"last")])
    assert table.find(199) == Symbol(100, 200, "first")
    assert table.find(250) is None  # the nameless one ends the first
    assert table.find(301) is None  # nobody knows where the last one ends


def test_of_two_at_one_address_the_later_one_counts() -> None:
    # GIVEN code that was made anew at the same place
    table = SymbolTable.of([(100, 10, b"old"), (100, 10, b"new")])
    found = table.find(105)
    assert found is not None
    assert found.name == "new"


@pytest.mark.parametrize("n_symbols", [pytest.param(0, id="none"), pytest.param(1000, id="some")])
def test_memory_is_what_the_numbers_and_names_need(n_symbols: int) -> None:
    table = SymbolTable.of((index * 16, 0, b"0123456789") for index in range(n_symbols))
    assert len(table) == n_symbols
    assert table.n_bytes == n_symbols * (8 + 4 + 10) + 4


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60), st.binary(min_size=1, max_size=3)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_found_symbol_always_covers_the_address(symbols: list[tuple[int, int, bytes]]) -> None:
    table = SymbolTable.of(symbols)
    for address in range(0, 600, 7):
        found = table.find(address)
        if found is not None:
            assert found.start <= address < found.end
            assert any(start == found.start for start, _, _ in symbols)
