"""Who may read of a folder what the kernel has in memory, and who has to read the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dicomwatchd
from dicomwatchd.archive import factory
from dicomwatchd.config.archive import DirectorySettings


@pytest.mark.parametrize("from_memory", [False, True])
def test_the_kernel_is_told_to_forget_unless_nothing_is_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_memory: bool
) -> None:
    settings = DirectorySettings(kind="directory", path=tmp_path / "archive")
    factory.open_store(settings, connections=1).initialise()
    (tmp_path / "archive" / "object").write_bytes(b"content")
    told: list[int] = []
    advise = os.posix_fadvise

    def watched(fd: int, offset: int, length: int, advice: int) -> None:
        told.append(advice)
        advise(fd, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    with factory.opened(settings, None, connections=1, from_memory=from_memory) as (store, _):
        assert b"".join(store.read("object")) == b"content"
    assert told == ([] if from_memory else [os.POSIX_FADV_DONTNEED])


def test_nobody_reads_so_but_who_shows_images() -> None:
    """A deletion is proved by what is on the device."""
    root = Path(dicomwatchd.__file__).parent
    asking = [path for path in root.rglob("*.py") if "from_memory=True" in path.read_text("utf-8")]
    assert asking == [root / "web" / "process.py"]
