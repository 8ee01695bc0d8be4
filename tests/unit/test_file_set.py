"""A file-set: DCMTK, dicom3tools and pydicom read the DICOMDIR that is written here, and no byte of a file changes."""

from __future__ import annotations

import errno
import subprocess
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pycdlib
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.cli.disc.iso9660 import DiscImage
from dicomwatchd.errors import Permanent
from dicomwatchd.fetch.file_set.directory import Directory
from dicomwatchd.fetch.file_set.names import media_names
from dicomwatchd.fetch.file_set.record_types import LEAVES, record_type
from dicomwatchd.fetch.file_set.values import Said, fit, read
from dicomwatchd.fetch.file_set.writing import list_folder
from dicomwatchd.fetch.folder import Occupied
from dicomwatchd.fetch.iso import IsoWriter
from dicomwatchd.intake.dicom.dicomdir import read_dicomdir
from dicomwatchd.model import Uid
from tests import samples, tools
from tests.synthetic import Maker
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, instance
from tests.unit.test_cli_archive import Site, bare, elsewhere, fetched, site

__all__ = ["bare", "elsewhere", "site"]  # fixtures

CT = "1.2.840.10008.5.1.4.1.1.2"
SAMPLES = sorted(p for p in samples.FOLDER.glob("*_files/*") if p.is_file() and p.suffix not in samples.NO_SAMPLES)
YAMADA = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046"


def item_of(data: bytes, series: str = SERIES, sop: str = "1.2.1", **others: str) -> ManifestInstance:
    made = instance(Uid(series), sop, data)
    return replace(made, **others) if others else made  # type: ignore[arg-type]


def dataset(sop_class: str = CT, sop: str = "1.2.1", **values: Any) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID = sop_class, sop, STUDY, SERIES
    for name, value in values.items():
        setattr(data, name, value)
    return data


