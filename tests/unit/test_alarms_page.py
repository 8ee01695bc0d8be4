"""docs/alarms.md shows every alarm, in the words and with the keys that the program has today."""

from __future__ import annotations

import ast
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.alarms import conditions, hook, rounds
from dicomwatchd.alarms.conditions import CertificateFile
from dicomwatchd.alarms.kinds import Kind
from dicomwatchd.queue.alarms import KeptAlarm
from tests import alarms_page
from tests.alarms_page import SITUATIONS
from tests.synthetic import Patient
from tests.system.alarmed import MARKER

TEXT = alarms_page.PAGE.read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"(?ms)^```\w+\n(.*?)\n```$", text)


def told(kind: Kind) -> tuple[dict[str, Any], str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Begun in the journal, the line of `status`, its document, begun for the command, ended in the journal, ended for
    the command."""
    section = TEXT.partition(f"\n## {kind.value}\n")[2].partition("\n## ")[0]
    begun, status, document, line, over, line_of_end = blocks(section)
    return (json.loads(begun), status, *(json.loads(one) for one in (document, line, over, line_of_end)))


def templates() -> list[str]:
    """Every sentence of an alarm, as an expression."""
    found = []
    for node in ast.walk(ast.parse(Path(str(conditions.__file__)).read_text())):
        if isinstance(node, ast.JoinedStr):
            pieces = [piece.value if isinstance(piece, ast.Constant) else "{}" for piece in node.values]
            found.append("".join(map(str, pieces)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    found += [
        conditions._ending(CertificateFile(whose, "x", Path(), is_shown), end, 86400.0).template
        for whose in ("receiver", "destination", "archive")
        for is_shown in (True, False)
        for end in (0.0, 3 * 86400.0)
    ]
    return [re.sub(r"\\{.*?\\}", ".+", re.escape(one)) for one in found if one.count(" ") > 3 and "\n" not in one]


def test_it_has_every_alarm_and_the_page_is_linked() -> None:
    assert set(SITUATIONS) == set(Kind), "run scripts/pictures alarms"
    sections = re.findall(r"(?m)^## (.+)$", TEXT)
    assert sections == ["What the command is run with", *(kind.value for kind in SITUATIONS)]
    assert TEXT.startswith(alarms_page.HEAD)
    operations = (alarms_page.PAGE.parent / "operations.md").read_text()
    assert "(alarms.md)" in operations
    for kind, situation in SITUATIONS.items():
        assert f"{situation} What to do: {alarms_page._link(kind)}." in TEXT


def test_the_command_gets_the_environment_of_the_hook_and_no_other() -> None:
    arguments, *environment = blocks(TEXT)[0].splitlines()
    assert arguments == "arguments: radiology"
    assert dict(line.split("=", 1) for line in environment) == hook._ENVIRONMENT


@pytest.mark.parametrize("kind", list(Kind))
def test_each_is_told_as_the_program_tells_it_today(kind: Kind) -> None:
    begun, status, document, line, over, line_of_end = told(kind)
    sentence = line["sentence"]
    assert any(re.fullmatch(template, sentence) for template in templates()), f"no sentence of today's: {sentence}"

    def seconds(of: str) -> float:
        return datetime.fromisoformat(of).timestamp()

    kept = KeptAlarm(1, kind.value, line["subject"], sentence, seconds(line["begun_at"]), None, 0)
    assert [json.loads(one) for one in rounds._lines([kept])] == [line]
    at_end = line_of_end["sentence"]
    ended = KeptAlarm(
        1, kind.value, line["subject"], at_end, seconds(line["begun_at"]), seconds(line_of_end["ended_at"]), 1
    )
    assert [json.loads(one) for one in rounds._lines([ended])] == [line_of_end]
    assert document == rounds._document(
        KeptAlarm(1, kind.value, line["subject"], document["sentence"], kept.begun_at, None, 1)
    )
    assert status == f"Alarm since {document['begun_at']}: {document['sentence']}; see {document['read_on']}"
    assert (begun["event"], begun["level"], begun["alarm"]) == ("alarm-begun", "WARNING", kind.value)
    assert begun["message"] == f"alarm: {begun['sentence']}"
    assert (over["event"], over["level"], over["alarm"]) == ("alarm-ended", "INFO", kind.value)
    assert over["message"] == f"the alarm {kind.value} is over" and over["open_seconds"] >= 0
    assert {name: begun.get(name) for name in rounds._NAMES} == {name: over.get(name) for name in rounds._NAMES}


def test_a_sentence_that_the_program_has_not_would_be_noticed() -> None:
    assert not any(re.fullmatch(one, "a study has been held for 96 hours, alas") for one in templates())


def test_it_names_no_patient_and_no_path() -> None:
    patient = Patient()
    for word in (MARKER, patient.name, patient.patient_id, "DOE", "ROE", "/tmp", "/work", "127.0.0.1"):
        assert word not in TEXT
