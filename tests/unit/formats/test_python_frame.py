"""Python frames taken apart."""

from __future__ import annotations

import pytest

from gprof_lite.formats.python_frame import PythonPlace, python_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("main (shop/app.py:3)", PythonPlace("main", "shop/app.py", 3), id="usual"),
        pytest.param("f (my (old) prog.py:12)", PythonPlace("f", "my (old) prog.py", 12), id="brackets in the file"),
        pytest.param("<module> (<string>:1)", PythonPlace("<module>", "<string>", 1), id="no file"),
        pytest.param("f (C:/a.py:1)", PythonPlace("f", "C:/a.py", 1), id="colon in the file"),
        pytest.param("thread (12189): MainThread", None, id="thread"),
        pytest.param("PyObject_Call (libpython3.11.so)", None, id="native"),
        pytest.param("f (a.py:1234567890)", None, id="no line has ten digits"),
        pytest.param("f (a.py:٣)", None, id="digits of another script"),
        pytest.param("f (a.py:)", None, id="no line"),
        pytest.param(" (a.py:1)", None, id="no function"),
        pytest.param("", None, id="nothing"),
        pytest.param("(:" * 2000, None, id="hostile"),
    ],
)
def test_place(text: str, place: PythonPlace | None) -> None:
    assert python_place(text) == place