def encoded(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    data.file_meta = meta
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def said(tmp_path: Path, data: bytes, sop_class: str = CT) -> Said:
    path = tmp_path / "one"
    path.write_bytes(data)
    with path.open("rb") as file:
        return read(file, len(data), sop_class)


def written(tmp_path: Path, files: list[tuple[ManifestInstance, bytes]]) -> Path:
    """A folder with these files and their DICOMDIR."""
    folder = tmp_path / "medium"
    placed = media_names(item for item, _ in files)
    for (_, data), (_, path) in zip(files, placed, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    list_folder(STUDY, placed, folder)
    return folder


def check(folder: Path, files: int, private: int = 0) -> pydicom.Dataset:
    """By everybody who can; returns the DICOMDIR. Private records are no instances to a reader of exports."""
    directory = folder / "DICOMDIR"
    assert tools.broken_by_dcmdump([directory]) == set() and tools.dicom_by_dcmftest([directory]) == {directory}
    found = FileSet(directory)
    assert len(found) == files and {Path(one.path).is_file() for one in found} <= {True}
    with directory.open("rb") as file:
        ours = read_dicomdir(file.fileno(), directory.stat().st_size)
    assert sum(len(one) for one in ours.by_study().values()) == files - private
    return pydicom.dcmread(directory)


def records(directory: pydicom.Dataset, kind: str) -> list[Dataset]:
    return [one for one in directory.DirectoryRecordSequence if one.DirectoryRecordType == kind]


def synthetic(tmp_path: Path) -> list[tuple[ManifestInstance, bytes]]:
    """CT, ultrasound and a report."""
    maker = Maker(seed=3)
    made = [
        *maker.ct_series(tmp_path / "ct", slices=3, rows=16, columns=16, study=0),
        *maker.us_multiframe(tmp_path / "us", frames=2, study=0),
        *maker.structured_report(tmp_path / "sr", study=0),
    ]
    found = []
    for one in made:
        data, header = one.path.read_bytes(), pydicom.dcmread(one.path)
        syntax, sop_class = header.file_meta.TransferSyntaxUID, header.SOPClassUID
        found.append(
            (
                item_of(
                    data, one.series_uid, one.sop_instance_uid, sop_class_uid=sop_class, transfer_syntax_uid=syntax
                ),
                data,
            )
        )
    return found


def test_a_study_of_several_kinds(tmp_path: Path) -> None:
    files = synthetic(tmp_path)
    folder = written(tmp_path, files)
    directory = check(folder, len(files))
    assert sorted(p.read_bytes() for p in folder.rglob("IM*")) == sorted(data for _, data in files)
    assert [len(records(directory, kind)) for kind in ("PATIENT", "STUDY", "SERIES", "IMAGE", "SR DOCUMENT")] == [
        1, 1, 3, 4, 1,
    ]  # fmt: skip
    [patient], [study] = records(directory, "PATIENT"), records(directory, "STUDY")
    assert (patient.PatientName, patient.PatientID, study.StudyInstanceUID) == ("DOE^JANE", "P0001", STUDY)
    [report] = records(directory, "SR DOCUMENT")
    assert report.ConceptNameCodeSequence[0].CodeValue == "18748-4" and report.CompletionFlag == "COMPLETE"
    assert report.ReferencedSOPInstanceUIDInFile == files[-1][0].sop_instance_uid
    first = records(directory, "IMAGE")[0]
    assert first.ReferencedFileID[0] == "DICOM" and (first.Rows, first.InstanceNumber) == (16, 1)


def test_dicom3tools_misses_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path, synthetic(tmp_path))
    tools.needed("dciodvfy")
    done = subprocess.run(["dciodvfy", str(folder / "DICOMDIR")], capture_output=True, check=False)
    errors = [line for line in done.stderr.decode("latin-1").splitlines() if line.startswith("Error")]
    assert errors == []


def test_dcmtk_goes_on_with_it(tmp_path: Path) -> None:
    """dcmmkdir reads all of a DICOMDIR that it appends to, and refuses one whose structure is not right."""
    files = synthetic(tmp_path)
    folder = written(tmp_path, files[:-1])
    (folder / "MORE").write_bytes(files[-1][1])
    done = subprocess.run(["dcmmkdir", "+A", "+id", str(folder), "MORE"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(FileSet(folder / "DICOMDIR")) == len(files)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("charset", "name", "expected"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg", "ISO_IR 100"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce", "ISO_IR 192"),
        (
            ["", "ISO 2022 IR 87"],
            YAMADA,
            "ISO_IR 192",
        ),
        ("ISO_IR 144", "\u041b\u044e\u043ac\u0435\u043c\u0431yp\u0433", "ISO_IR 192"),
        ("", "DOE^JANE", None),
    ],
)
def test_names_in_any_character_set(tmp_path: Path, syntax: str, charset: Any, name: str, expected: str | None) -> None:
    values: dict[str, Any] = {
        "PatientID": "1",
        "StudyDescription": name.split("^")[0].split("=")[0],
        "InstanceNumber": 7,
    }
    data = encoded(dataset(SpecificCharacterSet=charset, PatientName=name, **values), syntax)
    directory = check(written(tmp_path, [(item_of(data, transfer_syntax_uid=syntax), data)]), 1)
    [patient], [study] = records(directory, "PATIENT"), records(directory, "STUDY")
    assert str(patient.PatientName) == name and patient.get("SpecificCharacterSet") == expected
    assert study.StudyDescription == values["StudyDescription"]
    assert "SpecificCharacterSet" not in records(directory, "IMAGE")[0]


def test_text_in_another_set_than_declared_and_no_warning_that_names_it(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    data = encoded(dataset(PatientName="XXXXXX^Y", PatientID="1")).replace(b"XXXXXX", "M\u00fcllr".encode())
    directory = check(written(tmp_path, [(item_of(data), data)]), 1)
    assert str(records(directory, "PATIENT")[0].PatientName) == "M\u00fcllr^Y"
    assert not [one for one in recwarn if "llr" in str(one.message)]


def test_what_a_record_must_have_is_invented_and_counted(tmp_path: Path) -> None:
    files = []
    for n, sop_class in enumerate((CT, "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.11.1")):
        data = encoded(dataset(sop_class, f"1.2.{n}"))
        files.append((item_of(data, f"{SERIES}{n}", f"1.2.{n}", sop_class_uid=sop_class), data))
    folder = written(tmp_path, files)
    directory = check(folder, 3)
    [patient], [study] = records(directory, "PATIENT"), records(directory, "STUDY")
    assert (patient.PatientID, study.StudyDate, study.StudyTime, study.StudyID) == (
        "UNKNOWN",
        "19000101",
        "000000",
        "1",
    )
    assert [one.SeriesNumber for one in records(directory, "SERIES")] == [1, 2, 3]
    listing = list_folder(STUDY, media_names(item for item, _ in files), folder)
    assert listing.invented_values > 10 and listing.listed == 3


def test_the_date_of_the_series_stands_in_for_the_studys(tmp_path: Path) -> None:
    data = encoded(dataset(StudyDate="", SeriesDate="20240102", SeriesTime="101112"))
    found = said(tmp_path, data)
    assert (found.texts[0x00080020], found.texts[0x00080030]) == ("20240102", "101112")


@pytest.mark.parametrize(
    ("text", "vr", "value"),
    [
        ("1999.01.02 ", "DA", "19990102"),
        ("2 Jan 99", "DA", ""),
        ("10:11", "TM", ""),
        ("101112.5", "TM", "101112.5"),
        (" 2.5", "IS", ""),
        ("007 ", "IS", "007"),
        ("a\nb\0", "LO", "a b"),
        ("x" * 100, "LO", "x" * 64),
        ("derived\\secondary", "CS", "DERIVED\\SECONDARY"),
        ("a\\b", "LO", "a"),
        ("?", "CS", ""),
    ],
)
def test_values_fit_their_vr(text: str, vr: str, value: str) -> None:
    assert fit(text, vr) == value


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (CT, "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.88.67", "SR DOCUMENT"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "KEY OBJECT DOC"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "PRESENTATION"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "ENCAP DOC"),
        ("1.2.840.10008.5.1.4.1.1.66", "RAW DATA"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.66.1", "REGISTRATION"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "WAVEFORM"),
        ("1.2.840.10008.5.1.4.1.1.481.1", "IMAGE"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "RT DOSE"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT STRUCTURE SET"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "RT PLAN"),
        ("1.2.840.10008.5.1.4.1.1.481.4", "RT TREAT RECORD"),
        ("1.2.840.10008.5.1.4.1.1.481.12", "RADIOTHERAPY"),
        ("1.3.12.2.1107.5.9.1", "PRIVATE"),
        ("1.2.840.10008.5.1.4.1.1.9999", "IMAGE"),
    ],
)
def test_record_types(sop_class: str, kind: str) -> None:
    assert record_type(sop_class, has_pixels=True) == kind


def test_every_kind_of_record_is_read_back(tmp_path: Path) -> None:
    """With everything invented that has to be: each key of each kind is encoded once."""
    directory, files = Directory(), []
    known = [kind for kind in LEAVES if kind != "ANNOTATION"]  # which pydicom does not know yet
    for n, kind in enumerate(known):
        data = encoded(dataset("1.2.3.4", f"1.2.{n}"))
        files.append((item_of(data, SERIES, f"1.2.{n}", sop_class_uid="1.2.3.4"), data))
        directory.add(STUDY, files[-1][0], f"IM{n:06}", Said("1.2.3.4", kind, True))
        (tmp_path / f"IM{n:06}").write_bytes(data)
    (tmp_path / "DICOMDIR").write_bytes(directory.to_bytes())
    found = check(tmp_path, len(known), private=1)
    assert {one.DirectoryRecordType for one in found.DirectoryRecordSequence} >= set(known)
    assert records(found, "PRIVATE")[0].PrivateRecordUID.startswith("2.25.")


def test_two_patients_and_two_contents_of_one_instance(tmp_path: Path) -> None:
    """What is held for a person to look at is listed as it is."""
    files = []
    for n, patient in enumerate(("P1", "P2", "P2")):
        data = encoded(dataset(PatientID=patient, InstanceNumber=n))
        files.append((item_of(data), data))
    folder = written(tmp_path, files)
    directory = pydicom.dcmread(folder / "DICOMDIR")
    assert [one.PatientID for one in records(directory, "PATIENT")] == ["P1", "P2"]
    assert len(records(directory, "IMAGE")) == 3 and len(records(directory, "STUDY")) == 2
    assert tools.broken_by_dcmdump([folder / "DICOMDIR"]) == set()


def test_many(tmp_path: Path) -> None:
    directory = Directory()
    for n in range(10_000):
        item = item_of(b"", sop=f"1.2.{n}")
        directory.add(STUDY, item, f"DICOM/ST000001/SE000001/IM{n:06}", Said(CT, "IMAGE", True, {0x00200013: str(n)}))
    path = tmp_path / "DICOMDIR"
    path.write_bytes(directory.to_bytes())
    assert tools.broken_by_dcmdump([path]) == set()
    assert len(pydicom.dcmread(path).DirectoryRecordSequence) == 10_003


def test_the_same_files_make_the_same_directory_and_another_is_not_overwritten(tmp_path: Path) -> None:
    files = synthetic(tmp_path)
    folder = written(tmp_path, files)
    before = (folder / "DICOMDIR").stat()
    placed = media_names(item for item, _ in files)
    list_folder(STUDY, placed, folder)
    assert (folder / "DICOMDIR").stat().st_ino == before.st_ino
    (folder / "DICOMDIR").write_bytes(b"mine")
    with pytest.raises(Occupied):
        list_folder(STUDY, placed, folder)
    assert (folder / "DICOMDIR").read_bytes() == b"mine"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_what_is_no_dicom_is_left_out_and_said(tmp_path: Path) -> None:
    data = encoded(dataset(PatientID="1"))
    without_meta = encoded(dataset(sop="1.2.2", PatientID="1"))[132:]
    files = [
        (item_of(data), data),
        (item_of(b"no DICOM", sop="1.2.9"), b"no DICOM"),
        (item_of(without_meta, sop="1.2.2"), without_meta),
    ]
    placed = media_names(item for item, _ in files)
    folder = written(tmp_path, files)
    (folder / "DICOMDIR").unlink()
    listing = list_folder(STUDY, placed, folder)
    assert (listing.listed, listing.without_file_meta) == (2, 1) and "cannot be read: 1" in listing.reason


def test_names() -> None:
    items = [item_of(b"1"), item_of(b"2", sop="1.2.2"), item_of(b"3", OTHER_SERIES, "1.2.3")]
    assert [path for _, path in media_names(items, 2)] == [
        "DICOM/ST000002/SE000001/IM000001",
        "DICOM/ST000002/SE000001/IM000002",
        "DICOM/ST000002/SE000002/IM000001",
    ]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_pydicoms_samples(path: Path, tmp_path: Path) -> None:
    """Whatever they are: listed in a directory that can be read, or refused, and nothing else."""
    data = path.read_bytes()
    try:
        found = said(tmp_path, data, "")
    except Permanent:
        return
    if not found.sop_class_uid:
        return  # of no class, and so never archived
    directory = Directory()
    directory.add(STUDY, item_of(data), "IM000001", found)
    (tmp_path / "IM000001").write_bytes(data)
    (tmp_path / "DICOMDIR").write_bytes(directory.to_bytes())
    check(tmp_path, 1)


# --- the command


def add(site: Site, tmp_path: Path, *, study: Uid = STUDY) -> list[tuple[ManifestInstance, bytes]]:
    """Archived with the class of a CT: the manifest's is not asked where the file says more."""
    files = [one for one in synthetic(tmp_path) if one[0].sop_class_uid == CT]
    site.add([(item.series_uid, item.sop_instance_uid, data) for item, data in files], study=study)
    return files


def test_a_file_set_in_a_folder(site: Site, tmp_path: Path) -> None:
    files, folder = add(site, tmp_path), tmp_path / "medium"
    answer = site.json("fetch", STUDY, "-o", str(folder), "--dicomdir")
    assert answer["complete"] and answer["dicomdir"] == {
        "listed": 3,
        "invented_values": 0,
        "without_file_meta": 0,
        "reason": "",
    }
    check(folder, 3)
    found = fetched(folder)
    assert {name for name in found if name != "DICOMDIR"} == {f"DICOM/ST000001/SE000001/IM00000{n}" for n in (1, 2, 3)}
    assert {data for _, data in files} == {data for name, data in found.items() if name != "DICOMDIR"}
    assert site.json("fetch", STUDY, "-o", str(folder), "--dicomdir")["already_there"] == 3


def test_no_directory_of_a_set_that_lacks_files(site: Site, tmp_path: Path) -> None:
    files, folder = add(site, tmp_path), tmp_path / "medium"
    item = files[0][0]
    object_of = site.path_of(item_of(files[0][1], item.series_uid, item.sop_instance_uid).key)
    kept = object_of.read_bytes()
    object_of.unlink()
    answer = site.json("fetch", STUDY, "-o", str(folder), "--dicomdir", code=1)
    assert answer["dicomdir"]["listed"] == 0 and "missing" in answer["dicomdir"]["reason"]
    assert not (folder / "DICOMDIR").exists()
    object_of.write_bytes(kept)
    assert site.ctl("fetch", STUDY, "-o", str(folder), "--dicomdir").exit_code == 0
    check(folder, 3)


def test_a_file_set_of_two_studies_in_a_zip_file(site: Site, tmp_path: Path) -> None:
    add(site, tmp_path / "1")
    add(site, tmp_path / "2", study=Uid("1.2.840.99999.2"))
    packed = tmp_path / "patient.zip"
    answer = site.json("fetch", "--patient", "CANARY-ID", "--all", "--zip", str(packed), "--dicomdir")
    assert answer["complete"] and answer["dicomdir"]["listed"] == 6
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"DICOMDIR", "DICOM", "INDEX.HTM", "README.TXT"}
    assert len(records(pydicom.dcmread(tmp_path / "out" / "DICOMDIR"), "STUDY")) == 2
    assert tools.broken_by_dcmdump([tmp_path / "out" / "DICOMDIR"]) == set()
    assert b"DICOMDIR" in (tmp_path / "out" / "README.TXT").read_bytes()


def test_what_is_no_dicom_makes_the_answer_no(site: Site, tmp_path: Path) -> None:
    site.add([(SERIES, "1.2.1", b"no DICOM")])
    for target in (("-o", str(tmp_path / "medium")), ("--zip", str(tmp_path / "medium.zip"))):
        answer = site.json("fetch", STUDY, *target, "--dicomdir", code=1)
        assert not answer["complete"] and "cannot be read: 1" in answer["dicomdir"]["reason"]


@pytest.mark.parametrize("other", [("--layout", "uid"), ("--with-dicomdir",)])
def test_names_of_its_own(site: Site, other: tuple[str, ...]) -> None:
    assert site.ctl("fetch", STUDY, "--dicomdir", *other).exit_code == 2


# --- the image of a disc


def test_the_image_of_a_disc_holds_the_file_set(site: Site, tmp_path: Path) -> None:
    files, image = add(site, tmp_path), tmp_path / "out" / "disc.iso"
    answer = site.json("fetch", STUDY, "--iso", str(image))
    assert answer["complete"] and answer["iso"] == {"file": str(image), "bytes": image.stat().st_size}
    assert answer["dicomdir"]["listed"] == 3 and image.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in image.parent.iterdir()] == ["disc.iso"]
    found = unpacked(image, tmp_path / "unpacked")
    check(found, 3)
    assert {p.name for p in found.iterdir()} == {"DICOMDIR", "DICOM", "INDEX.HTM", "README.TXT"}
    assert sorted(p.read_bytes() for p in found.rglob("IM*")) == sorted(data for _, data in files)
    again = site.ctl("fetch", STUDY, "--iso", str(image))
    assert again.exit_code == 1 and "not touched" in again.stderr


