from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.host.identity import PF_KTHREAD
from gprof_lite.host.service import KERNEL_SERVICE, ServiceDirectory, service_name, unit_of_cgroup
from tests.unit.host.fake_proc import add_process, stat_text


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        pytest.param("0::/system.slice/nginx.service\n", "nginx", id="version 2"),
        pytest.param("4:memory:/x\n1:name=systemd:/system.slice/ssh.service\n0::/\n", "ssh", id="version 1"),
        pytest.param("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1", id="template"),
        pytest.param(r"0::/system.slice/a\x2db.service", "a-b", id="escaped"),
        pytest.param("0::/system.slice/app.service/worker/3", "app", id="below the unit"),
        pytest.param(
            "0::/user.slice/user-0.slice/user@0.service/app.slice/backup.service", "backup", id="unit of a user"
        ),
        pytest.param("0::/user.slice/user-0.slice/user@0.service/init.scope", None, id="the user's manager"),
        pytest.param("0::/user.slice/user-1000.slice/session-3.scope", None, id="session"),
        pytest.param("0::/", None, id="root"),
        pytest.param("", None, id="empty"),
        pytest.param("nonsense:.service/.service", None, id="nonsense"),
    ],
)
def test_the_innermost_unit_names_the_service(text: str, unit: str | None) -> None:
    assert unit_of_cgroup(text) == unit


def test_without_a_unit_the_comm_names_it(tmp_path: Path) -> None:
    add_process(tmp_path, 7, "burner", cgroup="0::/")

    assert service_name(7, tmp_path) == "burner"


def test_kernel_threads_are_one_service(tmp_path: Path) -> None:
    add_process(tmp_path, 7, "kworker/3:1-events", flags=PF_KTHREAD, cgroup="0::/")

    assert service_name(7, tmp_path) == KERNEL_SERVICE


def test_a_process_that_ended_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        service_name(7, tmp_path)


class TestServiceDirectory:
    def test_an_ended_process_keeps_its_service_for_one_more_window(self, tmp_path: Path) -> None:
        # GIVEN a process of a unit, seen while alive
        add_process(tmp_path, 7, "x", cgroup="0::/system.slice/app.service")
        services = ServiceDirectory(tmp_path)
        services.refresh()
        # WHEN it ends in mid-window
        shutil.rmtree(tmp_path / "7")

        # THEN it is named in that window and in the next, then forgotten
        assert services.name_of(7, "x") == "app"
        services.forget_ended()
        assert services.name_of(7, "x") == "app"
        services.forget_ended()
        assert services.name_of(7, "x") == "x"

    def test_the_comm_of_the_samples_counts_not_the_one_of_now(self, tmp_path: Path) -> None:
        add_process(tmp_path, 7, "after", cgroup="0::/")

        assert ServiceDirectory(tmp_path).name_of(7, "before") == "before"

    def test_a_reused_pid_gets_its_new_service(self, tmp_path: Path) -> None:
        directory = add_process(tmp_path, 7, "x", cgroup="0::/system.slice/old.service")
        services = ServiceDirectory(tmp_path)
        services.refresh()
        (directory / "stat").write_text(stat_text(7, start=2000))
        (directory / "cgroup").write_text("0::/system.slice/new.service")

        assert services.name_of(7, "x") == "new"

    def test_the_idle_task_is_the_kernels(self, tmp_path: Path) -> None:
        assert ServiceDirectory(tmp_path).name_of(0, "swapper") == KERNEL_SERVICE
