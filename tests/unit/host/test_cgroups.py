from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.cgroups import MAX_DEPTH, CgroupTree, CgroupTrees, parse_mounts, shown_path, shown_paths
from tests.unit.host.fake_cgroups import FakeCgroups
from tests.unit.host.fake_proc import add_process

# Recorded on the development machine, in a Docker container (host namespace), and in one with its own namespace.
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
IN_DOCKER = "712 700 0:32 /docker/ab /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n"
OWN_NAMESPACE = "712 700 0:27 /../.. /host/cgroup rw shared:4 - cgroup2 cgroup rw,nsdelegate\n"


def test_a_mixed_host_counts_memory_in_version_1(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(HYBRID)

    trees = CgroupTrees.find(tmp_path)

    assert trees.memory is not None
    assert (trees.memory.version, trees.memory.mount) == (1, Path("/sys/fs/cgroup/memory"))
    assert trees.unified is not None
    assert trees.unified.mount == Path("/sys/fs/cgroup/unified")
    assert {"cpu", "cpuacct", "name=systemd"} <= trees.named.keys()


def test_a_version_2_host_counts_it_there(tmp_path: Path) -> None:
    trees = FakeCgroups(tmp_path, version=2).trees

    assert trees.memory is trees.unified is not None


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 / /x rw - ext4 /dev/sda1 rw\n"])
def test_without_any_tree_nothing_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(text)
    add_process(tmp_path, 7, cgroup="0::/a")

    trees = CgroupTrees.find(tmp_path)

    assert (trees.memory, trees.unified) == (None, None)
    assert trees.memory_path_of(7) is None


def test_the_mount_that_shows_a_tree_from_its_root_is_taken() -> None:
    first = parse_mounts(IN_DOCKER + HYBRID)[0]

    assert first.root == "/"


def test_spaces_in_a_mount_are_read() -> None:
    (tree,) = parse_mounts(r"35 31 0:32 / /sys/my\040groups rw - cgroup2 cgroup2 rw")

    assert tree.mount == Path("/sys/my groups")


@pytest.mark.parametrize(
    ("root", "shown", "below"),
    [
        pytest.param("/", "/a/b", "/a/b", id="host"),
        pytest.param("/", "/", "/", id="root"),
        pytest.param("/", "/a (deleted)", "/a", id="outlived by its process"),
        pytest.param("/docker/ab", "/docker/ab/x", "/x", id="part of the tree"),
        pytest.param("/docker/ab", "/docker/cd", None, id="beside the part"),
        pytest.param("/docker/ab", "/docker", None, id="above the part"),
        pytest.param("/docker/ab", "/docker/abc", None, id="only begins like the part"),
        pytest.param("/", "/../other", None, id="beside our namespace"),
        pytest.param("/../..", "/../../system.slice/x", "/system.slice/x", id="host's tree in a namespace of ours"),
        pytest.param("/../..", "/", None, id="ourselves, whose names above we cannot know"),
        pytest.param("/", "/a/../../etc", None, id="leads out"),
    ],
)
def test_paths_are_relative_to_what_is_mounted(root: str, shown: str, below: str | None) -> None:
    tree = CgroupTree(2, frozenset(), Path("/m"), root)

    assert tree.below_mount(shown) == below


def test_no_path_leads_out_of_the_mount() -> None:
    with pytest.raises(ValueError):
        CgroupTree(2, frozenset(), Path("/m")).directory("/a/../../etc")


def test_each_tree_has_its_line() -> None:
    text = b"9:name=systemd:/s\n4:cpu,cpuacct:/c\n3:memory:/m:with:colons\n0::/u\n"

    def path_in(controllers: str, version: int = 1) -> str | None:
        names = frozenset(controllers.split()) if version == 1 else frozenset()
        return shown_path(text, CgroupTree(version, names, Path("/m")))

    assert path_in("memory") == "/m:with:colons"
    assert path_in("cpu cpuacct") == "/c"
    assert path_in("name=systemd") == "/s"
    assert path_in("", version=2) == "/u"
    assert path_in("freezer") is None


def test_all_paths_longest_first() -> None:
    assert shown_paths(b"4:memory:/a/b (deleted)\n1:cpu:/\n2:x:/a/b\nbad\n0::/c\n") == ("/a/b", "/c", "/")


class TestProcesses:
    def test_a_process_has_a_path_in_each_tree(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, version=1)
        add_process(fake.proc, 7, cgroup="4:memory:/m/x\n0::/u\n")

        assert fake.trees.memory_path_of(7) == "/m/x"
        assert fake.trees.unified_path_of(7) == "/u"

    def test_one_that_ended_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(TargetGone):
            FakeCgroups(tmp_path, version=2).trees.memory_path_of(7)

    def test_of_a_group_and_all_below_it(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, version=2)
        fake.add_group("/a", cgroup_procs="7\n3")
        fake.add_group("/a/b", cgroup_procs="9\n0\n")
        fake.add_group("/ab", cgroup_procs="11")
        tree = fake.trees.memory
        assert tree is not None

        assert tree.processes_of("/a") == (3, 7, 9)
        assert tree.processes_of("/a", below=False) == (3, 7)
        assert tree.processes_of("/nobody") == ()


class TestWalk:
    def test_parents_come_first(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, version=2)
        for path in ("/b", "/a/y", "/a/x"):
            fake.add_group(path)
        tree = fake.trees.memory
        assert tree is not None

        assert list(tree.walk()) == ["/", "/a", "/a/x", "/a/y", "/b"]
        assert list(tree.walk("/a")) == ["/a", "/a/x", "/a/y"]

    def test_it_ends_in_a_tree_without_end(self, tmp_path: Path) -> None:
        # GIVEN a chain of groups deeper than any, and more groups than are wanted
        fake = FakeCgroups(tmp_path, version=2)
        (fake.memory / "/".join("d" * (MAX_DEPTH + 20))).mkdir(parents=True)
        tree = fake.trees.memory
        assert tree is not None

        assert len(list(tree.walk())) == MAX_DEPTH + 1
        assert len(list(tree.walk(max_groups=5))) == 5

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, version=2)
        (fake.memory / "loop").symlink_to(fake.memory)
        tree = fake.trees.memory
        assert tree is not None

        assert list(tree.walk()) == ["/"]


