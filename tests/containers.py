"""Real containers for tests, run by runc or crun from a small root file system of busybox. Needs root.

A test says what runs in it and how much memory it may have::

    def test_it(run_container: RunContainer) -> None:
        container = run_container("runc", ("/bin/busybox", "sleep", "60"), memory_limit=64 << 20)
        ... container.pid, container.id ...

The fixture takes everything away again, also when the test fails.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUSYBOX = Path("/bin/busybox")  # statically linked in Debian's busybox-static
APPLETS = ("sh", "sleep", "cat", "dd", "tail", "head", "ls")
UNIFIED = Path("/sys/fs/cgroup/unified")
DEADLINE_S = 30.0

_numbers = itertools.count()


@dataclass(frozen=True)
class RunningContainer:
    """A container that runs. ``pid``: of its first process, as the host numbers it."""

    id: str
    runtime: str
    pid: int
    cgroup: str
    root: Path
    output_file: Path

    def output(self) -> str:
        """What its processes wrote so far, standard output and error."""
        return self.output_file.read_text(errors="replace")

    def wait_output(self, needle: str) -> str:
        """Wait until they wrote this."""
        give_up_at = time.monotonic() + DEADLINE_S
        while needle not in self.output():
            if time.monotonic() > give_up_at:
                raise AssertionError(f"{self.runtime} container never said {needle!r}: {self.output()!r}")
            time.sleep(0.02)
        return self.output()


RunContainer = Callable[..., RunningContainer]


@pytest.fixture
def run_container(tmp_path: Path) -> Iterator[RunContainer]:
    """Start a container: ``run_container(runtime, argv, memory_limit=None, files=None, environment=None)``.

    ``runtime`` is ``runc`` or ``crun``; ``files``, such as ``{"/bin/x": Path(...)}``, are copied into its root file
    system before it starts.
    """
    started: list[tuple[str, str]] = []

    def run(
        runtime: str,
        argv: Sequence[str],
        memory_limit: int | None = None,
        files: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> RunningContainer:
        for program in (runtime, str(BUSYBOX)):
            if shutil.which(program) is None:
                pytest.skip(f"needs {program} (Debian: runc, crun, busybox-static)")
        # Not "gprof-lite-PID-NUMBER": a starting agent takes that for the cgroup of one that ended, and kills it.
        identifier = f"tested-container-{os.getpid()}-{next(_numbers)}"
        bundle = tmp_path / identifier
        _make_root(bundle / "rootfs", files or {})
        _write_config(bundle, runtime, argv, f"/{identifier}", memory_limit, environment or {})
        started.append((runtime, identifier))
        pid_file, output = bundle / "pid", bundle / "output"
        with open(output, "wb") as file:
            _command(
                runtime, "run", "--detach", "--no-new-keyring", "--pid-file", str(pid_file),
                "--bundle", str(bundle), identifier, output=file, said=output,
            )  # fmt: skip
        return RunningContainer(
            identifier, runtime, int(pid_file.read_text()), f"/{identifier}", bundle / "rootfs", output
        )

    try:
        yield run
    finally:
        for runtime, identifier in started:
            _remove(runtime, identifier)


def _make_root(root: Path, files: Mapping[str, Path]) -> None:
    for directory in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (root / directory).mkdir(parents=True)
    shutil.copy2(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for inside, source in files.items():
        target = root / inside.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _write_config(
    bundle: Path,
    runtime: str,
    argv: Sequence[str],
    cgroup: str,
    memory_limit: int | None,
    environment: Mapping[str, str],
) -> None:
    """The runtime's own default configuration, changed where this needs it."""
    subprocess.run([runtime, "spec"], cwd=bundle, check=True, capture_output=True, timeout=DEADLINE_S)
    file = bundle / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    process = config["process"]
    process["terminal"] = False
    process["args"] = list(argv)
    process["env"] = ["PATH=/bin", *(f"{key}={value}" for key, value in environment.items())]
    process.pop("rlimits", None)  # raising one takes CAP_SYS_RESOURCE, which containers of CI have not
    config["root"] = {"path": "rootfs", "readonly": False}
    config["linux"]["cgroupsPath"] = cgroup
    if memory_limit is not None:
        config["linux"].setdefault("resources", {})["memory"] = {"limit": memory_limit}
    file.write_text(json.dumps(config))


def _command(runtime: str, *arguments: str, output: Any = subprocess.DEVNULL, said: Path | None = None) -> None:
    command = [runtime, *arguments]
    if runtime == "crun":
        command = ["crun", "--cgroup-manager", "cgroupfs", *arguments]
        if os.path.ismount(UNIFIED):
            # crun refuses hosts with both versions as soon as version 2 has any controller; without the mount of
            # version 2 it takes the host for a version 1 one, which is what the other trees are.
            command = ["unshare", "-m", "sh", "-c", f'umount {UNIFIED} && exec "$@"', "sh", *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=DEADLINE_S)
    if done.returncode != 0 and said is not None:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {said.read_text(errors='replace')}")


def _remove(runtime: str, identifier: str) -> None:
    _command(runtime, "delete", "--force", identifier)
    give_up_at = time.monotonic() + DEADLINE_S
    while groups := [path for path in Path("/sys/fs/cgroup").glob(f"*/{identifier}") if path.is_dir()]:
        for group in groups:  # the runtime leaves trees that it does not know
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > give_up_at:
                    raise
        time.sleep(0.02)
