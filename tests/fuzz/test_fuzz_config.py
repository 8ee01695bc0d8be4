"""Configurations with anything in any place: they are good, or every problem is told in our words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicomwatchd.config.loading import load, parse
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError
from tests.fuzz.test_fuzz_names import NASTY, _places, _put

GOOD: dict[str, Any] = {
    "archive": {
        "store": {
            "kind": "s3",
            "bucket": "images",
            "prefix": "radiology/",
            "endpoint_url": "https://s3.example.com:9000",
            "region": "eu-central-1",
            "encryption": {"mode": "aws:kms", "key_id": "key"},
        },
        "catalogue": {
            "kind": "dynamodb",
            "table": "studies",
            "insecure_http": True,
            "endpoint_url": "http://localhost",
        },
    },
    "state_directory": "/var/lib/dicomwatchd",
    "workers": 8,
    "scan_interval_seconds": 60,
    "log_level": "INFO",
    "bandwidth": {"default": "50MB/s", "Mon-Fri 08:00-18:00": "10MB/s", "Sat,Sun": "unlimited"},
    "inboxes": [
        {"name": "ct1", "path": "/srv/ct1", "settle_seconds": 2, "quiet_seconds": 60, "after_archive": "delete"},
        {"name": "mr1", "path": "/srv/mr1", "watch": "poll", "after_archive": {"delete_after": "7d"}, "include": ["*"]},
        {
            "name": "us1",
            "path": "/srv/us1",
            "after_archive": {"delete_after": "7d", "disk_free_min": "10%", "disk_free_goal": "20%"},
        },
    ],
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary(max_size=5) | NASTY
VALUES = st.recursive(
    SCALARS
    | st.sampled_from(["s3", "/", "/srv/ct1", "/srv", "~", "1d", "999999999999w", "9" * 5000 + "d", "http://x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def only_our_errors(data: Any, *, folders: bool = True) -> None:
    if folders:
        only_our_errors(data, folders=False)
    try:
        config = parse(data, source="x", folders=folders)
    except ConfigError as error:
        problems = error.problems
    else:
        assert isinstance(config, Config)
        assert config.socket_path.is_absolute()
        return
    assert problems
    for where, why in problems:
        assert isinstance(where, str)
        assert why
        assert "pydantic" not in why


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/" + "x/" * 3000, "/proc/1/mem/x", "/\ud800", "/\0"])
def test_a_folder_that_cannot_be_looked_at(path: str) -> None:
    for place in (("state_directory",), ("inboxes", 0, "path"), ("archive", "store", "ca_file")):
        changed = copy.deepcopy(GOOD)
        _put(changed, place, path)
        only_our_errors(changed)


def test_the_good_one_is_good() -> None:
    assert isinstance(parse(GOOD), Config)


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_anything_in_any_place(data: st.DataObject) -> None:
    changed = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(changed)))
        _put(changed, place, data.draw(VALUES))
    only_our_errors(changed)


@given(st.data(), NASTY | st.integers(), VALUES)
@settings(max_examples=200, deadline=None)
def test_another_key_in_any_place(data: st.DataObject, key: Any, value: Any) -> None:
    changed = copy.deepcopy(GOOD)
    mappings = [changed, *(found for place in _places(changed) if isinstance(found := _at(changed, place), dict))]
    data.draw(st.sampled_from(mappings))[key] = value
    only_our_errors(changed)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_something_else_altogether(value: Any) -> None:
    only_our_errors(value)


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace")))
@example(yaml.safe_dump(GOOD).encode())
@example(b"a: &a [*a]")
@example(b"a: &a {b: *a}")
@example(b"[" * 5000)
@example(b"\xff\xfe\x00")
@example(b"? [a]\n: b")
@example(b"!!python/object/apply:os.system ['true']")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    loaded_or_refused(path)


def loaded_or_refused(path: Path) -> None:
    try:
        assert isinstance(load(path), Config)
    except ConfigError as error:
        assert error.problems  # noqa: PT017


@pytest.mark.parametrize("cut", range(0, len(yaml.safe_dump(GOOD)), 7))
def test_a_file_that_was_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(GOOD)[:cut])
    loaded_or_refused(path)


def _at(root: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        root = root[key]
    return root
