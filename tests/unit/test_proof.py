"""DeletionProof attacked clause by clause: each thing that has to hold is made untrue alone, and then nothing goes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.bundle import Span
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.stores.port import Destination, Receipt
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.localfiles import STAGING_NAME
from dicomwatchd.model import FileIdentity, InstanceHeader, Uid
from dicomwatchd.pipeline.deletion import proof
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS, DeletionProof, NoProof, delete_on_proof, prove
from dicomwatchd.pipeline.deletion.staging.staged import StagingFolders
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.queue.rows import Claim, LocalFile, Source, identity_text
from tests.pieces import ended

STUDY, SERIES, SOP = Uid("1.2.1"), Uid("1.2.1.1"), Uid("1.2.1.1.1")
DATA = b"the bytes of an instance" * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"other bytes").hexdigest()
NOW = 1_800_000_000.0


@dataclass
class Case:
    """Everything that a proof is made from; right as it stands, to be made wrong in one place."""

    file: LocalFile
    receipt: Receipt
    claim: Claim
    destination: Destination
    archive_id: str
    manifest: Manifest
    catalogue_revision: int
    now: float
    part: Span | None = None
    recorded_at: float = NOW - 5

    def proof(self) -> DeletionProof:
        return prove(
            self.file,
            self.receipt,
            self.part or Span(0, self.receipt.size_bytes, self.receipt.sha256),
            claim=self.claim,
            destination=self.destination,
            archive_id=self.archive_id,
            manifest=self.manifest,
            catalogue="table",
            catalogue_revision=self.catalogue_revision,
            recorded_at=self.recorded_at,
            now=self.now,
        )


def item(**changes: object) -> ManifestInstance:
    given = {
        "series_uid": SERIES,
        "sop_instance_uid": SOP,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "key": keys.instance(STUDY, SERIES, SOP, SHA256),
        "size_bytes": len(DATA),
        "sha256": SHA256,
        "etag": None,
        "version_id": None,
        "original_path": "A/IM1",
        "inbox": "ct1",
        "stored_at": "2026-01-31T12:00:00.000Z",
        "verified_by": "read-back",
    }
    made = {**given, **changes}
    return ManifestInstance(**{"object_bytes": made["size_bytes"], **made})  # type: ignore[arg-type]


def manifest(
    *items: ManifestInstance, study: Uid = STUDY, archive_id: str = "archive-1", revision: int = 2
) -> Manifest:
    made = empty(archive_id, study).merged(
        items, attributes={}, series={SERIES: {}}, flags=(), damaged_keys=(), created_at="", created_by=""
    )
    return replace(made, revision=revision)


@pytest.fixture
def case() -> Case:
    header = InstanceHeader(STUDY, SERIES, SOP, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    file = LocalFile(
        file_id=7,
        source_id=1,
        dir=b"A",
        name=b"IM1",
        identity=FileIdentity(1, 2, len(DATA), 3, 4),
        header=header,
        key_attempt=1,
        sha256=SHA256,
        receipt="{}",
        verified_by="read-back",
        verified_at=NOW - 10,
        due_at=None,
    )
    receipt = Receipt(keys.instance(STUDY, SERIES, SOP, SHA256), len(DATA), SHA256, created=True, version_id="v1")
    return Case(
        file=file,
        receipt=receipt,
        claim=Claim(STUDY, token=5, attempts=0, revision=0),
        destination=Destination("s3", "https://s3", "bucket", "p/"),
        archive_id="archive-1",
        manifest=manifest(item()),
        catalogue_revision=2,
        now=NOW,
    )


BUNDLE_SHA256 = hashlib.sha256(b"a bundle").hexdigest()
BUNDLE = keys.bundle(STUDY, BUNDLE_SHA256)
BUNDLE_BYTES = 2048 + len(DATA)


def bundled_item(**changes: object) -> ManifestInstance:
    return item(**{"key": BUNDLE, "offset_bytes": 512, "object_bytes": BUNDLE_BYTES, **changes})


@pytest.fixture
def bundled(case: Case) -> Case:
    """The same instance as a part of a bundle."""
    case.receipt = Receipt(BUNDLE, BUNDLE_BYTES, BUNDLE_SHA256, created=True, version_id="v1")
    case.part = Span(512, len(DATA), SHA256)
    case.manifest = manifest(bundled_item())
    return case


#: What an audit entry says of an object of its own, in this order.
AUDITED = [
    "archive_id",
    "destination",
    "key",
    "version_id",
    "sha256",
    "size_bytes",
    "identity",
    "verified_by",
    "verified_at",
    "manifest_key",
    "manifest_sha256",
    "manifest_revision",
    "catalogue",
    "catalogue_revision",
]


# -- what a proof says ----------------------------------------------------------------------------------------------


def test_it_is_bound_to_all_that_it_speaks_of(case: Case) -> None:
    found = case.proof()
    assert found.for_audit() == {
        "archive_id": "archive-1",
        "destination": "s3|https://s3|bucket|p/",
        "key": case.receipt.key,
        "version_id": "v1",
        "sha256": SHA256,
        "size_bytes": len(DATA),
        "identity": identity_text(case.file.identity),
        "verified_by": "read-back",
        "verified_at": NOW - 10,
        "manifest_key": f"studies/{STUDY}/manifests/00000002.json",
        "manifest_sha256": case.manifest.sha256,
        "manifest_revision": 2,
        "catalogue": "table",
        "catalogue_revision": 2,
    }
    assert [*found.for_audit()] == AUDITED
    assert (found.identity, found.token) == (case.file.identity, 5)


def test_of_a_bundle_it_says_which_part(case: Case, bundled: Case) -> None:
    found = bundled.proof().for_audit()
    assert [*found] == [*AUDITED, "offset_bytes", "bundle_bytes", "bundle_sha256"]
    assert (found["key"], found["version_id"]) == (BUNDLE, "v1")
    assert (found["sha256"], found["size_bytes"]) == (SHA256, len(DATA))
    of_bundle = ("offset_bytes", "bundle_bytes", "bundle_sha256")
    assert [found[name] for name in of_bundle] == [512, BUNDLE_BYTES, BUNDLE_SHA256]


def test_no_path_and_no_name_is_in_it(case: Case) -> None:
    assert "IM1" not in str(case.proof().for_audit())


def test_nobody_else_can_make_one(case: Case) -> None:
    values = {f.name: getattr(case.proof(), f.name) for f in dataclasses.fields(DeletionProof)}
    with pytest.raises(TypeError):
        DeletionProof(**{**values, "_maker": object()})
    with pytest.raises(TypeError):
        DeletionProof(**{**values, "_maker": None})


# -- what has to hold -----------------------------------------------------------------------------------------------

Break = Callable[[Case], None]


def _file(**changes: object) -> Break:
    def apply(case: Case) -> None:
        case.file = replace(case.file, **changes)  # type: ignore[arg-type]

    return apply


def _receipt(**changes: object) -> Break:
    def apply(case: Case) -> None:
        case.receipt = replace(case.receipt, **changes)  # type: ignore[arg-type]

    return apply


def _manifest(made: Callable[[], Manifest]) -> Break:
    def apply(case: Case) -> None:
        case.manifest = made()

    return apply


def _header(**changes: object) -> Break:
    def apply(case: Case) -> None:
        case.file = replace(case.file, header=replace(case.file.header, **changes))  # type: ignore[arg-type]

    return apply


def _set(**changes: object) -> Break:
    def apply(case: Case) -> None:
        for name, value in changes.items():
            setattr(case, name, value)

    return apply


def _other_claim(case: Case) -> None:
    case.claim = replace(case.claim, study_uid=Uid("1.2.2"))


def _other_bytes_same_uid(case: Case) -> None:
    """The receipt and the file agree on bytes that the manifest does not list."""
    case.file = replace(case.file, sha256=OTHER_SHA256)
    case.receipt = replace(case.receipt, sha256=OTHER_SHA256)


def _other_size_in_file_and_receipt(case: Case) -> None:
    size = len(DATA) + 1
    case.file = replace(case.file, identity=replace(case.file.identity, size_bytes=size))
    case.receipt = replace(case.receipt, size_bytes=size)


BREAKS: dict[str, tuple[Break, str]] = {
    "never verified": (_file(verified_by=None, verified_at=None), "not verified"),
    "verified by nothing": (_file(verified_by=None), "not verified"),
    "verified at no time": (_file(verified_at=None), "not verified"),
    "another digest than the receipt's": (_file(sha256=OTHER_SHA256), "the digest"),
    "no digest": (_file(sha256=None), "the digest"),
    "another size than the receipt's": (_file(identity=FileIdentity(1, 2, len(DATA) + 1, 3, 4)), "the size"),
    "another study than the manifest's": (_header(study_uid=Uid("1.2.2")), "another study"),
    "the manifest of another study": (
        _manifest(lambda: manifest(item(key=keys.instance(Uid("1.2.2"), SERIES, SOP, SHA256)), study=Uid("1.2.2"))),
        "another study",
    ),
    "the claim of another study": (_other_claim, "another study"),
    "the manifest of another archive": (_manifest(lambda: manifest(item(), archive_id="archive-2")), "another archive"),
    "another archive": (_set(archive_id="archive-2"), "another archive"),
    "not listed": (_manifest(lambda: manifest()), "does not list"),
    "other bytes listed": (_manifest(lambda: manifest(item(sha256=OTHER_SHA256))), "does not list"),
    "other bytes sent": (_other_bytes_same_uid, "does not list"),
    "listed in another series": (_header(series_uid=Uid("1.2.1.2")), "does not list"),
    "listed as another instance": (_header(sop_instance_uid=Uid("1.2.1.1.2")), "does not list"),
    "listed under another key": (
        _manifest(lambda: manifest(item(key=keys.instance(STUDY, SERIES, SOP, SHA256, 2)))),
        "another key",
    ),
    "sent under another key": (_receipt(key=keys.instance(STUDY, SERIES, SOP, SHA256, 2)), "another key"),
    "listed with another size": (_manifest(lambda: manifest(item(size_bytes=len(DATA) - 1))), "another size"),
    "sent with another size": (_other_size_in_file_and_receipt, "another size"),
    "the catalogue is behind": (_set(catalogue_revision=1), "behind"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_no_proof(case: Case, name: str) -> None:
    assert case.proof()
    make_wrong, why_not = BREAKS[name]
    make_wrong(case)
    with pytest.raises(NoProof, match=why_not) as caught:
        case.proof()
    assert isinstance(caught.value, Permanent)
    assert caught.value.code == "no-proof"


def _part(**changes: object) -> Break:
    def apply(case: Case) -> None:
        assert case.part is not None
        case.part = replace(case.part, **changes)  # type: ignore[arg-type]

    return apply


def _both(*breaks: Break) -> Break:
    def apply(case: Case) -> None:
        for one in breaks:
            one(case)

    return apply


def _listed(**changes: object) -> Break:
    return _manifest(lambda: manifest(bundled_item(**changes)))


_LONGER = len(DATA) + 1
BUNDLED_BREAKS: dict[str, tuple[Break, str]] = {
    "never verified": (_file(verified_by=None, verified_at=None), "not verified"),
    "another digest than the part's": (_file(sha256=OTHER_SHA256), "the digest"),
    "the digest of the bundle": (_file(sha256=BUNDLE_SHA256), "the digest"),
    "another size than the part's": (_file(identity=FileIdentity(1, 2, _LONGER, 3, 4)), "the size"),
    "not listed": (_manifest(lambda: manifest()), "does not list"),
    "other bytes in the bundle": (
        _both(_file(sha256=OTHER_SHA256), _part(sha256=OTHER_SHA256)),
        "does not list",
    ),
    "listed in another bundle": (_listed(key=keys.bundle(STUDY, OTHER_SHA256)), "another key"),
    "listed in the repair of the bundle": (_listed(key=keys.bundle(STUDY, BUNDLE_SHA256, 2)), "another key"),
    "listed as an object of its own": (_manifest(lambda: manifest(item())), "another key"),
    "listed as all of the bundle": (_listed(offset_bytes=0, size_bytes=len(DATA)), "another location"),
    "listed at another place": (_listed(offset_bytes=1024), "another location"),
    "sent at another place": (_part(offset_bytes=1024), "another location"),
    "listed with another size": (_listed(size_bytes=_LONGER), "another size"),
    "before the bundle": (_both(_part(offset_bytes=-1), _listed(offset_bytes=-1)), "ends before"),
    "beyond the bundle": (_both(_part(offset_bytes=2049), _listed(offset_bytes=2049)), "ends before"),
    "the bundle is too short": (_receipt(size_bytes=511 + len(DATA)), "ends before"),
    "the receipt of another bundle": (_receipt(sha256=OTHER_SHA256), "another digest"),
    "the bundle of another study": (
        _both(
            _receipt(key=keys.bundle(Uid("1.2.2"), BUNDLE_SHA256)),
            _listed(key=keys.bundle(Uid("1.2.2"), BUNDLE_SHA256)),
        ),
        "another digest",
    ),
    "no bundle at all": (
        _both(_receipt(key=keys.instance(STUDY, SERIES, SOP, SHA256)), _listed(key=item().key)),
        "another digest",
    ),
    "the catalogue is behind": (_set(catalogue_revision=1), "behind"),
}


@pytest.mark.parametrize("name", BUNDLED_BREAKS)
def test_no_proof_of_a_part(bundled: Case, name: str) -> None:
    assert bundled.proof()
    make_wrong, why_not = BUNDLED_BREAKS[name]
    make_wrong(bundled)
    with pytest.raises(NoProof, match=why_not):
        bundled.proof()


def test_an_object_of_its_own_is_no_part(case: Case) -> None:
    """The manifest says that it is a part of the object, the receipt that it is all of it."""
    case.manifest = manifest(item(offset_bytes=1, object_bytes=1 + len(DATA)))
    with pytest.raises(NoProof, match="another location"):
        case.proof()


def test_the_part_up_to_the_last_byte(bundled: Case) -> None:
    bundled.receipt = replace(bundled.receipt, size_bytes=512 + len(DATA))
    assert bundled.proof()


def test_a_catalogue_that_is_further_on_is_as_good(case: Case) -> None:
    case.catalogue_revision = 3
    assert case.proof().catalogue_revision == 3


OLD = [LIFETIME_SECONDS + 1, 10 * 86400, -0.001, -LIFETIME_SECONDS - 1, -86400]


@pytest.mark.parametrize("seconds", OLD)
def test_evidence_that_is_old_by_the_clock_is_gathered_again(case: Case, seconds: float) -> None:
    """Or from the future: a clock was set. That heals by itself, so it parks nothing."""
    case.file = replace(case.file, verified_at=NOW - seconds)
    with pytest.raises(Transient):
        case.proof()


@pytest.mark.parametrize("seconds", OLD)
def test_what_was_recorded_is_read_again_when_it_has_grown_old(case: Case, seconds: float) -> None:
    case.recorded_at = NOW - seconds
    with pytest.raises(Transient):
        case.proof()


@pytest.mark.parametrize("seconds", [0, LIFETIME_SECONDS])
def test_evidence_that_is_fresh(case: Case, seconds: float) -> None:
    case.file = replace(case.file, verified_at=NOW - seconds)
    assert case.proof()


@pytest.mark.parametrize(("verified", "recorded"), [(20, 10), (10, 20)])
def test_a_proof_is_as_old_as_the_oldest_that_it_rests_on(case: Case, verified: float, recorded: float) -> None:
    case.file = replace(case.file, verified_at=NOW - verified)
    case.recorded_at = NOW - recorded
    assert case.proof().verified_at == NOW - 20


# -- the deletion ---------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A real file with a proof for it."""

    source: Source
    path: Path
    file: LocalFile
    proof: DeletionProof

    def delete(self, now: float = NOW) -> str | None:
        with Folders() as folders, StagingFolders() as places:
            return ended(delete_on_proof(folders, places, self.source, self.file, self.proof, now=now))

    def is_whole(self, data: bytes = DATA) -> bool:
        """The file stands under its name, and nothing is left staged."""
        return self.path.read_bytes() == data and not list(
            self.path.parent.parent.rglob(os.fsdecode(STAGING_NAME) + "*/**/IM1")
        )