def test_ids_are_inode_numbers_and_lead_back(tmp_path: Path) -> None:
    fake = FakeCgroups(tmp_path, version=2)
    inode = fake.add_group("/a/b").stat().st_ino
    tree = fake.trees.unified
    assert tree is not None

    assert tree.id_of("/a/b") == inode
    assert tree.path_of_id(inode) == "/a/b"
    assert (tree.id_of("/none"), tree.path_of_id(1)) == (None, None)


class TestLocate:
    @pytest.mark.parametrize("named", ["/a/b", "a/b", "/a/b/", "{memory}/a/b"])
    def test_a_path_or_a_directory(self, tmp_path: Path, named: str) -> None:
        fake = FakeCgroups(tmp_path, version=1)
        fake.add_group("/a/b")

        assert fake.trees.locate(named.format(memory=fake.memory)) == (fake.trees.memory, "/a/b")

    def test_a_group_of_another_tree(self, tmp_path: Path) -> None:
        fake = FakeCgroups(tmp_path, version=1)
        (fake.unified / "u").mkdir()
        (fake.unified / "u/cgroup.procs").write_text("")

        assert fake.trees.locate("/u") == (fake.trees.unified, "/u")

    @pytest.mark.parametrize("named", ["/none", "/a/../..", "", "/etc"])
    def test_what_is_no_group(self, tmp_path: Path, named: str) -> None:
        fake = FakeCgroups(tmp_path, version=1)
        fake.add_group("/a")

        assert fake.trees.locate(named) is None
