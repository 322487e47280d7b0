"""What the documents name exists: files, commands, flags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gprof_lite.cli.main import COMMANDS
from gprof_lite.cli.options import keys_of

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])
PLACES = (ROOT, ROOT / "gprof_lite", ROOT / "bench", ROOT / "docs")
# Flags of programs other than ours that the documents show.
FOREIGN_FLAGS = {"--strict"}


def exists(name: str, beside: Path) -> bool:
    if any((place / name).exists() for place in (*PLACES, beside)):
        return True
    return "/" not in name and any((ROOT / "gprof_lite").glob(f"**/{name}"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    names = re.findall(r"[\w./-]+/[\w.-]+\.(?:py|md|js|toml|txt|png)\b|`[\w-]+\.py`", document.read_text())
    links = re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text())

    missing = [name for name in (each.strip("`") for each in names) if not exists(name, document.parent)]
    assert missing == []
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_flag_of_ours_that_is_shown_is_taken(document: Path) -> None:
    flags: set[str] = set()
    for line in document.read_text().splitlines():
        if "gprof-lite" in line:
            flags |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line))
    ours = {"--help", "--version", "--config", "--data"}
    for command in COMMANDS:
        ours |= {"--" + key.replace("_", "-") for key in keys_of(command.option_classes)}

    assert flags - ours - FOREIGN_FLAGS == set()


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()

    assert [command.name for command in COMMANDS if f"gprof-lite {command.name}" not in text] == []
