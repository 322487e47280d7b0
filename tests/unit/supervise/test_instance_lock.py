"""One instance at a time, and the name of the one that is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gprof_lite.errors import PrerequisiteError
from gprof_lite.supervise.instance_lock import InstanceLock


def test_second_one__is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    words = f"process {os.getpid()} holds it"
    with InstanceLock(path), pytest.raises(PrerequisiteError, match=words), InstanceLock(path):
        pytest.fail("must not be entered")
    # THEN it is free again
    with InstanceLock(tmp_path / "lock"):
        pass


def test_file_of_a_dead_holder__does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12345\n and much more than a pid")
    with InstanceLock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_link__is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(PrerequisiteError), InstanceLock(tmp_path / "lock"):
        pytest.fail("must not be entered")
    assert (tmp_path / "precious").read_text() == "data"


def test_directory_missing__is_said(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="No such file"), InstanceLock(tmp_path / "missing" / "lock"):
        pytest.fail("must not be entered")
