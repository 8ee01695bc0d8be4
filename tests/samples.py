"""The files that pydicom brings along: what is known of each, what the program says of it, and a page with both.

`scripts/dicom-outcomes` writes docs/dicom-outcomes.md by this; tests/unit/test_dicom_outcomes.py compares.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_description
from pydicom.uid import UID

from dicomwatchd.errors import NotDicom, Unarchivable
from dicomwatchd.intake.dicom.decoding import UNKNOWN_TERM, character_set
from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header
from dicomwatchd.intake.dicom.verdict import Completeness, Damaged, Verdict

FOLDER = Path(pydicom.__file__).parent / "data"
PAGE = Path(__file__).parents[1] / "docs" / "dicom-outcomes.md"
#: pydicom's own modules and lists of downloads.
NO_SAMPLES = (".py", ".pyc", ".json")

#: Cut off on purpose, as their names and pydicom's README say.
CUT = frozenset({"MR_truncated.dcm", "rtplan_truncated.dcm"})
NO_PIXELS = "the data set ends before the Pixel Data that its class requires"
NO_STRUCTURES = "the data set ends before the Referenced Structure Set Sequence that its class requires"
#: Made with a header alone, without what their class requires. A file that was cut there looks the same. Those of
#: character sets and of the small medium are for reading names and directories.
HEADER_ALONE = {
    "chrJapMulti.dcm": NO_PIXELS,
    "chrJapMultiExplicitIR6.dcm": NO_PIXELS,
    "chrKoreanMulti.dcm": NO_PIXELS,
    "chrSQEncoding.dcm": NO_PIXELS,
    "chrSQEncoding1.dcm": NO_PIXELS,
    "UN_sequence.dcm": NO_PIXELS,
    "no_meta_group_length.dcm": NO_PIXELS,
    "priv_SQ.dcm": NO_PIXELS,
    "ExplVR_BigEndNoMeta.dcm": NO_STRUCTURES,
    "ExplVR_LitEndNoMeta.dcm": NO_STRUCTURES,
}
#: Of no study: a UID that the archive goes by is missing. So are the colour palettes.
NO_UID = frozenset(
    {
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
        "empty_charset_LEI.dcm",
        "meta_missing_tsyntax.dcm",
        "nested_priv_SQ.dcm",
    }
)
NOT_DICOM = frozenset(
    {
        "FileInfo.txt",
        "README",
        "README.md",
        "README.txt",
        "crayons.icc",
        "no_meta.dcm",  # a space stands before its first element
        "rtplan.dump",
        "rtstruct.dump",
        "zipMR.gz",
    }
)
#: Eight bytes stand behind its deflated data set that do not belong to it: without them it is still whole.
MORE_THAN_A_DATA_SET = {"image_dfl.dcm": 8}


class Kind(StrEnum):
    """What somebody who has looked at a file knows of it."""

    SOUND = "sound"
    CUT = "cut off on purpose"
    HEADER_ALONE = "a header without its content"
    NO_UID = "without the UIDs of a study"
    DICOMDIR = "a DICOMDIR"
    NOT_DICOM = "not DICOM"


def kind_of(path: Path) -> Kind:
    """By hand. What is in no list is sound."""
    if path.name.startswith("DICOMDIR"):
        return Kind.DICOMDIR
    if path.name in NOT_DICOM:
        return Kind.NOT_DICOM
    if path.name in CUT:
        return Kind.CUT
    if path.name in HEADER_ALONE or ("TINY_ALPHA" in path.parts and path.name.startswith("IM")):
        return Kind.HEADER_ALONE
    if path.name in NO_UID or "palettes" in path.parts:
        return Kind.NO_UID
    return Kind.SOUND


def samples() -> list[Path]:
    return [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.suffix not in NO_SAMPLES]


class Answer(StrEnum):
    """What the daemon makes of a file."""

    WHOLE = "whole"
    CANNOT_TELL = "cannot tell"
    DAMAGED = "damaged"  # and archived as such
    QUARANTINED = "quarantined"
    DICOMDIR = "DICOMDIR"
    NOT_DICOM = "not DICOM"


@dataclass(frozen=True)
class Outcome:
    answer: Answer
    code: str = ""  # in quarantine
    verdict: Verdict | None = None
    header: Header | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        if self.answer is Answer.QUARANTINED:
            return f"quarantined, `{self.code}`: {self.reason}"
        return f"{self.answer}: {self.reason}" if self.reason else str(self.answer)


def outcome_of(content: bytes) -> Outcome:
    """As `intake.take` decides it: a damaged file that says whose it is is archived, one that does not is not."""
    fd = os.memfd_create("sample")
    try:
        os.write(fd, content)
        header = read_header(fd, len(content))
    except Damaged as error:
        answer = Answer.QUARANTINED if error.header is None else Answer.DAMAGED
        return Outcome(answer, error.code, error.verdict, error.header, error.verdict.text)
    except NotDicom as error:
        return Outcome(Answer.NOT_DICOM, error.code)
    except Unarchivable as error:
        return Outcome(Answer.QUARANTINED, error.code, reason=error.message)
    finally:
        os.close(fd)
    if isinstance(header, Dicomdir):
        return Outcome(Answer.DICOMDIR)
    is_whole = header.verdict.completeness is Completeness.WHOLE
    answer = Answer.WHOLE if is_whole else Answer.CANNOT_TELL
    return Outcome(answer, "", header.verdict, header, header.verdict.text)


def outcomes() -> dict[Path, Outcome]:
    return {path: outcome_of(path.read_bytes()) for path in samples()}


def cuts(content: bytes) -> Iterator[int]:
    """Lengths to cut a file to: 31 over all of it, and within its last element."""
    size = len(content)
    yield from sorted({size * part // 32 for part in range(1, 32)} | {size - few for few in (1, 2, 4, 8)})


def outcomes_of_cuts(path: Path) -> list[tuple[int, Outcome]]:
    """Of a sound file, cut anywhere before the end of its data set."""
    content = path.read_bytes()
    content = content[: len(content) - MORE_THAN_A_DATA_SET.get(path.name, 0)]
    return [(length, outcome_of(content[:length])) for length in cuts(content)]


# -- the page ----------------------------------------------------------------------------------------------------


def page() -> str:
    found = outcomes()
    sound = [path for path in found if kind_of(path) is Kind.SOUND]
    of_cuts = Counter(one.answer for path in sound for _, one in outcomes_of_cuts(path))
    wrong = sum(found[path].answer in (Answer.DAMAGED, Answer.QUARANTINED) for path in sound)
    unseen = sum(found[path].answer is Answer.WHOLE for path in found if kind_of(path) in (Kind.CUT, Kind.HEADER_ALONE))
    in_doubt = sum(bool(_doubts(one.header)) for one in found.values() if one.header is not None)
    named = sum(bool(_names(one.header)) for one in found.values() if one.header is not None)
    lines = [
        "# What the program says of pydicom's sample files",
        "",
        "Written by `.venv/bin/python scripts/dicom-outcomes`; a test compares it with what the program says now.",
        f"The files are those that pydicom {pydicom.__version__} has in its package, below `pydicom/data`: all but its",
        "own modules and lists. Those that pydicom downloads when they are asked for are not among them.",
        "",
        "What the verdicts mean, and what to do: [dicom.md](dicom.md).",
        "",
        "## In figures",
        "",
        f"- {len(found)} files, of which {len(sound)} are sound. **Sound files called damaged, or kept in quarantine:"
        f" {wrong}.**",
        f"- Of {_count(found, Kind.CUT)} files cut off on purpose, and {_count(found, Kind.HEADER_ALONE)} that have a"
        f" header and no content, **called whole: {unseen}.**",
        f"- Each sound file was also cut at up to 35 places: {of_cuts.total():,} files, of which"
        f" {of_cuts[Answer.DAMAGED]:,} are archived as damaged, {of_cuts[Answer.QUARANTINED]:,} are in quarantine"
        f" (cut before their UIDs), and {of_cuts[Answer.NOT_DICOM]} are not DICOM (cut within the first 132 bytes)."
        f" **Called whole: {of_cuts[Answer.WHOLE]}, cannot tell: {of_cuts[Answer.CANNOT_TELL]}.**",
        f"- {named} files have a patient's name that can be read. **Names that had to be guessed: {in_doubt}.**",
        "",
        "What is known of the files, looked at one by one, against what the program says:",
        "",
        "| known | " + " | ".join(Answer) + " | all |",
        "|---|" + "--:|" * (len(Answer) + 1),
        *(_figures(found, kind) for kind in Kind),
        "",
        "Files with a header and no content are called damaged because one that was cut there looks the same: pixels,",
        "or what else its class requires, are missing.",
        "",
    ]
    folder = ""
    for path, one in found.items():
        relative = path.relative_to(FOLDER)
        if relative.parent.as_posix() != folder:
            folder = relative.parent.as_posix()
            lines += [
                f"## {folder}",
                "",
                "| file | kind of object | transfer syntax | verdict | character set | patient's name |",
                "|---|---|---|---|---|---|",
            ]
        lines.append(f"| {_cell(relative.name)} | " + " | ".join(_cells(one)) + " |")
        if not any(other.parent == path.parent and other > path for other in found):
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _count(found: dict[Path, Outcome], kind: Kind) -> int:
    return sum(kind_of(path) is kind for path in found)


def _figures(found: dict[Path, Outcome], kind: Kind) -> str:
    counted = Counter(one.answer for path, one in found.items() if kind_of(path) is kind)
    return f"| {kind} | " + " | ".join(str(counted[answer] or "") for answer in Answer) + f" | {counted.total()} |"


def _cells(one: Outcome) -> list[str]:
    header = one.header
    if header is None:
        return ["", "", _escaped(one.text), "", ""]
    syntax = header.instance.transfer_syntax_uid
    return [
        UID(header.instance.sop_class_uid).name,
        UID(syntax).name if syntax else "not known",
        _escaped(one.text),
        character_set_of(header),
        _cell(_names(header)),
    ]


def character_set_of(header: Header) -> str:
    """What the file declares and what became of it, in Markdown."""
    raw = header._values.get(0x00080005, b"").rstrip(b" \0")
    notes = character_set(raw).notes
    parts = [f"declared {_cell(raw.decode('latin_1'))}" if raw else "none declared"]
    if UNKNOWN_TERM in notes:
        parts.append("an unknown term")
    parts += [note.removeprefix("character set: ") for note in notes if note != UNKNOWN_TERM]
    parts += _doubts(header)
    return "; ".join(parts)


def _doubts(header: Header) -> list[str]:
    found = {**header.study_attributes, **header.series_attributes}
    return [
        f"{dictionary_description(int(tag, 16))} read as {one['charset']} ({one['charset_by']})"
        for tag, one in found.items()
        if "charset" in one
    ]


def _names(header: Header) -> str:
    """The groups of Patient's Name, as they are written in a file."""
    values: Any = header.study_attributes.get("00100010", {}).get("Value", [{}])
    (groups,) = values
    return "=".join(groups.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _cell(text: str) -> str:
    return f"`{_escaped(text)}`" if text else ""
