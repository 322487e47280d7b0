"""Finding our own cgroup v2 directory from the two texts of /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.supervise.cgroup_root import own_cgroup, sweep

UNIFIED = "34 24 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
SPACES = r"41 31 0:38 / /mnt/a\040b rw,relatime - cgroup2 cgroup2 rw" + "\n"
PART_OF_IT = "41 31 0:38 /docker/1234 /sys/fs/cgroup ro,relatime - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "expected"),
    [
        pytest.param(UNIFIED, "0::/system.slice/x.service\n", "/sys/fs/cgroup/system.slice/x.service", id="unified"),
        pytest.param(HYBRID, "9:name=systemd:/\n0::/\n", "/sys/fs/cgroup/unified", id="hybrid"),
        pytest.param(SPACES, "0::/x\n", "/mnt/a b/x", id="blank in the mount point"),
        pytest.param(HYBRID, "9:name=systemd:/a\n", None, id="not in the v2 hierarchy"),
        pytest.param("", "0::/\n", None, id="not mounted"),
        pytest.param(PART_OF_IT, "0::/\n", None, id="only a part is mounted"),
        pytest.param(UNIFIED, "0::/../other\n", None, id="outside of our cgroup namespace"),
        pytest.param("", "", None, id="nothing"),
    ],
)
def test_own_cgroup(mountinfo: str, cgroup: str, expected: str | None) -> None:
    found = own_cgroup(mountinfo, cgroup)
    assert (found and Path(str(found).rstrip("/"))) == (expected and Path(expected))


def test_sweep__touches_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    (tmp_path / "gprof-lite-file").write_text("")
    assert sweep(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gprof-lite-file", "system.slice"]


def test_sweep__removes_what_nobody_holds(tmp_path: Path) -> None:
    (tmp_path / "gprof-lite-1-2" / "0").mkdir(parents=True)
    assert sweep(tmp_path) == [tmp_path / "gprof-lite-1-2"]
    assert list(tmp_path.iterdir()) == []
