"""Builds the labelled leak programs, once per state of their sources.

    program_of("cxx", cache_directory)   ->   argv of the program, without options

Each program lies in a directory named after the hash of the sources and commands it was built with. A tool that is not
here is ``ToolMissing`` with its name; nothing else is tried.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent
NAME: Final = "memory_leak_simulator"
# Every program has the same name: a name is no evidence.
LIBRARIES: Final = Path("/usr/lib/x86_64-linux-gnu")

# With frame pointers, and each function a frame of its own: a call at its end is no jump, equal functions stay two.
ALL_FRAMES: Final = ("-fno-optimize-sibling-calls", "-fno-ipa-icf")
FRAMES: Final = ("-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", *ALL_FRAMES)
NO_FRAMES: Final = ("-fomit-frame-pointer", *ALL_FRAMES)
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")
C_SOURCES: Final = ("simulator.c", "table.c", "heap.c", "processes.c", "healthy_heap.c", "healthy_system.c")


class ToolMissing(Exception):
    """A compiler, interpreter or library that a program needs is not on this machine."""


@dataclass(frozen=True)
class Recipe:
    """How a program is made and started.

    Attributes:
        steps: commands, run in the program's own directory; ``{sources}`` is the directory of this file.
        argv: ``{program}`` is the program's own directory.
        environment: added to the one the program is started with.
    """

    steps: tuple[tuple[str, ...], ...]
    argv: tuple[str, ...] = ("{program}/" + NAME,)
    environment: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()


def _c(compiler: str, *flags: str, frames: tuple[str, ...] = FRAMES, link: tuple[str, ...] = ()) -> tuple[str, ...]:
    sources = tuple(f"{{sources}}/native/{name}" for name in C_SOURCES)
    common = ("-std=gnu17", "-O2", "-g", *frames, *WARNINGS)
    return (compiler, *common, *flags, *sources, "-o", NAME, *link, "-pthread", "-lm")


PLUGIN: Final = (
    *("gcc", "-std=gnu17", "-O2", "-g", *FRAMES, *WARNINGS),
    *("-shared", "-fPIC", "{sources}/native/plugin.c", "-o", "plugin.so"),
)


def _cxx(*link: str, frames: tuple[str, ...] = FRAMES) -> Recipe:
    frame = ("gcc", "-std=gnu17", "-O2", "-g", *frames, *WARNINGS, "-c", "{sources}/native/simulator.c")
    flags = ("-std=c++17", "-O2", "-g", *frames, *WARNINGS)
    whole = ("g++", *flags, "{sources}/native/cxx.cc", "simulator.o", "-o", NAME, *link, "-pthread", "-lm")
    return Recipe((frame, whole))


def _library(name: str) -> tuple[str, ...]:
    """Linked with the program, before libc, as an author would; ``--no-as-needed``: it replaces what libc has."""
    return ("-Wl,--no-as-needed", str(LIBRARIES / name))


JEMALLOC: Final = _library("libjemalloc.so.2")
TCMALLOC: Final = _library("libtcmalloc_minimal.so.4")
# Debian 12 has .so.2, Debian 13 .so.3.
MIMALLOC: Final = _library(max((path.name for path in LIBRARIES.glob("libmimalloc.so.?")), default="libmimalloc.so.2"))

RECIPES: Final[Mapping[str, Recipe]] = {
    "native": Recipe((_c("gcc", "-rdynamic"), PLUGIN)),
    "native-no-frame-pointers": Recipe((_c("gcc", "-rdynamic", frames=NO_FRAMES), PLUGIN)),
    "native-jemalloc": Recipe((_c("gcc", "-rdynamic", link=JEMALLOC), PLUGIN)),
    "native-tcmalloc": Recipe((_c("gcc", "-rdynamic", link=TCMALLOC), PLUGIN)),
    "native-mimalloc": Recipe((_c("gcc", "-rdynamic", link=MIMALLOC), PLUGIN)),
    "native-static": Recipe((_c("gcc", "-static", "-DWITHOUT_DLOPEN"),)),
    "native-musl": Recipe((_c("musl-gcc", "-DWITHOUT_DLOPEN"),)),
    "native-musl-static": Recipe((_c("musl-gcc", "-static", "-DWITHOUT_DLOPEN"),)),
    "cxx": _cxx(),
    "cxx-no-frame-pointers": _cxx(frames=NO_FRAMES),
    "cxx-jemalloc": _cxx(*JEMALLOC),
    "cxx-tcmalloc": _cxx(*TCMALLOC),
    "rust": Recipe(
        (("rustc", "-O", "-g", "-C", "force-frame-pointers=yes", "{sources}/rust/simulator.rs", "-o", NAME),)
    ),
    "rust-no-frame-pointers": Recipe((("rustc", "-O", "-g", "{sources}/rust/simulator.rs", "-o", NAME),)),
    "go": Recipe((("go", "build", "-C", "{sources}/go", "-o", "{program}/" + NAME, "."),), needs=("gcc",)),
    "java": Recipe(
        (("javac", "-d", ".", "{sources}/java/MemoryLeakSimulator.java"),),
        ("java", "-Xmx1g", "-cp", "{program}", "MemoryLeakSimulator"),
        needs=("java",),
    ),
    "node": Recipe((), ("node", "{sources}/node/simulator.js")),
    "python": Recipe(
        (
            ("gcc", "-O2", "-g", *FRAMES, "-shared", "-fPIC", "{sources}/python/library.c", "-o", "library.so"),
            (
                *("gcc", "-O2", "-g", *FRAMES, "-shared", "-fPIC", "-I/usr/include/python3.11"),
                *("-I/usr/include/python3.13", "{sources}/python/extension.c", "-o", "simulator_extension.so"),
            ),
        ),
        ("/usr/bin/python3", "{sources}/python/simulator.py"),
        (("PYTHONPATH", "{program}"), ("SIMULATOR_LIBRARY", "{program}/library.so")),
    ),
    "stress": Recipe((), ("stress-ng",)),
}


@dataclass(frozen=True)
class Program:
    """A program that is ready to be started."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def default_cache() -> Path:
    """Where programs are kept between runs."""
    return Path(tempfile.gettempdir()) / f"memory_leak_simulator-{os.getuid()}"


