"""The table of limits says what the program has: each number is compared with the constant that it stands for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.aws import limits as aws_limits
from dicomwatchd.archive.stores import budget, reading
from dicomwatchd.archive.stores.port import CHUNK_BYTES
from dicomwatchd.archive.stores.s3.multipart import SENDING_THREADS
from dicomwatchd.cli.disc import iso9660
from dicomwatchd.config.inboxes import MAX_FILE_BYTES
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.config.whole import Config
from dicomwatchd.control.server import LIMITS
from dicomwatchd.daemon.plan import ACTIVE_SHIPMENTS
from dicomwatchd.intake.dicom import attributes, dicomdir, opening, sizes, structure
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES
from dicomwatchd.model import SERIES_ATTRIBUTES_LIMIT_BYTES
from dicomwatchd.patients import IDENTITIES_LIMIT
from dicomwatchd.pipeline.slots import Slots
from dicomwatchd.pipeline.turns import LARGE_BYTES, RETRY_SECONDS
from dicomwatchd.prometheus import listener as prometheus_listener
from dicomwatchd.queue.dicomdirs import LIMIT_IMAGES_OF_SOURCE, LIMIT_LISTS_OF_STUDY
from dicomwatchd.receiver import association, dimse, listener, upper_layer
from dicomwatchd.uploads import reception

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
UNIT = (ROOT / "systemd" / "dicomwatchd.service").read_text()
MIB = 1024**2

#: Beginning of a row's name to what its limit says.
SAID: dict[str, list[float]] = {
    "data elements": [
        opening.ELEMENTS_FREE,
        opening.BYTES_FOR_AN_ELEMENT,
        opening.PACKED_BYTES_FOR_AN_ELEMENT,
        opening.ELEMENTS_LIMIT,
    ],
    "bytes a deflated": [opening.INFLATED_FREE_BYTES // MIB, opening.INFLATION_RATIO, INFLATED_LIMIT_BYTES // MIB],
    "nesting": [structure.DEPTH_LIMIT],
    "size of a file": [MAX_FILE_BYTES >> 30],
    "holes in a file": [sizes.STORED_PERCENT],
    "a value of": [attributes.VALUE_CHARACTERS, attributes.VALUES_LIMIT],
    "original bytes of a value": [attributes.RAW_LIMIT_BYTES],
    "attributes of a study": [SERIES_ATTRIBUTES_LIMIT_BYTES // MIB],
    "patients and orders": [IDENTITIES_LIMIT],
    "a manifest": [reading.MANIFEST_LIMIT_BYTES // MIB],
    "JSON values": [reading.VALUES_ALLOWED, reading.BYTES_PER_VALUE],
    "manifests of more": [1],
    "bytes of an object": [CHUNK_BYTES // MIB],
    "any other answer": [aws_limits.ANSWER_LIMIT_BYTES["s3"] // MIB, aws_limits.ANSWER_LIMIT_BYTES["dynamodb"] // MIB],
    "time for an answer": [deadlines.ANSWER_SECONDS, deadlines.BODY_BYTES_PER_SECOND],
    "connections to the control": [LIMITS.connections, LIMITS.by_user, LIMITS.own_connections],
    "uploads": [reception.MOST_UPLOADS, reception.MOST_OF_ONE],
    "a DICOMDIR": [dicomdir.LIMIT_BYTES // MIB, dicomdir.LIMIT_RECORDS, dicomdir.LIMIT_IMAGES],
    "lists of DICOMDIRs": [LIMIT_IMAGES_OF_SOURCE, LIMIT_LISTS_OF_STUDY],
    "the image of a disc": [
        iso9660.ENTRIES_LIMIT,
        iso9660.DEPTH_LIMIT,
        iso9660.DIRECTORIES_LIMIT_BYTES // MIB,
        iso9660.CONTENT_LIMIT,
    ],
    "descriptors": [],
    "lists asked for": [LIMITS.long_lines],
    "a request": [LIMITS.line_bytes, LIMITS.idle_seconds, LIMITS.send_seconds],
    "connections to the port": [
        prometheus_listener.LIMITS.connections,
        prometheus_listener.LIMITS.request_bytes,
        prometheus_listener.LIMITS.seconds,
    ],
    "connections to a receiver": [
        listener.WAITING_MOST,
        listener.WAITING_MOST_OF_ONE,
        listener.ASSOCIATE_WITHIN_SECONDS,
    ],
    "associations of a receiver": [Receiver.model_fields["max_associations"].default, 256],
    "the request for an association": [upper_layer.ASSOCIATE_MOST_BYTES // 1024, association._MOST_CONTEXTS],
    "a PDU that": [
        Receiver.model_fields["max_pdu_bytes"].default,
        upper_layer.SLACK_BYTES,
        Receiver.model_fields["idle_seconds"].default,
    ],
    "a command set": [dimse.COMMAND_MOST_BYTES // 1024],
    "memory": [int(UNIT.partition("MemoryMax=")[2].partition("G")[0])],
    "threads": [int(UNIT.partition("TasksMax=")[2].partition("\n")[0])],
}


def rows() -> dict[str, list[str]]:
    table = PAGE.partition("\n## Limits\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells[2:]}


@pytest.mark.parametrize("name", SAID)
def test_the_numbers_are_the_programs(name: str) -> None:
    [(limit, *_)] = [row for title, row in rows().items() if title.startswith(name)]
    numbers = [float(digits) for digits in re.findall(r"(?<![A-Za-z_0-9])[0-9]+(?![a-z_0-9])|[0-9]+(?=G)", limit)]
    assert [number for number in numbers if number in SAID[name]] == SAID[name], limit


def test_each_row_is_compared_and_names_a_test_that_exists() -> None:
    found = rows()
    assert len(found) == len(SAID)
    for title, row in found.items():
        assert any(title.startswith(name) for name in SAID), title
        assert len(row) == 4, title
        file, _, name = row[-1].strip("`").partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), row[-1]


def test_text_of_a_name_or_a_description_is_never_longer_than_ps3_5_says() -> None:
    assert attributes._TEXT_CHARACTERS == {"LO": 64, "PN": 64, "SH": 64}
    texts = {kind[:2] for tags in (attributes.STUDY_TAGS, attributes.SERIES_TAGS) for kind in tags.values()}
    assert texts <= attributes._TEXT_CHARACTERS.keys() | {"DA", "TM", "CS", "AS", "DS", "IS", "UI"}


def test_the_unit_has_room_for_all_of_it() -> None:
    """The sums of the page, from the numbers of the program."""
    workers = 256
    shipments = Slots(ACTIVE_SHIPMENTS, lambda: 0.0).most
    threads = LIMITS.connections + LIMITS.own_connections + workers + shipments + SENDING_THREADS + 16 * 4 + 20
    threads += 2 * reception.MOST_UPLOADS
    assert shipments == 26
    assert threads < 600
    assert (SAID["threads"][0] - threads) // workers == 13
    times = 6.5  # of its size, what a manifest takes
    megabytes = (
        100
        + threads * 0.2
        + budget.BUDGET_BYTES / MIB
        + workers * CHUNK_BYTES / MIB
        + shipments * times * LARGE_BYTES / MIB
        + times * reading.MANIFEST_LIMIT_BYTES / MIB
    )
    assert 2600 < megabytes < 2800
    assert megabytes * 1.3 < SAID["memory"][0] * 1024
    assert f"{RETRY_SECONDS:.0f} s for its turn" in PAGE
    assert Config.model_fields["workers"].default == workers
