"""Credentials: where they come from, and that they go nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gprof_lite.delivery.sinks.credentials import TOKEN_VARIABLE, Credentials
from gprof_lite.errors import ConfigError, Unauthorized

SECRET = "s3cr3t-t0ken"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    return path


def test_without_credentials_there_is_no_header() -> None:
    assert Credentials().headers() == {}
    assert not Credentials().are_given


def test_token_from_a_file(token_file: Path) -> None:
    assert Credentials(token_file=token_file).headers() == {"Authorization": f"Bearer {SECRET}"}


def test_token_from_the_environment() -> None:
    assert Credentials(environment={TOKEN_VARIABLE: SECRET}).headers() == {"Authorization": f"Bearer {SECRET}"}


def test_user_and_password_from_a_file(tmp_path: Path) -> None:
    # GIVEN the example of RFC 7617 section 2
    (tmp_path / "basic").write_text("Aladdin:open sesame\n")
    # WHEN / THEN
    headers = Credentials(basic_auth_file=tmp_path / "basic").headers()
    assert headers == {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}


def test_a_renewed_token_is_used(token_file: Path) -> None:
    # GIVEN
    credentials = Credentials(token_file=token_file)
    credentials.headers()
    assert not credentials.have_changed()
    # WHEN it is replaced, as secret managers do
    other = token_file.with_suffix(".new")
    other.write_text("another")
    os.replace(other, token_file)
    # THEN
    assert credentials.have_changed()
    assert credentials.headers() == {"Authorization": "Bearer another"}


def test_a_missing_file_is_a_matter_of_credentials(tmp_path: Path) -> None:
    # GIVEN
    credentials = Credentials(token_file=tmp_path / "token")
    with pytest.raises(Unauthorized):
        credentials.headers()
    # WHEN it appears
    (tmp_path / "token").write_text(SECRET)
    # THEN
    assert credentials.have_changed()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{SECRET}\nX-Evil: 1", id="two-lines"),
        pytest.param(f"{SECRET} {SECRET}", id="two-words"),
        pytest.param(f"{SECRET}\N{LATIN SMALL LETTER E WITH ACUTE}", id="not-ascii"),
    ],
)
def test_what_is_no_token_is_refused_without_being_shown(token_file: Path, content: str) -> None:
    # GIVEN
    token_file.write_text(content)
    # WHEN
    with pytest.raises(Unauthorized) as refusal:
        Credentials(token_file=token_file).headers()
    # THEN
    assert SECRET not in str(refusal.value)


def test_a_bad_token_in_the_environment_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refusal:
        Credentials(environment={TOKEN_VARIABLE: f"{SECRET}\nx"})
    assert SECRET not in str(refusal.value)


def test_two_kinds_at_once_are_refused(token_file: Path) -> None:
    with pytest.raises(ConfigError, match="server_basic_auth_file"):
        Credentials(token_file=token_file, basic_auth_file=token_file)


def test_repr_holds_no_secret() -> None:
    assert SECRET not in repr(Credentials(environment={TOKEN_VARIABLE: SECRET}))


def test_echoes_are_redacted(tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "basic").write_text("me:open sesame")
    credentials = Credentials(basic_auth_file=tmp_path / "basic")
    header = credentials.headers()["Authorization"]
    # WHEN / THEN
    assert credentials.redact(f"you sent {header} with open sesame") == "you sent Basic *** with ***"