@pytest.fixture
def place(case: Case, tmp_path: Path) -> Place:
    path = tmp_path / "A" / "IM1"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return proven(case, path)


def proven(case: Case, path: Path) -> Place:
    case.file = replace(case.file, identity=FileIdentity.of(path.stat()))
    source = Source(1, "ct1", os.fsencode(path.parent.parent), "inbox", delete_local=False)
    return Place(source, path, case.file, case.proof())


@pytest.fixture(params=[True, False], ids=["leases", "no-leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        without_leases(monkeypatch)
    return bool(request.param)


@pytest.fixture(autouse=True)
def never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes to a file after it is gone in these tests; waiting for him would only hide that."""

    def save_late_writes(*_: object) -> bool:
        raise AssertionError("somebody was seen at a file that is gone")

    monkeypatch.setattr(proof, "save_late_writes", save_late_writes)


def without_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def no_lease(fd: int) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(proof, "read_lease", no_lease)


@pytest.mark.usefixtures("leases")
def test_a_proven_file_goes(place: Place) -> None:
    assert place.delete() is None
    assert not place.path.exists()


@pytest.mark.parametrize("seconds", [LIFETIME_SECONDS + 11, -10.001, -LIFETIME_SECONDS - 11])
def test_an_old_proof_deletes_nothing(place: Place, seconds: float) -> None:
    with pytest.raises(Transient) as caught:
        place.delete(NOW + seconds)
    assert caught.value.code == "stale-evidence"
    assert place.is_whole()


def test_the_proof_of_another_file_deletes_nothing(place: Place) -> None:
    place.file = replace(place.file, identity=replace(place.file.identity, inode=1))
    assert place.delete() == "the proof belongs to another file"
    assert place.is_whole()


@pytest.mark.parametrize("field", ["dev", "inode", "size_bytes", "mtime_ns", "ctime_ns"])
def test_every_part_of_the_identity_counts(case: Case, place: Place, field: str) -> None:
    """File and proof agree, and the file on the disk is another in this alone."""
    identity = replace(place.file.identity, **{field: getattr(place.file.identity, field) + 1})
    case.file = replace(place.file, identity=identity)
    if field == "size_bytes":
        case.receipt = replace(case.receipt, size_bytes=identity.size_bytes)
        case.manifest = manifest(item(size_bytes=identity.size_bytes))
    place.file, place.proof = case.file, case.proof()
    assert place.delete() is not None
    assert place.is_whole()


@pytest.mark.usefixtures("leases")
def test_other_bytes_with_the_right_identity(case: Case, place: Place) -> None:
    """The identity is the file's, and what was archived is something else: only the second reading can tell."""
    other = b"X" * len(DATA)
    place.path.write_bytes(other)
    place = proven(case, place.path)
    assert place.delete() == "its content is not what was archived"
    assert place.is_whole(other)


def at(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, action: Callable[[], object], *, after: bool
) -> None:
    """Let ``action`` happen right before or after the first call of ``module.name``."""
    real, calls = getattr(module, name), []

    def call(*arguments: object, **named: object) -> object:
        calls.append(name)
        if len(calls) == 1 and not after:
            action()
        result = real(*arguments, **named)
        if len(calls) == 1 and after:
            action()
        return result

    monkeypatch.setattr(module, name, call)


def test_written_to_while_it_is_compared(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a descriptor from before, size and time kept: the hash has passed there already, the ctime tells."""
    without_leases(monkeypatch)
    fd = os.open(place.path, os.O_RDWR)
    before = os.fstat(fd)

    def write() -> None:
        os.pwrite(fd, b"NEW", 0)
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    at(monkeypatch, proof, "sha256_of", write, after=True)
    assert place.delete() == "changed while it was compared"
    assert place.is_whole(b"NEW" + DATA[3:])
    os.close(fd)


def test_written_to_while_it_is_staged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other size: told without reading."""
    without_leases(monkeypatch)
    fd = os.open(place.path, os.O_RDWR)
    at(monkeypatch, proof, "stage_file", lambda: os.pwrite(fd, b"more", len(DATA)), after=False)
    assert place.delete() == "changed while it was staged"
    assert place.is_whole(DATA + b"more")
    os.close(fd)


@pytest.mark.usefixtures("leases")
def test_replaced_while_it_is_staged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file of the same bytes took its name: what was staged is not the file that was proven."""
    other = place.path.with_name("other")
    other.write_bytes(DATA)
    at(monkeypatch, proof, "stage_file", lambda: other.rename(place.path), after=False)
    assert place.delete() == "replaced while it was staged"
    assert place.is_whole()


def test_a_program_begins_to_open_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked the name up before the file was staged, and waits for the lease."""
    held = os.open(place.path, os.O_RDONLY)

    def begin() -> None:
        with pytest.raises(BlockingIOError):
            os.open(f"/proc/self/fd/{held}", os.O_WRONLY | os.O_NONBLOCK)

    at(monkeypatch, proof, "sha256_of", begin, after=True)
    assert place.delete() == "a program has started to open it for writing"
    assert place.is_whole()
    os.close(held)


def test_a_program_has_it_open(place: Place) -> None:
    with place.path.open("r+b"):
        assert place.delete() == "a program has it open for writing"
    assert place.is_whole()
    assert place.delete() is not None or not place.path.exists()


@pytest.mark.usefixtures("leases")
def test_touched_before_it_is_staged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are the same; that somebody was at it is enough."""
    at(monkeypatch, proof, "read_lease", lambda: place.path.chmod(0o600), after=False)
    assert place.delete() == "changed before it was staged"
    assert place.is_whole()


def test_what_an_earlier_run_has_left_staged_is_not_overwritten(place: Place) -> None:
    staged = place.path.parent.parent / os.fsdecode(STAGING_NAME) / "A"
    staged.mkdir(parents=True)
    (staged / "IM1").write_bytes(b"left")
    assert place.delete() is None
    assert (staged / "IM1").read_bytes() == b"left"
    assert not place.path.exists()


def test_what_has_its_name_meanwhile_is_not_overwritten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was found changed, and has to go back: beside the new file."""
    without_leases(monkeypatch)
    fd = os.open(place.path, os.O_RDWR)

    def meanwhile() -> None:
        os.pwrite(fd, b"NEW", 0)
        place.path.write_bytes(b"another one")

    at(monkeypatch, proof, "sha256_of", meanwhile, after=False)
    assert place.delete() is not None
    assert sorted(path.read_bytes() for path in place.path.parent.iterdir()) == [b"NEW" + DATA[3:], b"another one"]
    os.close(fd)


def test_gone_already(place: Place) -> None:
    place.path.unlink()
    assert place.delete() is not None


def test_a_link_in_its_place(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    place.path.rename(elsewhere)
    place.path.symlink_to(elsewhere)
    assert place.delete() is not None
    assert elsewhere.read_bytes() == DATA


def test_an_exception_while_it_is_compared_puts_it_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    at(monkeypatch, proof, "sha256_of", fail, after=False)
    with pytest.raises(KeyboardInterrupt):
        place.delete()
    assert place.is_whole()
