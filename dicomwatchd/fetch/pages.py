"""INDEX.HTM and README.TXT of what is handed out (PS3.12; IHE PDI, RAD TF-2 4.47): what there is on the medium, for
whoever opens it without a DICOM viewer."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dicomwatchd import __version__
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.fetch.attributes import text
from dicomwatchd.fetch.report import FetchReport
from dicomwatchd.model import DicomJson, Uid

INDEX, README = "INDEX.HTM", "README.TXT"

_PATIENT_NAME, _PATIENT_ID, _BIRTH_DATE = "00100010", "00100020", "00100030"
_STUDY_DATE, _STUDY_DESCRIPTION, _ACCESSION = "00080020", "00081030", "00080050"
_MODALITY, _SERIES_DESCRIPTION, _SERIES_NUMBER, _INSTITUTION = "00080060", "0008103E", "00200011", "00080080"
_STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:60em}table{border-collapse:collapse}"
    "td,th{border:1px solid #999;padding:.3em .6em;text-align:left}.missing{border:2px solid #a00;padding:.5em}"
)


@dataclass(frozen=True, slots=True)
class OnMedium:
    """One study as it is on the medium: how many files of each series there are, and what has come of it."""

    manifest: Manifest
    files: Counter[Uid]
    report: FetchReport

    @property
    def missing(self) -> int:
        return self.report.files - sum(self.files.values())


def index_page(studies: Sequence[OnMedium], *, has_dicomdir: bool) -> bytes:
    """HTML without scripts, pictures or links that lead anywhere else. It names the patient."""
    parts = [_study(one) for one in studies]
    how = (
        "A DICOM viewer opens them by the file <b>DICOMDIR</b>."
        if has_dicomdir
        else "A DICOM viewer opens them by the folder <b>DICOM</b>."
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>DICOM images</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>DICOM images</h1>\n"
        f'<p>{how} See also <a href="{README}">{README}</a>.</p>\n' + "\n".join(parts) + "\n</body></html>\n"
    )
    return page.encode("utf-8", "xmlcharrefreplace")


def _study(one: OnMedium) -> str:
    of_study = one.manifest.attributes
    head = [
        ("Patient", _name(of_study)),
        ("Patient ID", text(of_study, _PATIENT_ID)),
        ("Born", _date(text(of_study, _BIRTH_DATE))),
        ("Study date", _date(text(of_study, _STUDY_DATE))),
        ("Description", text(of_study, _STUDY_DESCRIPTION)),
        ("Accession number", text(of_study, _ACCESSION)),
        ("Institution", _institution(one.manifest)),
        ("Study Instance UID", one.manifest.study_uid),
    ]
    rows = "".join(f"<tr><th>{name}</th><td>{_shown(value)}</td></tr>" for name, value in head if value)
    series = "".join(_series(one.manifest.series.get(uid, {}), count) for uid, count in sorted(one.files.items()))
    title = f"{_date(text(of_study, _STUDY_DATE)) or 'Study'} {text(of_study, _STUDY_DESCRIPTION)}"
    return (
        f"<h2>{_shown(title)}</h2>\n"
        f"<table>{rows}</table>\n{_lacking(one)}"
        f"<h3>Series</h3>\n<table><tr><th>No.</th><th>Modality</th><th>Description</th><th>Files</th></tr>{series}</table>"
    )


def _series(of_series: DicomJson, files: int) -> str:
    cells = [text(of_series, tag) for tag in (_SERIES_NUMBER, _MODALITY, _SERIES_DESCRIPTION)]
    return "<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in [*cells, f"{files:,}"]) + "</tr>"


def _lacking(one: OnMedium) -> str:
    if not one.missing:
        return ""
    return (
        f'<p class="missing"><b>Incomplete:</b> {one.missing:,} of {one.report.files:,} files are missing here.</p>\n'
    )


def _name(of_study: DicomJson) -> str:
    return " ".join(part for part in text(of_study, _PATIENT_NAME).split("^") if part.strip())


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value


def _institution(manifest: Manifest) -> str:
    return ", ".join(dict.fromkeys(name for one in manifest.series.values() if (name := text(one, _INSTITUTION))))


def _shown(value: str) -> str:
    """As a browser may get it: no markup, and nothing that turns the direction of text or is not seen."""
    unseen = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
    return escape("".join("\ufffd" if unicodedata.category(one) in unseen else one for one in value))


def readme(studies: Sequence[OnMedium], *, has_dicomdir: bool) -> bytes:
    """Plain ASCII with the line ends of every system; nothing of the patient."""
    files, missing = sum(sum(one.files.values()) for one in studies), sum(one.missing for one in studies)
    institutions = dict.fromkeys(name for one in studies if (name := _institution(one.manifest)))
    lines = [
        "DICOM IMAGES",
        "",
        f"Files: {files}, of {len(studies)} {'study' if len(studies) == 1 else 'studies'}.",
        *([f"INCOMPLETE: {missing} files of the archive are missing here."] if missing else []),
        "",
        "Institution that made the images: " + ("; ".join(map(_ascii, institutions)) or "not named in them"),
        f"Written by: dicomwatchd {__version__}, from an archive of DICOM files",
        "",
        "What is here",
        "  DICOMDIR    the list of the files, for DICOM viewers" if has_dicomdir else "",
        "  DICOM       the files: DICOM Part 10, byte for byte as they were archived",
        f"  {INDEX}   a page that lists studies and series, for a browser; it names the patient",
        "",
        "There is no viewer here. To see the images, open them with a DICOM viewer, or have them",
        "imported by a picture archive (PACS).",
        "",
        "Each file was compared with the SHA-256 that was recorded when it was archived. This says",
        "nothing of whether the images are suitable for a diagnosis: that depends on the programs",
        "and screens that show them.",
        "",
        "These files are confidential: they show and name a patient.",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _ascii(value: str) -> str:
    plain = unicodedata.normalize("NFKD", value)
    return "".join(
        one if one.isascii() and one.isprintable() else "?" for one in plain if not unicodedata.combining(one)
    )