def build(name: str, cache: Path | None = None) -> Program:
    """The program of a recipe, made when its sources changed.

    Raises:
        ToolMissing: with the name of what is missing.
        subprocess.CalledProcessError: a compiler refused; its words are on stderr.
    """
    recipe = RECIPES[name]
    _check_tools(recipe)
    directory = (cache or default_cache()) / f"{name}-{_fingerprint(name)}"
    if not _is_made(directory):
        _make(recipe, directory)
    places = {"sources": str(SOURCES), "program": str(directory)}
    argv = tuple(part.format(**places) for part in recipe.argv)
    return Program(argv, {key: value.format(**places) for key, value in recipe.environment})


def _check_tools(recipe: Recipe) -> None:
    programs = [step[0] for step in recipe.steps] + list(recipe.needs)
    programs += [recipe.argv[0]] if "{" not in recipe.argv[0] else []
    for tool in programs:
        if not shutil.which(tool):
            raise ToolMissing(tool)
    for part in (part for step in recipe.steps for part in step):
        if part.startswith(str(LIBRARIES)) and not Path(part).exists():
            raise ToolMissing(part)


def _fingerprint(name: str) -> str:
    digest = hashlib.sha256(repr(RECIPES[name]).encode())
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_made(directory: Path) -> bool:
    return (directory / "made").exists()


def _make(recipe: Recipe, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests may want the same program at once
        if _is_made(directory):
            return
        for step in recipe.steps:
            argv = [part.format(sources=SOURCES, program=directory) for part in step]
            subprocess.run(argv, check=True, cwd=directory, stdin=subprocess.DEVNULL)
        (directory / "made").touch()
