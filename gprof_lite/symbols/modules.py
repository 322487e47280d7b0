"""All modules that are known, one for each file however many processes run it, with a bound on open descriptors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import PROC, ProcessIdentity
from gprof_lite.host.maps import Mapping, open_mapped_file, open_same_file
from gprof_lite.symbols.lru import LruCache
from gprof_lite.symbols.module import Module, ModuleKey
from gprof_lite.symbols.vdso import VDSO, open_vdso

# A desktop of 300 processes runs code of 700 files; a module takes about 3 KB.
_MAX_MODULES: Final = 2048
# Files whose symbols nobody has asked for yet. One beyond that is opened again when it is needed.
_MAX_OPEN: Final = 128


class Modules:
    """A context manager by ``close``; not for several threads at once."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._known: LruCache[ModuleKey, Module] = LruCache(_MAX_MODULES, lambda _, module: module.close())
        self._open: LruCache[ModuleKey, Module] = LruCache(_MAX_OPEN, _close_unsettled)
        self._by_file: LruCache[tuple[str, int], ModuleKey] = LruCache(_MAX_MODULES)
        self._vdso: Module | None = None
        self.n_refused = 0

    def of_mapping(self, identity: ProcessIdentity, mapping: Mapping) -> Module | None:
        """The module behind a file mapping; None where the file is no ELF file of ours, or cannot be opened."""
        try:
            fd = open_mapped_file(identity.pid, mapping, self._proc)
        except (FormatError, TargetGone):
            self.n_refused += 1
            return None
        module = self._of_fd(fd, mapping, identity.pid)
        if module is not None:
            self._by_file.put(mapping.file_key, module.key, 1)
        return module

    def of_ended(self, mapping: Mapping) -> Module | None:
        """The module behind a mapping of a process that ended: the file of that name, or one that was met before, for
        the name may have been inside of a container."""
        try:
            return self._of_fd(open_same_file(mapping.path, mapping), mapping, os.getpid())
        except FormatError:
            key = self._by_file.get(mapping.file_key)
            return self._known.get(key) if key is not None else None

    def _of_fd(self, fd: int, mapping: Mapping, pid: int) -> Module | None:
        key = ModuleKey.of(fd)
        known = self._known.get(key)
        if known is not None and (known.settled or known.fd >= 0):
            os.close(fd)
            return known
        if known is not None:
            known.fd = fd
            self._open.put(key, known, 1)
            return known
        try:
            module = Module.from_fd(fd, mapping.path, self._roots(pid))
        except FormatError:
            self.n_refused += 1
            return None
        self._known.put(key, module, 1)
        self._open.put(key, module, 1)
        return module

    def _roots(self, pid: int) -> tuple[str, ...]:
        """Where debug files of its modules may lie: on the host, and inside its own root if that is another."""
        root = f"{self._proc}/{pid}/root"
        try:
            inside, ours = os.stat(root), os.stat("/")
        except OSError:
            return ("",)
        return ("",) if (inside.st_dev, inside.st_ino) == (ours.st_dev, ours.st_ino) else (root, "")

    def reopen(self, module: Module, identity: ProcessIdentity, mapping: Mapping) -> None:
        """Open a module's file again that was closed before anybody asked for its symbols, if it still is that file."""
        if module.settled or module.fd >= 0:
            return
        try:
            if identity.is_alive(self._proc):
                fd = open_mapped_file(identity.pid, mapping, self._proc)
            else:
                fd = open_same_file(mapping.path, mapping)
        except (FormatError, TargetGone):
            return
        if ModuleKey.of(fd) != module.key:
            os.close(fd)
            return
        module.fd = fd
        self._open.put(module.key, module, 1)

    def vdso(self, n_bytes: int) -> Module | None:
        """The vdso as a module, if ours is the target's."""
        if self._vdso is not None and self._vdso.fd < 0 and not self._vdso.settled:
            self._vdso = None  # what was prepared of it had to go
        if self._vdso is None:
            try:
                self._vdso = Module.from_fd(open_vdso(n_bytes), VDSO, ("",))
            except FormatError:
                return None
        return self._vdso if self._vdso.key.n_bytes == n_bytes else None

    def __len__(self) -> int:
        return len(self._known)

    def n_open(self) -> int:
        """Descriptors of files that wait for somebody to ask for their symbols."""
        return sum(module.fd >= 0 for module in self._known.values())

    def close(self) -> None:
        """Close every file."""
        self._open.clear()
        self._known.clear()
        self._by_file.clear()
        if self._vdso is not None:
            self._vdso.close()
            self._vdso = None


def _close_unsettled(_: ModuleKey, module: Module) -> None:
    """A Go program's own table is read from the file at every question, so that one stays open."""
    if module.go is None:
        module.close()
