"""Names of Rust functions as their source has them, from the two ways rustc writes them into a symbol table.

``symbolic`` lost its demangler and no other kept library for Python reads the newer form, which the standard library
uses since Rust 1.95; so this is a reader of our own. Lifetimes are left out, and so are hashes of crates: a frame is
to be recognised, not compiled. A symbol can refer back to parts of itself, so its name can be exponentially longer
than the symbol: both the steps and the depth are bounded.

Source: RFC 2603 "Rust Symbol Mangling (v0)"; the legacy form is that of rustc_symbol_mangling/src/legacy.rs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_HASH: Final = re.compile(r"h[0-9a-f]{16}")
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_ESCAPE: Final = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$|\.\.")
_ESCAPES: Final = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}

_BASIC_TYPES: Final = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip

_MAX_SYMBOL_LENGTH: Final = 16_384
_MAX_DEPTH: Final = 100
_MAX_STEPS: Final = 5_000


def demangle_rust(symbol: str) -> str | None:
    """The name, or None if it is no Rust symbol, or one that cannot be read."""
    if len(symbol) > _MAX_SYMBOL_LENGTH:
        return None
    if symbol.startswith("_R"):
        try:
            return _V0(symbol[2:].partition(".")[0]).symbol() or None
        except _Unreadable:
            return None
    return _legacy(symbol)


def _legacy(symbol: str) -> str | None:
    """Names with their lengths before them; the last one is a hash, which is how it is told from C++."""
    if not symbol.startswith("_ZN"):
        return None
    parts = []
    at = 3
    while digits := _LENGTH.match(symbol, at):
        at = digits.end() + int(digits[0])
        parts.append(symbol[digits.end() : at])
    if len(parts) < 2 or not _HASH.fullmatch(parts.pop()) or not symbol.startswith("E", at):
        return None
    names = (part.removeprefix("_") if part.startswith("_$") else part for part in parts)
    return _ESCAPE.sub(_unescape, "::".join(names)) or None


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code is None:
        return "::"
    if code in _ESCAPES:
        return _ESCAPES[code]
    point = int(code[1:], 16)
    return chr(point) if point < 0x110000 else "?"


class _Unreadable(ValueError):
    """It is not what the grammar allows, or too much."""


class _V0:
    """Recursive descent over one symbol; each method reads one rule of the grammar and returns its text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._n_steps = 0

    def symbol(self) -> str:
        return self._path(in_value=True)

    def _next(self) -> str:
        self._n_steps += 1
        if self._at >= len(self._text) or self._n_steps > _MAX_STEPS:
            raise _Unreadable
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, wanted: str) -> bool:
        if self._text.startswith(wanted, self._at):
            self._at += 1
            return True
        return False

    def _nested(self, rule: Callable[[], str]) -> str:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Unreadable
        text = rule()
        self._depth -= 1
        return text

    def _back(self, rule: Callable[[], str]) -> str:
        """A reference to an earlier place, which is read again."""
        start = self._at - 1
        target = self._base_62()
        if target >= start:
            raise _Unreadable
        return_to, self._at = self._at, target
        text = self._nested(rule)
        self._at = return_to
        return text

    def _base_62(self) -> int:
        value = 0
        n_digits = 0
        while not self._take("_"):
            digit = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".find(self._next())
            n_digits += 1
            if digit < 0 or n_digits > 11:
                raise _Unreadable
            value = value * 62 + digit
        return value + 1 if n_digits else 0

    def _disambiguator(self) -> int:
        return self._base_62() + 1 if self._take("s") else 0

    def _identifier(self) -> str:
        is_punycode = self._take("u")
        match = re.compile(r"(0|[1-9][0-9]{0,4})_?").match(self._text, self._at)
        if match is None:
            raise _Unreadable
        start, length = match.end(), int(match[1])
        if match[0].endswith("_") and length == 0:  # "0_" cannot be: the underscore parts digits from a name
            start -= 1
        name = self._text[start : start + length]
        if len(name) != length:
            raise _Unreadable
        self._at = start + length
        self._n_steps += length // 8  # long names are work too, when they are referred back to
        return _from_punycode(name) if is_punycode else name

    def _path(self, *, in_value: bool) -> str:
        return self._nested(lambda: self._path_here(in_value))

    def _path_here(self, in_value: bool) -> str:
        tag = self._next()
        if tag == "C":
            self._disambiguator()
            return self._identifier()
        if tag == "N":
            return self._name_in_path(in_value)
        if tag in "MX":
            self._disambiguator()
            self._path(in_value=False)  # where the impl block stands
            self_type = self._type()
            return f"<{self_type}>" if tag == "M" else f"<{self_type} as {self._path(in_value=False)}>"
        if tag == "Y":
            return f"<{self._type()} as {self._path(in_value=False)}>"
        if tag == "I":
            path = self._path(in_value=in_value)
            return f"{path}{'::' if in_value else ''}<{', '.join(self._generic_arguments())}>"
        if tag == "B":
            return self._back(lambda: self._path(in_value=in_value))
        raise _Unreadable

    def _name_in_path(self, in_value: bool) -> str:
        namespace = self._next()
        parent = self._path(in_value=in_value)
        number = self._disambiguator()
        name = self._identifier()
        if namespace.islower():
            return f"{parent}::{name}" if name else parent
        kind = {"C": "closure", "S": "shim"}.get(namespace, namespace)
        return f"{parent}::{{{kind}{':' + name if name else ''}#{number}}}"

    def _generic_arguments(self) -> list[str]:
        found = []
        while not self._take("E"):
            if self._take("L"):
                self._base_62()
            elif self._take("K"):
                found.append(self._const())
            else:
                found.append(self._type())
        return found

    def _type(self) -> str:
        return self._nested(self._type_here)

    def _type_here(self) -> str:
        tag = self._next()
        if tag in _BASIC_TYPES:
            return _BASIC_TYPES[tag]
        if tag == "A":
            return f"[{self._type()}; {self._const()}]"
        if tag == "S":
            return f"[{self._type()}]"
        if tag == "T":
            types = self._types_to_end()
            return f"({', '.join(types)}{',' if len(types) == 1 else ''})"
        if tag in "RQ":
            if self._take("L"):
                self._base_62()
            return f"{'&' if tag == 'R' else '&mut '}{self._type()}"
        if tag in "PO":
            return f"{'*const ' if tag == 'P' else '*mut '}{self._type()}"
        if tag == "F":
            return self._function_type()
        if tag == "D":
            return self._dyn_type()
        if tag == "B":
            return self._back(self._type)
        self._at -= 1
        return self._path(in_value=False)

    def _types_to_end(self) -> list[str]:
        types = []
        while not self._take("E"):
            types.append(self._type())
        return types

    def _function_type(self) -> str:
        self._binder()
        text = "unsafe " if self._take("U") else ""
        if self._take("K"):
            text += f'extern "{"C" if self._take("C") else self._identifier().replace("_", "-")}" '
        arguments = ", ".join(self._types_to_end())
        result = self._type()
        return f"{text}fn({arguments})" + ("" if result == "()" else f" -> {result}")

    def _dyn_type(self) -> str:
        self._binder()
        bounds = []
        while not self._take("E"):
            bounds.append(self._dyn_trait())
        if not self._take("L"):
            raise _Unreadable
        self._base_62()
        return f"dyn {' + '.join(bounds)}"

    def _dyn_trait(self) -> str:
        path = self._path(in_value=False)
        bindings = []
        while self._take("p"):
            bindings.append(f"{self._identifier()} = {self._type()}")
        if not bindings:
            return path
        if path.endswith(">"):
            return f"{path[:-1]}, {', '.join(bindings)}>"
        return f"{path}<{', '.join(bindings)}>"

    def _binder(self) -> None:
        if self._take("G"):
            self._base_62()

    def _const(self) -> str:
        tag = self._next()
        if tag == "p":
            return "_"
        if tag == "B":
            return self._back(self._const)
        if tag not in "abchijlmnostxy":  # structures and strings as constants: rare, and not written out
            raise _Unreadable
        sign = "-" if self._take("n") else ""
        match = re.compile(r"([0-9a-f]{0,32})_").match(self._text, self._at)
        if match is None:
            raise _Unreadable
        self._at = match.end()
        value = int(match[1] or "0", 16)
        if tag == "b":
            return "true" if value else "false"
        return repr(chr(value)) if tag == "c" and value < 0x110000 else f"{sign}{value}"


def _from_punycode(name: str) -> str:
    """Rust writes the parts of punycode with ``_`` between them, not ``-``."""
    basic, _, rest = name.rpartition("_")
    try:
        return (f"{basic}-{rest}" if basic else rest).encode("ascii").decode("punycode")
    except (UnicodeError, ValueError):
        return name
