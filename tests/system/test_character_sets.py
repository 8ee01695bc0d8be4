"""Files that declare no character set, or a wrong one: from two inboxes and a folder that is uploaded to the archive,
and to what the commands show of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.layout.manifest import Manifest
from tests.system.site import Site
from tests.unit.dicomfiles import data_set, encode

_IVANOV = "Иванов^Пётр"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, inboxes=2, charset_when_missing="koi8-r")
    site.config["inboxes"][0] |= {"charset_when_missing": "cp1251"}
    site.write_config()
    yield site
    site.close()


def _drop(folder: Path, number: int, name: bytes, charset: str | None = None) -> str:
    """A study of one file; returns its UID."""
    study = f"1.2.826.0.1.{number}"
    data = data_set(
        SpecificCharacterSet=charset,
        PatientName="~" * len(name),
        PatientID=f"P{number}",
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.1",
    )
    folder.mkdir(exist_ok=True)
    (folder / f"{number}.dcm").write_bytes(encode(data).replace(b"~" * len(name), name))
    return study


def test_from_the_inboxes_to_what_is_shown(site: Site) -> None:
    site.init()
    in_1251 = _drop(site.inboxes[0], 1, _IVANOV.encode("cp1251") + b" ")
    in_koi8 = _drop(site.inboxes[1], 2, _IVANOV.encode("koi8_r") + b" ")
    misspelt = _drop(site.inboxes[1], 3, _IVANOV.encode() + b" ", charset="UTF8")
    # KOI8-R reads any bytes. These are declared, and but for the last character they are what they are declared to be.
    cut = _drop(site.inboxes[1], 4, _IVANOV.encode()[:-1], charset="ISO_IR 192")
    uploaded = _drop(site.root / "handed", 5, _IVANOV.encode("koi8_r") + b" ")
    site.start()
    site.ctl("upload", str(site.root / "handed"), "--wait", timeout=120)
    site.wait_until_empty()
    site.wait_for(lambda: site.ctl_json("status")["studies"].get("archived") == 5, 60, "all studies to be archived")

    shown = {study: site.ctl_json("show", study)["archive"] for study in (in_1251, in_koi8, misspelt, cut, uploaded)}
    names = {study: one["attributes"]["00100010"] for study, one in shown.items()}
    for study, charset in ((in_1251, "cp1251"), (in_koi8, "koi8_r"), (uploaded, "koi8_r")):
        assert names[study] == {
            "vr": "PN",
            "Value": [{"Alphabetic": _IVANOV}],
            "raw": base64.b64encode(_IVANOV.encode(charset) + b" ").decode(),
            "charset": charset,
            "charset_by": "configuration",
        }
        assert shown[study]["flags"] == []
    assert names[misspelt] == {"vr": "PN", "Value": [{"Alphabetic": _IVANOV}]} and shown[misspelt]["flags"] == []
    assert names[cut]["Value"] == [{"Alphabetic": _IVANOV[:-1] + "\ufffd"}]
    assert names[cut]["charset_by"] == "declaration" and shown[cut]["flags"] == ["charset-guessed"]
    assert "charset-guessed" in site.ctl("show", cut).stdout and _IVANOV in site.ctl("show", in_1251).stdout

    for pattern, expected in (("иванов*", 5), ("*ПЁТР", 4)):
        assert len(site.ctl_json("search", "--name", pattern)["studies"]) == expected, pattern

    [instance] = Manifest.from_bytes((site.root / "archive" / shown[misspelt]["manifest_key"]).read_bytes()).instances
    assert instance.repairs == ("character set: a misspelt term, read as ISO_IR 192",)
    site.ctl("catalogue", "rebuild")
    assert site.ctl_json("show", cut)["archive"] == shown[cut], "a rebuild is exact"
    site.ctl("verify", cut)
    assert site.stop() == 0
    log = site.log_file.read_text() + json.dumps(site.events(), ensure_ascii=False)
    for text in (_IVANOV[:6], "Иван", _IVANOV.encode().decode("latin_1")[:8], "koi8-r"):
        assert text not in log
