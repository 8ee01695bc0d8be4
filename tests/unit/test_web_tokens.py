"""Tokens: hashes in a file, that count at once and end at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dicomwatchd.access.tokens import FILE_NAME, PREFIX, TokenFile, Tokens
from dicomwatchd.errors import Permanent, StateFailed
from tests.pieces import FakeClock


def known(folder: Path, clock: FakeClock, told: list[StateFailed] | None = None) -> Tokens:
    return Tokens(folder, clock.now, (told if told is not None else []).append)


def test_a_token_counts_at_once_and_until_it_is_revoked(tmp_path: Path) -> None:
    clock = FakeClock()
    tokens, file = known(tmp_path, clock), TokenFile(tmp_path)
    assert tokens.named_by(PREFIX) is None
    text = file.add("ct", ["read", "upload"], clock.now(), None)
    found = tokens.named_by(text)
    assert found is not None and (found.name, found.roles) == ("ct", ("read", "upload"))
    assert tokens.holding(found.sha256) == found
    assert [tokens.named_by(wrong) for wrong in ("", PREFIX, text[:-1], text + "x", found.sha256)] == [None] * 5
    assert tokens.holding("0" * 64) is None
    assert file.revoke("ct") and not file.revoke("ct")
    assert tokens.named_by(text) is None and tokens.holding(found.sha256) is None


def test_a_token_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    text = TokenFile(tmp_path).add("ct", ["read"], clock.now(), clock.now() + 60)
    tokens = known(tmp_path, clock)
    found = tokens.named_by(text)
    assert found is not None
    clock.advance(61)
    assert tokens.named_by(text) is None and tokens.holding(found.sha256) is None


def test_the_file_holds_no_token_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    text = TokenFile(tmp_path).add("ct", ["read"], 0, None)
    path = tmp_path / FILE_NAME
    assert text.startswith(PREFIX) and len(text) > 50
    assert text not in path.read_text() and text.removeprefix(PREFIX) not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_the_file_is_whole_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(name: str, other: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        done.append("name")
        rename(name, other, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    TokenFile(tmp_path).add("ct", ["read"], 0, None)
    assert done == ["file", "name", "folder"]


def test_a_name_is_given_once(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    file.add("ct", ["read"], 0, None)
    with pytest.raises(Permanent):
        file.add("ct", ["administrate"], 0, None)
    for name in ("", "a b", "../x", "x" * 64, "ä", "a\n"):
        with pytest.raises(Permanent):
            file.add(name, ["read"], 0, None)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"format": 2, "tokens": []}', '{"format": 1, "tokens": [{}]}', '{"format": 1, "tokens": 7}', "\xff"],
)
def test_a_file_that_cannot_be_read_lets_nobody_in_and_is_told_once(tmp_path: Path, content: str) -> None:
    text = TokenFile(tmp_path).add("ct", ["read"], 0, None)
    told: list[StateFailed] = []
    tokens = known(tmp_path, FakeClock(), told)
    assert tokens.named_by(text) is not None
    (tmp_path / FILE_NAME).write_text(content, encoding="latin-1")
    assert tokens.named_by(text) is None and tokens.named_by(text) is None
    assert len(told) == 1


def test_a_role_that_nobody_knows_is_no_role(tmp_path: Path) -> None:
    text = TokenFile(tmp_path).add("ct", ["read"], 0, None)
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text().replace('"read"', '"everything"'))
    assert known(tmp_path, FakeClock()).named_by(text) is None


def test_a_link_in_the_file_s_place_is_not_followed(tmp_path: Path) -> None:
    text = TokenFile(tmp_path).add("ct", ["read"], 0, None)
    os.rename(tmp_path / FILE_NAME, tmp_path / "elsewhere")
    (tmp_path / FILE_NAME).symlink_to("elsewhere")
    assert known(tmp_path, FakeClock()).named_by(text) is None
