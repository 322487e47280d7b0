"""Credentials: a token or a user and password, from a file or the environment, seen in one request header only.

No argument and no URL ever holds them. The file is read again when it changes, so a token can be renewed while the
agent runs. ``repr`` and every error here are free of them.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import ConfigError, Unauthorized

# Not a setting, because every setting is also a flag, and everybody may read everybody's flags.
TOKEN_VARIABLE: Final = "GPROF_LITE_SERVER_TOKEN"
_MAX_FILE_BYTES: Final = 16_384
# What an HTTP header may carry without doubt; requests would quote any other value in its error.
_SAFE: Final = re.compile(r"[\x21-\x7e]+")
_SAFE_WITH_SPACES: Final = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class _FileState:
    inode: int
    size_bytes: int
    changed_ns: int


class Credentials:
    """At most one of: token file, ``user:password`` file, token from the environment.

    Raises:
        ConfigError: more than one is given.
    """

    def __init__(
        self,
        token_file: Path | None = None,
        basic_auth_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if token_file is not None and basic_auth_file is not None:
            raise ConfigError("server_basic_auth_file", str(basic_auth_file), "no server_token_file beside it")
        self._file = token_file or basic_auth_file
        self._is_basic = basic_auth_file is not None
        # A file wins: it is the more deliberate of the two.
        self._token = (environment or {}).get(TOKEN_VARIABLE, "").strip() if self._file is None else ""
        if self._token and not _SAFE.fullmatch(self._token):
            raise ConfigError(TOKEN_VARIABLE, "(not shown)", "a token of visible ASCII characters")
        self._seen: _FileState | None = None
        self._secrets: tuple[str, ...] = (self._token,) if self._token else ()

    def __repr__(self) -> str:
        return f"Credentials(file={self._file}, from_environment={bool(self._token)})"

    @property
    def are_given(self) -> bool:
        return self._file is not None or bool(self._token)

    def headers(self) -> dict[str, str]:
        """The Authorization header, or nothing when no credentials are given.

        Raises:
            Unauthorized: the file cannot be read or holds nothing that could be sent.
        """
        if self._file is None:
            return {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._seen = _state_of(self._file)
        secret = _read(self._file)
        pattern = _SAFE_WITH_SPACES if self._is_basic else _SAFE
        if not pattern.fullmatch(secret) or (self._is_basic and ":" not in secret):
            wanted = "user:password" if self._is_basic else "a token"
            raise Unauthorized(f"{self._file} does not hold {wanted} in visible ASCII characters")
        if not self._is_basic:
            self._secrets = (secret,)
            return {"Authorization": f"Bearer {secret}"}
        packed = base64.b64encode(secret.encode()).decode()
        self._secrets = (packed, secret, secret.partition(":")[2])
        return {"Authorization": f"Basic {packed}"}

    def have_changed(self) -> bool:
        """Whether the file is another one than at the last ``headers``."""
        return self._file is not None and _state_of(self._file) != self._seen

    def redact(self, text: str) -> str:
        """The text without the credentials: some servers echo a request in their answer."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "***")
        return text


def _state_of(path: Path) -> _FileState | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return _FileState(facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _read(path: Path) -> str:
    try:
        # O_NONBLOCK: a FIFO in its place must not hold us up.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("utf-8", errors="replace").strip()
    except OSError as exc:
        raise Unauthorized(f"{path}: {exc.strerror or exc}") from exc
