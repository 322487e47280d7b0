from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.host.state_file import MAX_BYTES, StateReader, mapping, number, text


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"a": 1}')
    reader = StateReader()

    assert reader.read_json(tmp_path / "state") == {"a": 1}
    assert reader.n_refused == 0


def test_a_missing_file_is_no_refusal(tmp_path: Path) -> None:
    reader = StateReader()

    assert reader.read_json(tmp_path / "none/state") is None
    assert reader.n_refused == 0


def write_pipe(path: Path) -> None:
    os.mkfifo(path)


def write_link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("{}")
    path.symlink_to(path.parent / "elsewhere")


def write_huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(write_pipe, id="pipe"),
        pytest.param(write_link, id="link"),
        pytest.param(write_huge, id="too large"),
        pytest.param(Path.mkdir, id="directory"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b'{"a": '), id="cut off"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe{}"), id="no text"),
        pytest.param(lambda path: path.write_bytes(b"[" * 200_000), id="nested without end"),
        pytest.param(lambda path: path.write_bytes(b"1" * 100_000), id="a number without end"),
    ],
)
def test_what_cannot_be_used_is_counted(tmp_path: Path, write: object) -> None:
    write(tmp_path / "state")  # type: ignore[operator]
    reader = StateReader()

    assert reader.read_json(tmp_path / "state") is None
    assert reader.n_refused == 1


class TestFilesOfUsers:
    def test_theirs_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/c").write_text("[1]")

        assert StateReader().read_json_of_user(tmp_path, "a/b/c", os.getuid()) == [1]

    def test_no_link_on_the_way_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real/c").write_text("[1]")
        (tmp_path / "a").symlink_to(tmp_path / "real")
        reader = StateReader()

        assert reader.read_json_of_user(tmp_path, "a/c", os.getuid()) is None

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("[1]")
        reader = StateReader()

        assert reader.read_json_of_user(tmp_path, "c", os.getuid() + 1) is None
        assert reader.n_refused == 1


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_JSON)
def test_fields_of_any_value_can_be_asked_for(value: object) -> None:
    assert isinstance(mapping(value, "a"), dict)
    assert text(value, "a", "b") != ""
    assert number(value, "a") is not True
    json.dumps(value)
