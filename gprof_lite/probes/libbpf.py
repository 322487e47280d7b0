"""Libbpf: the functions of libbpf.so.1 that we call, with their types; and what it prints, caught.

libbpf needs neither headers nor a compiler. Measured here: importing these modules 0.7 MB of RSS, opening and loading
bpf/oom and bpf/growth 1.1 MB, bpf/alloc 2.4 MB; while it loads oom or growth, 11 MB for a moment, because it decodes
the kernel's types for them (alloc, faults and calibrate do without: ``btf_member``); 20 ms of CPU for oom and 0.45 s
for alloc, which the kernel's verifier takes. Version 1.0 or newer, which Debian 12 (1.1) and 13 (1.5) have; 0.x has
other names and layouts.

What libbpf prints is the only place where it explains itself. It prints through one function per process, so a lock is
held while an object is opened or loaded and the words are caught for its error.

Source: libbpf.h and btf.h of libbpf 1.0; vsnprintf(3).
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from gprof_lite.errors import ProbeError

_LINE_BYTES: Final = 16 * 1024
_KEPT_BYTES: Final = 64 * 1024
_WARN: Final = 0

# int (*)(enum libbpf_print_level, const char *format, va_list). A va_list argument is a pointer on the ABIs we run on.
_PrintFunction: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_PRINTING: Final = threading.Lock()

_POINTER: Final = ctypes.c_void_p
_NUMBER: Final = ctypes.c_int
_TEXT: Final = ctypes.c_char_p
_COUNT: Final = ctypes.c_uint32

# name -> (result, arguments)
_FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "bpf_object__open_mem": (_POINTER, (_TEXT, ctypes.c_size_t, _POINTER)),
    "bpf_object__load": (_NUMBER, (_POINTER,)),
    "bpf_object__close": (None, (_POINTER,)),
    "bpf_object__btf": (_POINTER, (_POINTER,)),
    "bpf_object__next_program": (_POINTER, (_POINTER, _POINTER)),
    "bpf_object__next_map": (_POINTER, (_POINTER, _POINTER)),
    "bpf_program__name": (_TEXT, (_POINTER,)),
    "bpf_program__section_name": (_TEXT, (_POINTER,)),
    "bpf_program__fd": (_NUMBER, (_POINTER,)),
    "bpf_program__set_autoload": (_NUMBER, (_POINTER, ctypes.c_bool)),
    "bpf_program__set_expected_attach_type": (_NUMBER, (_POINTER, _NUMBER)),
    "bpf_map__name": (_TEXT, (_POINTER,)),
    "bpf_map__fd": (_NUMBER, (_POINTER,)),
    "bpf_map__reuse_fd": (_NUMBER, (_POINTER, _NUMBER)),
    "bpf_map__set_max_entries": (_NUMBER, (_POINTER, _COUNT)),
    "bpf_map__initial_value": (_POINTER, (_POINTER, ctypes.POINTER(ctypes.c_size_t))),
    "btf__find_by_name_kind": (_NUMBER, (_POINTER, _TEXT, _COUNT)),
    "btf__type_by_id": (_POINTER, (_POINTER, _COUNT)),
    "btf__name_by_offset": (_TEXT, (_POINTER, _COUNT)),
    "libbpf_set_print": (_POINTER, (_POINTER,)),
}


class Libbpf:
    """The library, loaded. Functions are called by their names: ``libbpf.call("bpf_map__fd", map)``."""

    def __init__(self, path: str = "libbpf.so.1") -> None:
        """Load it.

        Raises:
            ProbeError: it is not there, or not what we know.
        """
        try:
            # errno must be kept: functions that return a pointer say why in errno only.
            library = ctypes.CDLL(path, use_errno=True)
            self._functions = {name: _typed(library, name) for name in _FUNCTIONS}
        except (OSError, AttributeError) as exc:
            raise ProbeError("libbpf", f"the library is missing: {exc}", hint="apt install libbpf1") from exc
        self._vsnprintf = ctypes.CDLL(None).vsnprintf

    def call(self, name: str, *arguments: Any) -> Any:
        return self._functions[name](*arguments)

    @contextmanager
    def listening(self) -> Iterator[SpokenWords]:
        """Catch what libbpf says meanwhile; it writes nothing to stderr, now or later."""
        words = SpokenWords()

        def take(level: int, form: bytes, arguments: int) -> int:
            line = ctypes.create_string_buffer(_LINE_BYTES)
            self._vsnprintf(line, ctypes.c_size_t(_LINE_BYTES), ctypes.c_char_p(form), ctypes.c_void_p(arguments))
            words.add(level, line.value.decode(errors="replace"))
            return 0

        spoken = _PrintFunction(take)
        with _PRINTING:
            self.call("libbpf_set_print", ctypes.cast(spoken, ctypes.c_void_p))
            try:
                yield words
            finally:
                self.call("libbpf_set_print", None)


class SpokenWords:
    """The end of what libbpf said, bounded. Kept are warnings: the verifier's log comes as one of them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._n = 0

    def add(self, level: int, line: str) -> None:
        if level != _WARN:
            return
        self._lines.append(line)
        self._n += len(line)
        while self._n > _KEPT_BYTES and len(self._lines) > 1:
            self._n -= len(self._lines.popleft())

    def __str__(self) -> str:
        return "".join(self._lines)


def _typed(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = _FUNCTIONS[name]
    return function