def unpacked(image: Path, folder: Path) -> Path:
    folder.mkdir()
    disc = pycdlib.PyCdlib()
    disc.open(str(image))
    for above, _, names in disc.walk(iso_path="/"):
        for name in names:
            target = folder / above.lstrip("/") / name.partition(";")[0].rstrip(".")
            target.parent.mkdir(parents=True, exist_ok=True)
            disc.get_file_from_iso(str(target), iso_path=f"{above.rstrip('/')}/{name}")
    disc.close()
    return folder


def test_an_upload_of_the_image_reads_it(site: Site, tmp_path: Path) -> None:
    """What goes out comes in again: by the reader that `upload` has for discs."""
    files, image = add(site, tmp_path), tmp_path / "disc.iso"
    assert site.ctl("fetch", STUDY, "--iso", str(image)).exit_code == 0
    with image.open("rb") as file:
        entries = DiscImage(file.fileno()).contents().entries
    names = {b"/".join(entry.path) for entry in entries}
    assert sum(name.startswith(b"DICOM/ST") for name in names) == len(files) and b"DICOMDIR" in names


def test_a_thousand_files(tmp_path: Path) -> None:
    image = tmp_path / "disc.iso"
    with image.open("w+b") as stream, IsoWriter(stream, tmp_path) as writer:
        for n in range(1000):
            writer.add(f"DICOM/ST000001/SE000001/IM{n:06}", BytesIO(b"%d" % n), len(b"%d" % n), "")
        assert writer.finish() == image.stat().st_size
    found = unpacked(image, tmp_path / "unpacked")
    assert (found / "DICOM/ST000001/SE000001/IM000999").read_bytes() == b"999"


def test_a_full_disk_leaves_no_image(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(site, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("pycdlib.PyCdlib.write_fp", full)
    image = tmp_path / "out" / "disc.iso"
    done = site.ctl("fetch", STUDY, "--iso", str(image))
    assert done.exit_code == 1 and "full" in done.stderr and list(image.parent.iterdir()) == []


@pytest.mark.parametrize("other", [("-o", "x"), ("--zip", "x"), ("--layout", "uid"), ("--with-dicomdir",)])
def test_an_image_is_one_thing(site: Site, other: tuple[str, ...]) -> None:
    assert site.ctl("fetch", STUDY, "--iso", "x.iso", *other).exit_code == 2
