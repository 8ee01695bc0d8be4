"""docs/schema: one schema for each command that has --json, valid, strict, and with every key described."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dicomwatchd.alarms.kinds import Kind
from dicomwatchd.archive.documents import LEFT_OUT
from dicomwatchd.archive.layout.lineage import DISPUTED
from dicomwatchd.archive.layout.manifest import DAMAGED_INSTANCES
from dicomwatchd.archive.proof.evidence import Method
from dicomwatchd.archive.proof.verification import _WORDS
from dicomwatchd.model import LIMITED, FileState, StudyEvent, StudyState
from dicomwatchd.patients import IDENTITIES_LIMITED, ORDERS_LIMITED
from dicomwatchd.queue.rows import DAMAGED, EXCHANGED, EXPIRING, HELD, NO_LEASE, NO_RIGHT, OWN_OBJECT
from dicomwatchd.queue.shipments import UNREADABLE_BESIDE
from dicomwatchd.upload_result import CANCELLED, FINISHED, GONE
from tests import schemas

NAMES = sorted(path.stem for path in schemas.FOLDER.iterdir())
#: Keywords below which a schema says what else holds, and describes nothing.
_CONDITIONS = {"if", "then", "else"}


def parts(schema: Any, path: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within this one."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, value in schema.items():
        if keyword in ("properties", "$defs"):
            for name, part in value.items():
                yield from parts(part, f"{path}.{name}")
        elif keyword in ("items", "additionalProperties"):
            yield from parts(value, f"{path}[]")
        elif keyword == "anyOf":
            for part in value:
                yield from parts(part, path)


def at(name: str, *path: str) -> Any:
    found: Any = schemas.schema(name)
    for key in path:
        found = found[key]
    return found


def test_every_command_with_json_has_a_schema_and_every_schema_a_command() -> None:
    assert set(NAMES) == schemas.with_json()
    assert {"status", "upload", "upload-list", "archive-init"} <= set(NAMES), "groups and what is below them"


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_says_what_it_is_of(name: str) -> None:
    schema = schemas.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"dicomwatchctl {name.replace('-', ' ')}"
    assert schema["description"].startswith(f"What `dicomwatchctl {name.replace('-', ' ')}")


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_described(name: str) -> None:
    """In a sentence; a number of seconds or bytes with its unit."""
    schema = schemas.schema(name)
    for path, part in parts(schema):
        for key, described in part.get("properties", {}).items():
            text = described.get("description", "")
            assert text.endswith(".") and len(text) > 10, f"{path}.{key}"
            for unit in ("seconds", "bytes"):
                if (key == unit or key.endswith(f"_{unit}")) and described.get("type") != "array":
                    assert unit in text.lower(), f"{path}.{key}: {unit}"


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_no_schema_has_is_noticed(name: str) -> None:
    """An object has fixed keys, of which each that is always there is required, or names of the site's own. DICOM
    attributes are as PS3.18 has them."""
    schema = schemas.schema(name)
    for path, part in parts(schema):
        if part.get("type") != "object" or path.startswith("$.attributes"):
            continue
        if "properties" in part:
            assert part["additionalProperties"] is False, path
            assert set(part["required"]) <= set(part["properties"]), path
        else:
            assert isinstance(part["additionalProperties"], dict), path


@pytest.mark.parametrize("name", NAMES)
def test_everything_refers_to_what_is_there(name: str) -> None:
    schema = schemas.schema(name)
    used = {part["$ref"] for _, part in parts(schema) if "$ref" in part}
    assert used == {f"#/$defs/{one}" for one in schema.get("$defs", {})}


def test_what_several_schemas_define_is_the_same_in_all() -> None:
    known: dict[str, Any] = {}
    for name in NAMES:
        for defined, schema in schemas.schema(name).get("$defs", {}).items():
            assert known.setdefault(defined, schema) == schema, f"{defined} in {name}"
    uploads = [{**schemas.schema(name), "title": "", "description": ""} for name in NAMES if name.startswith("upload")]
    assert sum(one == uploads[0] for one in uploads) == 3, "upload, upload show and upload cancel print the same"


def values(of: type[StrEnum]) -> list[str]:
    return [one.value for one in of]


def test_lists_of_values_are_those_of_the_program() -> None:
    """So a new one comes with its description."""
    studies, files = values(StudyState), values(FileState)
    show = schemas.schema("show")
    assert show["$defs"]["study_state"]["enum"] == studies
    assert list(at("status", "properties", "studies", "properties")) == studies
    queued = at("queue", "properties", "studies", "items", "properties", "state", "enum")
    assert queued == [state for state in studies if state != "archived"]
    assert list(show["$defs"]["file_counts"]["properties"]) == files
    [local] = [one for one in at("show", "properties", "local", "anyOf") if one["type"] == "object"]
    event = local["properties"]["history"]["items"]["properties"]["event"]
    assert event["enum"] == values(StudyEvent)
    code = local["properties"]["kept"]["items"]["properties"]["code"]
    assert set(code["enum"]) == {NO_LEASE, EXPIRING, OWN_OBJECT, NO_RIGHT, EXCHANGED, HELD, DAMAGED}
    flags = {LIMITED, IDENTITIES_LIMITED, ORDERS_LIMITED, DISPUTED, LEFT_OUT, DAMAGED_INSTANCES, UNREADABLE_BESIDE}
    assert flags <= set(show["$defs"]["flags"]["items"]["enum"])
    alarm = at("status", "properties", "alarms", "items", "properties", "alarm")
    assert alarm["enum"] == values(Kind) and all(f"{value}: " in alarm["description"] for value in alarm["enum"])
    problem = at("verify", "properties", "problems", "items", "properties", "problem")
    assert problem["enum"] == list(_WORDS)
    proof = at("prove", "properties", "files", "items", "properties", "proof", "properties")
    assert proof["verified_by"]["enum"] == values(Method)
    outcome = at("upload", "properties", "outcome")
    assert outcome["enum"] == [None, FINISHED, CANCELLED, GONE]
    for listed in (show["$defs"]["study_state"], event, code, problem, proof["verified_by"]):
        assert all(f"{value}: " in listed["description"] for value in listed["enum"])


def test_an_answer_is_checked() -> None:
    good = {"config": "/etc/dicomwatchd/config.yaml", "ok": True, "problems": [], "not_responding": []}
    schemas.check("config-check", good)
    for bad in ({**good, "more": 1}, {**good, "ok": "yes"}, {key: good[key] for key in ("config", "ok")}):
        with pytest.raises(AssertionError, match=r"docs/schema/config-check\.json"):
            schemas.check("config-check", bad)
    for arguments, name in (
        (("status", "--json"), "status"),
        (("upload", "--delete", "--json", "/folder"), "upload"),
        (("upload", "list", "--json"), "upload-list"),
        (("config", "check", "--json"), "config-check"),
    ):
        assert schemas.name_of(arguments) == name
    with pytest.raises(AssertionError, match="without an answer"):
        schemas.check_output(("status", "--json"), "", 0)
    schemas.check_output(("status", "--json"), "", 4)
