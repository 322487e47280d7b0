"""Both loaders for the tests of probes, programs of the tests' own, and tracefs where this machine has it unmounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.probes.loader import LoaderChoice

REPOSITORY = Path(__file__).parents[3]
TRACING = Path("/sys/kernel/tracing")


@pytest.fixture(params=[LoaderChoice.LIBBPF, LoaderChoice.BCC], ids=lambda loader: loader.value)
def bpf_loader(request: pytest.FixtureRequest) -> LoaderChoice:
    """The same test over both loaders: the same sources must do the same."""
    loader: LoaderChoice = request.param
    return loader


@pytest.fixture(scope="session")
def test_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the objects and sources of ``tests/host/probes/bpf``, made by the product's own Makefile."""
    directory = tmp_path_factory.mktemp("bpf")
    for source in (*REPOSITORY.glob("bpf/*.h"), REPOSITORY / "bpf/Makefile", *Path(__file__).parent.glob("bpf/*.c")):
        (directory / source.name).write_bytes(source.read_bytes())
    subprocess.run(("make", "-s", "-C", directory, "OUT=objects"), check=True, timeout=60, capture_output=True)
    return directory / "objects"


@pytest.fixture
def tracefs() -> Iterator[Path]:
    """/sys/kernel/tracing, mounted. A systemd host has it; a bare virtual machine may not."""
    if (TRACING / "events").is_dir():
        yield TRACING
        return
    subprocess.run(("mount", "-t", "tracefs", "tracefs", TRACING), check=True, timeout=10)
    try:
        yield TRACING
    finally:
        subprocess.run(("umount", TRACING), check=True, timeout=10)
