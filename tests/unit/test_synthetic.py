"""The maker of synthetic DICOM: what it makes is valid, repeatable, and carries the marker everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc
from pathlib import Path

import pydicom
import pytest

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header
from tests.synthetic import Made, Maker, Patient, main
from tests.tools import needed


def header(made: Made) -> Header | Dicomdir:
    fd = os.open(made.path, os.O_RDONLY)
    try:
        return read_header(fd, made.size_bytes)
    finally:
        os.close(fd)


def everything(maker: Maker, folder: Path) -> list[Made]:
    made = maker.ct_series(folder / "ct", slices=2)
    made += maker.mr_study(folder / "mr", series=2, slices=2)
    made += maker.us_multiframe(folder / "us", frames=3)
    made += maker.us_multiframe(folder / "native", frames=3, compressed=False)
    made += maker.structured_report(folder / "sr")
    made += maker.sparse_multiframe(folder / "sparse", size_bytes=1_000_000, frames=4)
    return made


def test_all_of_it_is_accepted_as_it_is(tmp_path: Path) -> None:
    for made in everything(Maker(3), tmp_path):
        found = header(made)
        assert isinstance(found, Header)
        instance = found.instance
        assert (instance.study_uid, instance.series_uid) == (made.study_uid, made.series_uid)
        assert instance.sop_instance_uid == made.sop_instance_uid
        assert instance.repairs == ()


def test_sizes_are_those_of_real_slices(tmp_path: Path) -> None:
    maker = Maker()
    assert 524_000 < maker.ct_series(tmp_path / "ct", slices=1)[0].size_bytes < 528_000
    assert 38_000 < maker.mr_study(tmp_path / "mr", series=1, slices=1)[0].size_bytes < 42_000


def test_dcmtk_reads_all_of_it(tmp_path: Path) -> None:
    needed("dcmftest", "dcmdump")
    maker = Maker(4)
    made = everything(maker, tmp_path)
    made += maker.media(tmp_path / "cd", [m for m in made if m.path.parent.name in ("ct", "mr", "sr")])
    paths = [str(m.path) for m in made]
    assert subprocess.run(["dcmftest", *paths], capture_output=True, check=True).stdout.count(b"yes: ") == len(paths)
    dumped = subprocess.run(["dcmdump", "-q", *paths], capture_output=True, check=True)
    assert dumped.stderr == b""


def test_the_same_seed_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    first, second = Maker(5), Maker(5)
    one = first.ct_series(tmp_path / "a", slices=3, study=0, series=1)
    second.us_multiframe(tmp_path / "us", study=7)
    late = second.ct_series(tmp_path / "b", slices=1, study=0, series=1, first=3)
    assert late[0].sha256 == one[2].sha256
    assert late[0].path.name == one[2].path.name == "IM0003"
    assert Maker(6).ct_series(tmp_path / "c", slices=1)[0].sha256 != one[0].sha256
    assert len({made.sha256 for made in one}) == 3


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    Maker().ct_series(tmp_path, slices=1)
    with pytest.raises(FileExistsError):
        Maker().ct_series(tmp_path, slices=1)


def test_six_gigabytes_take_no_room_and_no_memory_to_read(tmp_path: Path) -> None:
    made = Maker().sparse_multiframe(tmp_path, size_bytes=6 * 1024**3)[0]
    assert made.size_bytes == made.path.stat().st_size >= 6 * 1024**3
    if made.path.stat().st_blocks * 512 > 10_000_000:
        pytest.skip("this file system has no sparse files")
    tracemalloc.start()
    found = header(made)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Header)
    assert found.instance.repairs == ()
    assert peak_bytes < 300_000
    os.truncate(made.path, made.size_bytes - 1)
    cut = Made(made.path, made.size_bytes - 1, "")
    with pytest.raises(Unarchivable, match="ends inside"):
        header(cut)


def test_media_hold_the_same_bytes_and_a_dicomdir_that_lists_them(tmp_path: Path) -> None:
    maker = Maker()
    made = maker.ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)
    *copies, dicomdir = maker.media(tmp_path / "cd", made)
    assert {copy.sha256 for copy in copies} == {m.sha256 for m in made}
    assert all(copy.path.read_bytes() in [m.path.read_bytes() for m in made] for copy in copies)
    assert header(dicomdir) == Dicomdir()
    records = pydicom.dcmread(dicomdir.path).DirectoryRecordSequence
    listed = {"/".join(r.ReferencedFileID) for r in records if "ReferencedFileID" in r}
    assert listed == {str(copy.path.relative_to(tmp_path / "cd")) for copy in copies}


def test_junk_is_refused_each_for_its_own_reason(tmp_path: Path) -> None:
    codes = set()
    for made in Maker().junk(tmp_path):
        with pytest.raises(Unarchivable) as caught:
            header(made)
        codes.add(caught.value.code)
    assert codes == {"empty", "not-dicom", "truncated"}


def test_a_marked_patient_is_in_every_path_and_text(tmp_path: Path) -> None:
    marker = "CANARY^JANE"
    maker = Maker(patient=Patient.marked(marker))
    for made in [*everything(maker, tmp_path), *maker.junk(tmp_path / "junk")]:
        assert marker in made.path.name
        if not made.study_uid:
            continue
        found = header(made)
        assert isinstance(found, Header)
        assert marker in found.patient_id
        texts = [a for a in found.study_attributes.values() if a["vr"] in ("PN", "LO", "SH")]
        assert len(texts) >= 8
        assert all(marker in json.dumps(a) for a in texts)


def test_the_command_line_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--studies", "2", "--slices", "2", "--rows", "16", "--junk", "--sparse-bytes", "100000"]
    assert main([str(tmp_path), *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 * 2 + 1 + 4
    assert all(Path(line["path"]).stat().st_size == line["size_bytes"] for line in lines)
    assert len({line["study_uid"] for line in lines}) == 2 + 1 + 1
