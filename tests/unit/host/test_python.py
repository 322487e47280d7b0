from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.python import PythonFinder, is_python, is_python_name
from tests.unit.host.fake_proc import add_process

LIBC = "7f00-7f01 r-xp 00000000 08:01 11    /usr/lib/x86_64-linux-gnu/libc.so.6\n"


@pytest.mark.parametrize(
    "path",
    ["/usr/bin/python3.11", "/usr/bin/python", "/opt/py/bin/python3", "/x/python3.13t", "/x/python2.7", "python3.11d"],
)
def test_interpreters_are_known_by_name(path: str) -> None:
    assert is_python_name(path)


@pytest.mark.parametrize("path", ["", "/usr/bin/pythonista", "/usr/bin/pypy3", "/python3.11/bin/ls", "/usr/bin/node"])
def test_other_programs_are_not(path: str) -> None:
    assert not is_python_name(path)


@pytest.mark.parametrize(
    "mapped",
    [
        pytest.param("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", id="shared libpython"),
        pytest.param("/tmp/_MEI123/libpython3.12.so.1.0", id="PyInstaller"),
        pytest.param("/app/lib/python3.11/lib-dynload/_json.so", id="static, with lib-dynload"),
        pytest.param("/app/_speed.cpython-313t-x86_64-linux-gnu.so", id="static, with an extension"),
    ],
)
def test_a_program_of_another_name_is_known_by_what_it_maps(tmp_path: Path, mapped: str) -> None:
    add_process(tmp_path, 7, exe="/app/server", maps=f"{LIBC}7f02-7f03 r-xp 00000000 08:01 12    {mapped}\n")

    assert is_python(7, tmp_path)


@pytest.mark.parametrize(
    "mapped", ["/usr/lib/libpythonic.so", "/usr/share/python3/debian.txt", "/home/libpython/x.so", ""]
)
def test_a_program_that_only_sounds_like_it_is_none(tmp_path: Path, mapped: str) -> None:
    add_process(tmp_path, 7, exe="/app/server", maps=f"{LIBC}7f02-7f03 r-xp 00000000 08:01 12    {mapped}\n")

    assert not is_python(7, tmp_path)


def test_a_process_that_ended_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        is_python(7, tmp_path)


class TestPythonFinder:
    def test_a_no_is_asked_again_later(self, tmp_path: Path) -> None:
        # GIVEN a program that is no Python when first seen
        directory = add_process(tmp_path, 7, exe="/app/server", maps=LIBC)
        finder = PythonFinder(tmp_path, ask_again_s=30)
        assert not finder.is_python(7, 1000, now_s=100)
        # WHEN it loads libpython
        (directory / "maps").write_text("7f02-7f03 r-xp 0 08:01 12    /usr/lib/libpython3.11.so.1.0\n")

        # THEN it is found, but not before the time is up
        assert not finder.is_python(7, 1000, now_s=129)
        assert finder.is_python(7, 1000, now_s=130)

    def test_an_exec_is_looked_at_anew(self, tmp_path: Path) -> None:
        directory = add_process(tmp_path, 7, exe="/usr/bin/python3.11")
        finder = PythonFinder(tmp_path)
        assert finder.is_python(7, 1000, now_s=0)
        (directory / "exe").unlink()
        (directory / "exe").symlink_to("/usr/bin/node")

        assert not finder.is_python(7, 1000, now_s=1)

    def test_a_process_that_ended_is_no_python(self, tmp_path: Path) -> None:
        assert not PythonFinder(tmp_path).is_python(7, 1000, now_s=0)

    def test_the_ended_are_forgotten(self, tmp_path: Path) -> None:
        directory = add_process(tmp_path, 7, exe="/app/server", maps=LIBC)
        finder = PythonFinder(tmp_path)
        finder.is_python(7, 1000, now_s=0)
        (directory / "maps").write_text("7f02-7f03 r-xp 0 08:01 12    /usr/lib/libpython3.11.so.1.0\n")

        finder.forget_all_but(frozenset())

        assert finder.is_python(7, 1000, now_s=1)
