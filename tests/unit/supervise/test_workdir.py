"""Scratch directories: private, gone at the end, and those of the dead are cleaned up."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from gprof_lite.errors import PrerequisiteError
from gprof_lite.supervise.workdir import PREFIX, WorkDirectory


def test_directory__is_private_and_removed_with_its_content(tmp_path: Path) -> None:
    with WorkDirectory(tmp_path / "root") as work:
        path = work.path
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700
        (work.subdirectory("perf") / "perf.data").write_text("samples")
        assert work.subdirectory("perf") == path / "perf"
        assert stat.S_IMODE((path / "perf").stat().st_mode) == 0o700
    assert list((tmp_path / "root").iterdir()) == []
    with pytest.raises(RuntimeError):
        work.path  # noqa: B018


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_subdirectory__is_inside(tmp_path: Path, name: str) -> None:
    with WorkDirectory(tmp_path) as work, pytest.raises(ValueError):
        work.subdirectory(name)


def test_stale_ones__are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    # GIVEN a directory that nobody holds and one that is in use
    (tmp_path / f"{PREFIX}1-dead" / "deep").mkdir(parents=True)
    (tmp_path / f"{PREFIX}1-dead" / "deep" / "perf.data").write_text("old")
    with WorkDirectory(tmp_path) as alive:
        # WHEN another run begins
        with WorkDirectory(tmp_path) as second:
            # THEN
            assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.path.name, second.path.name])
        assert alive.path.exists()


def test_what_is_not_ours__is_left_alone(tmp_path: Path) -> None:
    # GIVEN links, files and other names
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("data")
    root = tmp_path / "root"
    root.mkdir()
    (root / f"{PREFIX}link").symlink_to(victim)
    (root / f"{PREFIX}file").write_text("")
    (root / "other").mkdir()
    with WorkDirectory(root):
        pass
    assert sorted(path.name for path in root.iterdir()) == [f"{PREFIX}file", f"{PREFIX}link", "other"]
    assert (victim / "precious").exists()


def test_links_inside__are_removed_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("data")
    with WorkDirectory(tmp_path / "root") as work:
        (work.path / "link").symlink_to(victim)
    assert (victim / "precious").exists()


def test_root__that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    with pytest.raises(PrerequisiteError, match="root"), WorkDirectory(tmp_path / "root"):
        pytest.fail("must not be entered")


@pytest.mark.parametrize(
    ("mode", "is_accepted"),
    [
        pytest.param(0o700, True, id="private"),
        pytest.param(0o755, True, id="readable"),
        pytest.param(0o1777, True, id="sticky, as /tmp"),
        pytest.param(0o777, False, id="writable for all"),
        pytest.param(0o775, False, id="writable for the group"),
    ],
)
def test_root__where_others_could_exchange_things_is_refused(tmp_path: Path, mode: int, is_accepted: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    if is_accepted:
        with WorkDirectory(root):
            pass
    else:
        with pytest.raises(PrerequisiteError, match="sticky"), WorkDirectory(root):
            pytest.fail("must not be entered")
    assert list(root.iterdir()) == []


@pytest.mark.host
def test_root__of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(PrerequisiteError, match="belongs to user 65534"), WorkDirectory(root):
        pytest.fail("must not be entered")


@pytest.mark.host
def test_stale_looking_directory_of_another_user__is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f"{PREFIX}1-theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with WorkDirectory(tmp_path):
        assert theirs.exists()


def test_root__without_parents_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught, WorkDirectory(tmp_path / "a" / "b"):
        pytest.fail("must not be entered")
    assert "No such file or directory" in str(caught.value)
    assert caught.value.hint


def test_removed_by_somebody_else__ends_without_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), WorkDirectory(tmp_path) as work:
        work.path.rmdir()
    assert caplog.records == []
