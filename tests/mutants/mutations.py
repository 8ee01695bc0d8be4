"""The mutants: each takes one safeguard out of the program. Every one must turn a test red.

A mutation names the file, the text that stands there now (exactly once), what takes its place, and the tests that have
to notice. A text that no longer stands there fails the run: the mutation has to be brought up to date.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.access import ACCESS
from tests.mutants.alarms import ALARMS
from tests.mutants.at_once import AT_ONCE
from tests.mutants.cloud import CLOUD
from tests.mutants.commitment import COMMITMENT
from tests.mutants.composition import COMPOSITION
from tests.mutants.dicomweb import DICOMWEB
from tests.mutants.drill import DRILL
from tests.mutants.erased import ERASED
from tests.mutants.fairness import FAIRNESS
from tests.mutants.figures import FIGURES
from tests.mutants.final_check import LAST_SIGHT
from tests.mutants.handed import HANDED_IN
from tests.mutants.handed_out import HANDED_OUT
from tests.mutants.held import HELD
from tests.mutants.inboxes import INBOXES
from tests.mutants.limits import LIMITS
from tests.mutants.lineage import LINEAGE
from tests.mutants.logged import LOGGED
from tests.mutants.metrics import METRICS
from tests.mutants.pacing import PACING
from tests.mutants.page import PAGE
from tests.mutants.parts import PARTS
from tests.mutants.planted import PLANTED
from tests.mutants.protection import PROTECTION
from tests.mutants.receiver import RECEIVER
from tests.mutants.roots import ROOTS
from tests.mutants.same_place import SAME_PLACE
from tests.mutants.series import SERIES
from tests.mutants.setup import SETUP
from tests.mutants.sites import SITES
from tests.mutants.uploads import UPLOADS
from tests.mutants.web import WEB

PROOF = ("tests/unit/test_proof.py",)
PURGE = ("tests/unit/test_purge.py",)
CLAIMS = ("tests/unit/test_queue_claims.py",)
COLD = ("tests/unit/test_cold_storage.py",)
EVIDENCE = ("tests/unit/test_evidence.py", "tests/unit/test_evidence_clauses.py")
EDGES = ("tests/unit/test_shipments_edges.py",)
CURRENT = ("tests/unit/test_current_evidence.py",)
RACES = ("tests/unit/test_deletion_races.py",)
LEASES = ("tests/unit/test_without_lease.py",)
OPENING = ("tests/unit/test_queue_opening.py",)
ANCHORS = ("tests/unit/test_audit_checkpoints.py",)
AUDIT = ("tests/unit/test_queue_audit.py",)
SEALING = ("tests/unit/test_sealing.py",)
PRUNED = ("tests/unit/test_pruning.py",)
PROVING = ("tests/unit/test_proving.py",)
ENDINGS = ("tests/unit/test_recover_ending.py",)
HEALED = ("tests/unit/test_healed_keys.py",)
EXPIRY = ("tests/unit/test_expiry.py",)
DAMAGED = ("tests/unit/test_damaged_manifest.py",)
LOCAL = ("tests/unit/test_local.py",)
BUNDLED = ("tests/unit/test_bundled.py",)
FOLDERS = ("tests/unit/test_folders.py",)
BUNDLES_READ = ("tests/unit/test_bundled_reading.py",)
BUNDLED_MANIFEST = ("tests/unit/test_manifest_bundled.py",)
RANGES = ("tests/unit/test_ranges.py",)
OWN = ("tests/unit/test_own_trees.py",)
STAGING = (
    *(
        f"tests/unit/test_staging.py::test_{name}"
        for name in (
            "what_somebody_is_at_is_left_alone",
            "private_names_are_never_the_same",
            "what_the_first_release_has_left_is_brought_back",
            "the_name_of_what_lies_alone",
            "a_directory_that_is_taken_away_before_it_is_locked",
            "no_descriptor_is_closed_twice",
            "an_inbox_whose_path_was_changed_after_a_crash",
            "whose_former_folder_is_away",
            "a_folder_that_was_moved_with_its_inbox_is_not_told_of_for_ever",
            "a_deletion_of_an_inbox_that_is_away_stays_open",
            "its_own_looks_leave_alone_what_it_is_at",
            "killed_at_each_step_and_brought_back_by_the_other[all-when it was staged]",
            "killed_at_each_step_and_brought_back_by_the_other[nothing-when it was staged]",
        )
    ),
    "tests/unit/test_recover_ending.py",
)
PLANS = ("tests/unit/test_queue_plans.py",)


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def module(self) -> str:
        return "dicomwatchd." + self.file.removesuffix(".py").replace("/", ".")


def _clause(name: str, text: str) -> Mutation:
    return Mutation(f"prove: {name}", "pipeline/deletion/proof.py", f"        ({text},", "        (True,", PROOF)


def _check(name: str, old: str, new: str, tests: tuple[str, ...] = PROOF) -> Mutation:
    return Mutation(f"deletion: {name}", "pipeline/deletion/proof.py", old, new, tests)


def _evidence(name: str, old: str, new: str) -> Mutation:
    return Mutation(f"evidence: {name}", "archive/proof/evidence.py", old, new, EVIDENCE)


def _expiry(name: str, old: str, new: str, file: str = "archive/stores/s3/expiry.py") -> Mutation:
    return Mutation(f"expiry: {name}", file, old, new, EXPIRY)


def _stage(name: str, old: str, new: str, tests: tuple[str, ...], file: str = "pipeline/stages.py") -> Mutation:
    return Mutation(f"stages: {name}", file, old, new, tests)


def _queue(name: str, file: str, old: str, new: str, tests: tuple[str, ...]) -> Mutation:
    return Mutation(f"queue: {name}", file, old, new, tests)


MUTATIONS: tuple[Mutation, ...] = (
    # -- every clause of the proof
    _clause("verified under this claim", "file.verified_by is not None and file.verified_at is not None"),
    _clause("the receipt's digest", "file.sha256 == span.sha256"),
    _clause("the receipt's size", "file.identity.size_bytes == span.size_bytes"),
    _clause("the same study", "header.study_uid == manifest.study_uid == claim.study_uid"),
    _clause("the same archive", "manifest.archive_id == archive_id"),
    _clause("listed", "listed is not None"),
    _clause("the listed key", "listed is not None and listed.key == receipt.key"),
    _clause("the listed size", "listed is not None and listed.size_bytes == span.size_bytes"),
    _check("the listed place", "listed is not None and listed.offset_bytes == span.offset_bytes", "True"),
    _clause("within the bundle", "0 <= span.offset_bytes <= receipt.size_bytes - span.size_bytes"),
    _check("not before the bundle", "0 <= span.offset_bytes <= receipt", "span.offset_bytes <= receipt"),
    _check("the bundle's own key", "keys.bundle_sha256(receipt.key, header.study_uid) == receipt.sha256", "True"),
    _check("a part of a bundle alone", "span == Span(0, receipt.size_bytes, receipt.sha256)", "True"),
    _check("said of a bundle alone", "of_bundle if keys.is_bundle(self.key) else {}", "of_bundle"),
    _clause("the catalogue's revision", "catalogue_revision >= manifest.revision"),
    _check("the manifest's study", "header.study_uid == manifest.study_uid == claim", "header.study_uid == claim"),
    _check("the claim's study", "manifest.study_uid == claim.study_uid", "manifest.study_uid"),
    _check("no clause counts", "        if not holds:", "        if False:"),
    _check("fresh evidence", "_is_fresh(file.verified_at, now) and ", ""),
    _check("a fresh reading of what was recorded", " and _is_fresh(recorded_at, now)):", "):"),
    _check("evidence of the future", "0 <= now - asked_at <=", "now - asked_at <="),
    _check("as old as the oldest", "min(file.verified_at or 0.0, recorded_at)", "file.verified_at or 0.0"),
    _check("as old as the oldest reading", "min(file.verified_at or 0.0, recorded_at)", "recorded_at"),
    _check("only prove() makes one", "if self._maker is not _MAKER:", "if False:"),
    *(
        _check(f"bound to {name}", f"        {name}={value},\n", f"        {name}={wrong},\n")
        for name, value, wrong in (
            ("archive_id", "archive_id", '""'),
            ("destination", "str(destination)", '""'),
            ("key", "receipt.key", '""'),
            ("version_id", "receipt.version_id", "None"),
            ("sha256", "span.sha256", "file.sha256[::-1] if file.sha256 else ''"),
            ("manifest_sha256", "manifest.sha256", '""'),
            ("manifest_revision", "manifest.revision", "0"),
            ("catalogue_revision", "catalogue_revision", "0"),
            ("token", "claim.token", "0"),
            ("offset_bytes", "span.offset_bytes", "0"),
            ("object_bytes", "receipt.size_bytes", "0"),
            ("object_sha256", "receipt.sha256", '""'),
        )
    ),
    # -- every comparison of the deletion
    _check("a fresh proof", "    if not proof.is_fresh(now):", "    if False:"),
    _check("a proof that holds until the unlink", "            still_proven()\n", "", CURRENT),
    Mutation(
        "purge: proven anew after a long comparison",
        "pipeline/deletion/batch.py",
        "        if not proof.is_fresh(self.services.clock.now()):",
        "        if False:",
        CURRENT,
    ),
    Mutation(
        "purge: on a young look, not on the old one",
        "pipeline/deletion/batch.py",
        "self.evidence.prove_again(file)",
        "self.evidence.prove(file)",
        CURRENT,
    ),
    Mutation(
        "prove by the archive: beyond the head",
        "audit/proving.py",
        "        if 0 < published < walk.end:\n            found",
        "        if False:\n            found",
        PROVING,
    ),
    Mutation(
        "prove by the archive: no head at all",
        "audit/proving.py",
        "        elif not published and walk.end:",
        "        elif False:",
        PROVING,
    ),
    _check("its own proof", "    if file.identity != proof.identity:", "    if False:"),
    _check("changed before", "                if identity(fd) != proof.identity:", "                if False:"),
    _check("changed while staged", "    if not before.same_but_ctime(proof.identity):", "    if False:"),
    _check("replaced", "    if (found.st_dev, found.st_ino) != (before.dev, before.inode):", "    if False:"),
    _check("its content", "    if sha256_of(fd, proof.size_bytes, heartbeat) != proof.sha256:", "    if False:"),
    _check("changed while compared", "    if identity(fd) != before:", "    if False:"),
    _check(
        "a writer at the door",
        '    if leased and not lease_held(fd):\n        return "a program has started to open it for',
        '    if False:\n        return "a program has started to open it for',
    ),
    _check(
        "a difference keeps it",
        "        if why_kept is None:\n            still",
        "        if True:\n            still",
    ),
    _check("an exception puts it back", "        restore(staged, directory_fd, name)\n        raise", "        raise"),
    _check(
        "a difference puts it back",
        "    restore(staged, directory_fd, name)\n    return why_kept",
        "    return why_kept",
    ),
    _check(
        "a lease that is needed", "                if needs_lease and not leased:", "                if False:", LEASES
    ),
    Mutation(
        "purge: left out without a lease",
        "pipeline/deletion/vetoes/unleased.py",
        " if leased is False]",
        " if leased is None]",
        LEASES,
    ),
    _stage(
        "kept without a lease",
        "        return self.context.after_archive(self.source(file)).needs_lease\n",
        "        return not self.context.after_archive(self.source(file)).needs_lease\n",
        LEASES,
        "pipeline/deletion/policy.py",
    ),
    _check("disturbed, with a lease", "        return lease_held(fd)\n", "        return True\n", RACES),
    _check(
        "disturbed, without",
        "    return os.fstat(fd).st_size == proof.size_bytes and sha256_of(",
        "    return True or sha256_of(",
        RACES,
    ),
    Mutation(
        "deletion: staged onto nothing",
        "localfiles.py",
        "ctypes.c_char_p(new), _RENAME_NOREPLACE)",
        "ctypes.c_char_p(new), 0)",
        PROOF,
    ),
    Mutation(
        "deletion: a place that was tidied away is made anew",
        "pipeline/deletion/staging/staged.py",
        "            staging.give_up(source, parent)\n",
        "",
        RACES,
    ),
    Mutation(
        "deletion: the file opened is the one that was taken up",
        "pipeline/local.py",
        "    if identity(fd) != expected:",
        "    if False:",
        LOCAL,
    ),
    # -- the order of the purge
    Mutation(
        "purge: on record",
        "pipeline/deletion/purge.py",
        "    authorised = services.deletions.authorise(claim, on_record)",
        "    authorised = {file.file_id for file, _ in proofs}",
        PURGE,
    ),
    Mutation(
        "purge: on record before the first is touched",
        "pipeline/deletion/purge.py",
        "    authorised = services.deletions.authorise(claim, on_record)\n"
        "    proofs = [(file, proof) for file, proof in proofs if file.file_id in authorised]\n",
        "    run = lambda f, x, run=run: [*run(f, x), services.deletions.authorise("
        "claim, [(g, p.for_audit()) for g, p in proofs])][:-1]\n",
        PURGE,
    ),
    Mutation(
        "purge: only what was authorised",
        "pipeline/deletion/purge.py",
        "    proofs = [(file, proof) for file, proof in proofs if file.file_id in authorised]\n",
        "",
        PURGE,
    ),
    Mutation(
        "purge: proven before any goes",
        "pipeline/deletion/purge.py",
        "    proofs = [(file, evidence.prove(file)) for file in files if file.file_id not in left_out]\n",
        "    proofs = []\n    for file in files:\n        try:\n"
        "            proofs.append((file, evidence.prove(file)))\n        except Exception:\n            continue\n",
        PURGE,
    ),
    Mutation(
        "purge: an error hides no ending",
        "pipeline/deletion/batch.py",
        "        except Exception as error:  # noqa: BLE001  an outcome like another: how",
        "        except ZeroDivisionError as error:  # noqa: BLE001  an outcome like another: how",
        PURGE,
    ),
    # -- the stages before it
    _stage("missing and damaged", "        if not missing and not damaged:", "        if True:", EDGES),
    _stage("the verdict", "            if verdict.holds:\n", "            if True:\n", EDGES),
    _stage("evidence grows old", " <= LIFETIME_SECONDS / 2\n", " <= 1e12\n", EDGES, "pipeline/deletion/fresh.py"),
    _stage(
        "evidence before the clock went back",
        "0 <= context.clock.now() - ",
        "context.clock.now() - ",
        CURRENT,
        "pipeline/deletion/fresh.py",
    ),
    _stage(
        "a look that took too long",
        "        if young:\n            yield young",
        "        yield group",
        CURRENT,
        "pipeline/deletion/fresh.py",
    ),
    _stage(
        "the manifest read again",
        "    if stored.sha256 != manifest.sha256:\n",
        "    if False:\n",
        CURRENT,
        "pipeline/deletion/fresh.py",
    ),
    _stage(
        "the catalogue read again",
        "    if found is None or found.revision < manifest.revision:\n",
        "    if found is None:\n        return Recorded(manifest, manifest.revision, asked_at)\n    if False:\n",
        CURRENT,
        "pipeline/deletion/fresh.py",
    ),
    _stage(
        "what was recorded is dated before it is read",
        "        asked_at = context.clock.now()\n        made = next_manifest(shipment, context, above)\n",
        "        made = next_manifest(shipment, context, above)\n        asked_at = context.clock.now()\n",
        CURRENT,
    ),
    _stage(
        "dated at all",
        ", now=now, cancelled=context.cancelled)",
        ", cancelled=context.cancelled)",
        CURRENT,
        "pipeline/shipment.py",
    ),
    _stage(
        "the version that is current",
        "(location := location_of(file)).receipt.version_id != version_id",
        "(location := location_of(file)).receipt.version_id == '?'",
        CURRENT,
        "pipeline/shipment.py",
    ),
    # -- what the store ends by itself
    _expiry("a rule that is off", 'rule.get("Status") != "Enabled" or not', "not"),
    _expiry("another place", " or not _concerns(rule, prefix):", ":"),
    _expiry("a rule above", " or (prefix + kept).startswith(its)", ""),
    _expiry("a rule within", "its.startswith(prefix + kept) or ", ""),
    _expiry("a prefix below And", '(filtered.get("And") or {}).get("Prefix")', "None"),
    _expiry("a prefix of old", ' or rule.get("Prefix")\n', "\n"),
    _expiry("tags", "            if with_others:", "            if False:"),
    _expiry("tags below And", '*((filtered.get("And") or {}).get("Tags") or ())', ""),
    _expiry("the tag of instances", "any(one != (tag and (tag.key, tag.value)) for one in tags)", "bool(tags)"),
    _expiry("another tag beside it", "any(one != (tag", "all(one != (tag"),
    _expiry("days", 'if days := expiration.get("Days"):', 'if days := expiration.get("?"):'),
    _expiry("a date", 'if at := expiration.get("Date"):', 'if at := expiration.get("?"):'),
    _expiry("no earlier than", "days < accepts.after_days", "days <= accepts.after_days"),
    _expiry("a yes", " else not accepts", " else True"),
    _expiry("an answer about what is to stay", " or not key.startswith(_KEPT)", ""),
    _expiry("an answer of nothing", "self._expiring.pop(key, None)\n            elif", "pass\n            elif"),
    _expiry("an answer that cannot be read", "days, when = -math.inf,", "days, when = math.inf,"),
    _expiry("what has ended", "if not exists(key) and self._judged is not None and", "if not exists(key) or"),
    _expiry(
        "the identity is asked for",
        "for key in (keys.IDENTITY, *list(self._expiring)):",
        "for key in list(self._expiring):",
    ),
    _expiry(
        "known rules are not forgotten",
        "        if rules is not None:\n",
        "        if rules is None:\n            self._judged = None\n        else:\n",
    ),
    _expiry("before the first answer", "        if not self._asked:", "        if False:"),
    _expiry("a rule for noncurrent versions", " if rule not in nothing)", ")"),
    _expiry("only such a rule", "rule not in nothing", "False"),
    _expiry("answers count too", "if judged is not None else None) or seen", "if judged is not None else None)"),
    _expiry("ends by other tags", "is_by_tag = is_by_tag or unaccepted_days(accepts, days)", "pass"),
    _expiry(
        "ends by other tags are told",
        "return Expiry(unaccepted, judged is not None, notes, is_by_tag)",
        "return Expiry(unaccepted, judged is not None, notes)",
    ),
    _expiry(
        "a creation's answer",
        "        self._bucket.note_expiry(key, response)\n        self._bucket.check",
        "        self._bucket.check",
        "archive/stores/s3/store.py",
    ),
    _expiry(
        "a reading's answer",
        "        if version_id is None:\n            self._bucket.note_expiry(key, response)\n",
        "",
        "archive/stores/s3/store.py",
    ),
    _expiry(
        "a reading's short answer",
        "self._bucket.note_expiry(key, fast_path.about_its_end(found.headers))",
        "pass",
        "archive/stores/s3/store.py",
    ),
    _expiry(
        "a look's answer",
        "        if version_id is None:\n            self.note_expiry(key, response)\n",
        "",
        "archive/stores/s3/bucket.py",
    ),
    _expiry(
        "deleting waits",
        "if to_delete and context.stops_deleting() is not None:",
        "if False:",
        "pipeline/deletion/keeping.py",
    ),
    _expiry(
        "kept for that reason",
        "_keep(files, EXPIRING, expiring.REASON,",
        "_keep(files, None, None,",
        "pipeline/deletion/keeping.py",
    ),
    _expiry(
        "what was kept is let go",
        "        if why is not None:\n            self._holds = True\n",
        "",
        "pipeline/deletion/vetoes/expiring.py",
    ),
    _expiry(
        "at the start too",
        "deleting goes on.\n        self._holds = True",
        "deleting goes on.\n        self._holds = False",
        "pipeline/deletion/vetoes/expiring.py",
    ),
    _expiry(
        "asked more often while it waits",
        "min(self._next_check, now + WAITING_CHECK_SECONDS)",
        "self._next_check",
        "pipeline/deletion/vetoes/expiring.py",
    ),
    _expiry(
        "left alone in trouble",
        "if now >= self._next_check and not self._in_trouble():",
        "if now >= self._next_check:",
        "pipeline/deletion/vetoes/expiring.py",
    ),
    _stage(
        "a healed key is noticed",
        "healed(suspects, shipment, context) if suspects else",
        "",
        HEALED,
        "pipeline/revision.py",
    ),
    _stage(
        "a healed key is read",
        "                if not verdict.holds:\n",
        "                if False:\n",
        HEALED,
        "pipeline/healed.py",
    ),
    _stage("a healed key is read twice", "READINGS = 2", "READINGS = 1", HEALED, "pipeline/healed.py"),
    _stage(
        "a key that wavers is left",
        "        context.shipments.doubt(shipment.claim, wavering)\n",
        "",
        HEALED,
        "pipeline/healed.py",
    ),
    _stage(
        "damaged keys of the manifest",
        "{*current.damaged_keys, *added.damaged_keys}",
        "{*added.damaged_keys}",
        HEALED,
        "pipeline/revision.py",
    ),
    _queue(
        "a healed key is known", "queue/shipments.py", "lambda known: known - set(keys)", "lambda known: known", HEALED
    ),
    _queue("what has no proof is tried again", "queue/parked.py", "(NO_PROOF, now, now +", "('', now, now +", HEALED),
    _queue("the pauses of the parked grow", "queue/parked.py", "2.0 ** min(attempts, 20)", "1.0", HEALED),
    _queue(
        "only what has no proof",
        "queue/parked.py",
        "state = 'parked' AND code = ?\"\n",
        "state = 'parked' AND code >= ?\"\n",
        HEALED,
    ),
    Mutation(
        "manifest: the version that is current",
        "archive/layout/instance.py",
        "self.version_id in (None, recorded.version_id)",
        "True",
        CURRENT,
    ),
    _stage(
        "evidence before the manifest",
        "    if file.verified_by is None:\n",
        "    if False:\n",
        EDGES,
        "pipeline/revision.py",
    ),
    _stage(
        "the catalogue read afresh",
        "        recorded = archive.catalogue.get(claim.study_uid)\n",
        "        recorded = manifest.record()\n",
        PURGE,
    ),
    _stage(
        "the catalogue returns nothing",
        "if recorded is None or recorded.revision",
        "if recorded and recorded.revision",
        PURGE,
    ),
    _stage(
        "the catalogue returns an older one",
        "        if recorded is None or recorded.revision < manifest.revision:",
        "        if recorded is None:",
        PURGE,
    ),
    _stage(
        "what is kept",
        "        if is_due(due_at, context.clock.now()):",
        "        if True:",
        PURGE,
        "pipeline/deletion/keeping.py",
    ),
    _stage(
        "the rule of today",
        "        if rule.keep_seconds is None:\n            return None\n",
        "",
        EDGES,
        "pipeline/deletion/policy.py",
    ),
    Mutation(
        "damaged manifest: one reading is enough",
        "archive/layout/manifests.py",
        "if not by_etag and not by_sha256 and at_most(store, key, listed_bytes) != data:",
        "if False:",
        DAMAGED,
    ),
    Mutation(
        "damaged manifest: whatever checksum the store gives",
        "archive/layout/manifests.py",
        'checksum == f"sha256:{found}"',
        "checksum is not None",
        ("tests/unit/test_manifest_reads.py",),
    ),
    Mutation(
        "damaged manifest: whatever its size",
        "archive/layout/manifests.py",
        "if size_bytes is not None and len(data) != size_bytes:",
        "if False:",
        DAMAGED,
    ),
    Mutation(
        "damaged manifest: a newer program's",
        "archive/layout/manifest.py",
        '                if _NEWER.match(raw["format"]):',
        "                if False:",
        DAMAGED,
    ),
    _stage("what a damaged manifest listed", "        instances += again\n", "", DAMAGED, "pipeline/revision.py"),
    Mutation(
        "damaged manifest: an object that cannot be read back",
        "archive/repair/salvage.py",
        'if verdict.problem in ("missing", "unreadable", "cold"):',
        "if False:",
        DAMAGED,
    ),
    Mutation(
        "damaged manifest: an object in cold storage",
        "archive/repair/salvage.py",
        '"unreadable", "cold"):',
        '"unreadable"):',
        COLD,
    ),
    Mutation(
        "damaged manifest: an object with other bytes",
        "archive/repair/salvage.py",
        "        if not verdict.holds:",
        "        if False:",
        DAMAGED,
    ),
    _stage(
        "what is listed already is left out",
        "            if known is None or known.is_found_again or not",
        "            if True or not",
        EDGES,
        "pipeline/revision.py",
    ),
    _stage(
        "what a lost manifest listed",
        "if found.refused or above:",
        "if found.refused:",
        DAMAGED,
        "pipeline/revision.py",
    ),
    _queue(
        "upgrade: at every start",
        "queue/database/upgrade.py",
        'if row is not None and row["value"] == version:',
        "if False:",
        ("tests/unit/test_upgrade.py",),
    ),
    _stage("nothing left to record", "    if not content.files and", "    if False and", EDGES, "pipeline/revision.py"),
    Mutation(
        "manifest: read back",
        "archive/layout/manifests.py",
        "    return hashlib.sha256(stored).hexdigest() == content.digest.sha256",
        "    return True",
        EDGES,
    ),
    Mutation(
        "manifest: a lost one is sent again",
        "archive/layout/manifests.py",
        '    except NoSuchObject as error:\n        raise Transient("the store does not hold',
        '    except NoSuchObject as error:\n        raise\n        raise Transient("the store does not hold',
        EDGES,
    ),
    *(
        Mutation(f"local: {name}", "pipeline/local.py", old, old.replace("require(fd, file.identity)", "pass"), LOCAL)
        for name, old in (
            (
                "what is opened is what was taken up",
                "                require(fd, file.identity)\n            yield directory_fd, fd",
            ),
            ("unchanged once it was read", "            require(fd, file.identity)\n            yield Buffer"),
            ("unchanged once it was hashed", "            require(fd, file.identity)\n            yield _OpenFile"),
            (
                "unchanged once it was sent",
                "        with inboxes.at(source.source_id):\n            require(fd, file.identity)",
            ),
        )
    ),
    # -- the bundled layout
    *(
        Mutation(f"bundle: {name}", file, old, new, tests)
        for name, file, old, new, tests in (
            (
                "the member is what was taken up",
                "pipeline/local.py",
                "            require(fd, file.identity)\n"
                "            heartbeat = stop_check(cancelled, self.inboxes.beat)",
                "            heartbeat = stop_check(cancelled, self.inboxes.beat)",
                FOLDERS,
            ),
            (
                "unchanged once it was read",
                "pipeline/local.py",
                "            heartbeat()\n            require(fd, file.identity)",
                "            heartbeat()",
                FOLDERS,
            ),
            (
                "unchanged once it was sent",
                "pipeline/local.py",
                "        if FileIdentity.of(found) != file.identity:",
                "        if False:",
                FOLDERS,
            ),
            (
                "sent again under the next key",
                "pipeline/sending/bundling.py",
                "max(file.key_attempt for file, _ in members)",
                "1",
                BUNDLED,
            ),
            (
                "what is there is what its key says",
                "pipeline/sending/bundling.py",
                "    if read.sha256 != keys.bundle_sha256(key, found[0][0].header.study_uid):",
                "    if False:",
                BUNDLED,
            ),
            (
                "what is there is where the manifest says",
                "pipeline/sending/bundling.py",
                "        if span in read.held and read.size_bytes == item.object_bytes:",
                "        if True:",
                BUNDLED,
            ),
            (
                "one place for one content",
                "pipeline/sending/quiet.py",
                "    shipments.share_locations(claim)\n",
                "",
                BUNDLED,
            ),
            (
                "a member's bytes, read back",
                "archive/layout/bundle.py",
                "came_in[s] == s.size_bytes and d.hexdigest() == s.sha256",
                "came_in[s] == s.size_bytes",
                BUNDLES_READ,
            ),
            (
                "a member's bytes, fetched",
                "fetch/coalesced.py",
                "came_in == item.size_bytes and digest.hexdigest() == item.sha256",
                "came_in == item.size_bytes",
                BUNDLES_READ,
            ),
            (
                "within the bundle",
                "archive/layout/instance.py",
                "    checked.number(item.offset_bytes, 0, item.object_bytes - item.size_bytes)",
                "    checked.number(item.offset_bytes, 0, item.object_bytes)",
                BUNDLED_MANIFEST,
            ),
            (
                "the bundle of this study",
                "archive/layout/instance.py",
                "    if keys.bundle_sha256(item.key, study) is None:",
                "    if False:",
                BUNDLED_MANIFEST,
            ),
            (
                "apart from each other",
                "archive/layout/instance.py",
                "offset + size > next_offset or whole != next_whole",
                "whole != next_whole",
                BUNDLED_MANIFEST,
            ),
            (
                "of one size",
                "archive/layout/instance.py",
                "offset + size > next_offset or whole != next_whole",
                "offset + size > next_offset",
                BUNDLED_MANIFEST,
            ),
            (
                "a bundle found again is what its key says",
                "archive/repair/salvage.py",
                "        if hashlib.sha256(data).hexdigest() == sha256:",
                "        if True:",
                BUNDLED,
            ),
            (
                "the part that was asked for",
                "archive/stores/ranges.py",
                "first == wanted.offset_bytes and last",
                "last",
                RANGES,
            ),
            (
                "a whole part",
                "archive/stores/ranges.py",
                "    return 0 if fits and whole else None",
                "    return 0 if fits else None",
                RANGES,
            ),
            (
                "a store that ignores Range",
                "archive/stores/ranges.py",
                "        return wanted.offset_bytes if wanted is not None else 0",
                "        return 0",
                RANGES,
            ),
        )
    ),
    # -- evidence
    _evidence("ends that no listing tells", " and not self._store.expiry.is_by_tag", ""),
    _evidence("ends of unknown rules", "return self._store.expiry.rules_known", "return True"),
    _evidence("the size seen", "        if seen.size_bytes != receipt.size_bytes or seen", "        if seen"),
    _evidence("what is withheld", " or seen.is_withheld:", ":"),
    _evidence("the ETag", " and seen.etag == receipt.expected_etag:", ":"),
    _evidence("the ETag is backed", "self._backs.etag_is_content and receipt.expected_etag", "receipt.expected_etag"),
    _evidence(
        "an ETag was computed",
        "self._backs.etag_is_content and receipt.expected_etag is not None",
        "self._backs.etag_is_content",
    ),
    _evidence("the checksum", " and seen.checksum == receipt.expected_checksum:", ":"),
    _evidence("the checksum is backed", "if composed else self._backs.checksum_on_head", "if composed else True"),
    _evidence("that of parts is backed", "self._backs.checksum_of_parts if composed", "True if composed"),
    _evidence(
        "a checksum was computed",
        "        if receipt.expected_checksum is None:\n            return False\n"
        "        composed = of_parts(receipt.expected_checksum)\n",
        "        composed = of_parts(receipt.expected_checksum or '')\n",
    ),
    _evidence("the size read", "        if size_bytes != receipt.size_bytes:", "        if False:"),
    _evidence("the bytes read", "        if sha256.hexdigest() != receipt.sha256:", "        if False:"),
    _evidence(
        "missing",
        '        if seen is None:\n            return Verdict(receipt, False, "", None, "missing", asked_at)',
        '        if seen is None:\n            return Verdict(receipt, True, "", None, "", asked_at)',
    ),
    _evidence(
        "no such object",
        "        except Permanent as error:\n            missing",
        "        except ZeroDivisionError as error:\n            missing",
    ),
    _evidence("the listing of another version", " and (receipt.version_id is None or self._backs.lists_versions)", ""),
    _evidence(
        "the listing of versions",
        "self._store.current_versions(prefix) if with_versions else self._store.listing(prefix)",
        "self._store.listing(prefix)",
    ),
    *(
        Mutation(f"answered ETag: {name}", f"archive/stores/s3/{file}", old, new, ("tests/unit/test_answered_etag.py",))
        for name, file, old, new in (
            (
                "where ETags follow the content",
                "store.py",
                "        if not self._capabilities.etag_follows_content:\n            return None\n",
                "",
            ),
            (
                "an echo where there are echoes",
                "store.py",
                "None if self._capabilities.echoes_checksum else sha256",
                "sha256",
            ),
            ("the echo is ours", "store.py", "else sha256) != sha256:", "else sha256) is None:"),
            (
                "an MD5 where nothing else is known",
                "store.py",
                "(md5 or _md5(data)) if answered_etag is None else None",
                "None",
            ),
            (
                "an MD5 goes with it where nothing else is shown",
                "store.py",
                "        if md5 is not None:\n            arguments",
                "        if False:\n            arguments",
            ),
            ("its own checksum beside it", "store.py", " and there.checksum == checksum\n", "\n"),
            (
                "a checksum that is compared beside it",
                "store.py",
                "backs.etag_follows_content and backs.checksum_on_head and there",
                "backs.etag_follows_content and there",
            ),
            (
                "an ETag that follows beside it",
                "store.py",
                "backs.etag_follows_content and backs.checksum_on_head and there",
                "backs.checksum_on_head and there",
            ),
            ("the same everywhere", "probe.py", "if len(shown) != 1 or None in shown:", "if None in shown:"),
            ("an ETag everywhere", "probe.py", "if len(shown) != 1 or None in shown:", "if len(shown) != 1:"),
            ("another content has another", "probe.py", "len({*etags, of_another}) == 3)", "True)"),
            (
                "a store that overwrites nothing",
                "probe.py",
                "(Permanent, CredentialsRefused, Conflict)",
                "(Permanent, CredentialsRefused)",
            ),
            ("an answer that was lost", "probe.py", "isinstance(error, Conflict) and not etags", "False"),
            (
                "trouble with an overwriting",
                "probe.py",
                "(Permanent, CredentialsRefused, Conflict)",
                "(Permanent, Transient)",
            ),
            ("another object has another", "probe.py", "len({*etags, of_another}) == 3)", "len({*etags}) == 2)"),
            (
                "the same of what was sent once",
                "probe.py",
                "answered_etag is not None and etags == [answered_etag] * 3",
                "answered_etag is not None",
            ),
            (
                "an ETag of what was sent once",
                "probe.py",
                "answered_etag is not None and etags == [answered_etag] * 3",
                "etags == [answered_etag] * 3",
            ),
            (
                "the version that was answered",
                "probe.py",
                "found == {(self._scratch + name, version_id, etag_of(response))}",
                "bool(found)",
            ),
        )
    ),
    _evidence("the ETag of the answer", " and seen.etag == receipt.answered_etag:", ":"),
    _evidence(
        "the ETag of the answer is backed",
        "if in_parts else self._backs.etag_follows_content",
        "if in_parts else True",
    ),
    _evidence(
        "that of a completion is backed",
        "self._backs.etag_follows_parts if in_parts",
        "True if in_parts",
    ),
    _evidence(
        "a completion is told from a creation",
        "        in_parts = etags.is_composed(receipt.answered_etag)\n",
        "        in_parts = False\n",
    ),
    _evidence(
        "an answer had an ETag",
        "        if receipt.answered_etag is None:\n            return False\n"
        "        in_parts = etags.is_composed(receipt.answered_etag)\n",
        "        in_parts = etags.is_composed(receipt.answered_etag or '')\n",
    ),
    _evidence(
        "what is current is looked at",
        "            seen = self._store.head(receipt.key)\n        except",
        "            seen = self._store.head(receipt.key, receipt.version_id)\n        except",
    ),
    _evidence(
        "what is current is read", "self._store.read(receipt.key)", "self._store.read(receipt.key, receipt.version_id)"
    ),
    _evidence(
        "a listing is as old as its beginning",
        "        asked_at = self._now()\n        wanted =",
        "        asked_at = self._now() + 100\n        wanted =",
    ),
    _evidence(
        "a look is as old as its request",
        "return receipt, seen, self.by_listing(receipt, seen, asked_at)",
        "return receipt, seen, self.by_listing(receipt, seen, self._now())",
    ),
    _evidence(
        "a reading is as old as its beginning",
        'Verdict(receipt, True, Method.READ_BACK, seen, "", asked_at)',
        'Verdict(receipt, True, Method.READ_BACK, seen, "", self._now())',
    ),
    _evidence(
        "a listing proves no absence",
        "verdict is not None and verdict.holds and is_looked_at",
        "verdict is not None and is_looked_at",
    ),
    _evidence("what a listing does not tell of a key", " and not verifier.may_be_withheld(verdict):", ":"),
    _evidence("an object of unknown age", "return stored_at is None or abs", "return stored_at is not None and abs"),
    _evidence("how long a key was usable", " > KEY_USABLE_SECONDS", " > 1e9"),
    _evidence("an object of the future", "abs(verdict.asked_at - stored_at)", "(verdict.asked_at - stored_at)"),
    # -- the queue
    _queue("the token", "queue/transitions.py", 'row["token"] != claim.token or not', "not", CLAIMS),
    _queue("announced", "queue/transitions.py", "        db.transitions.append(transition)\n", "", OPENING),
    _queue(
        "the last change's word",
        "queue/database/schema.py",
        "with self.around(), self._mutex, self._noted(), _translated():",
        "with self._noted(), self.around(), self._mutex, _translated():",
        ("tests/unit/test_status_reporter.py",),
    ),
    _queue(
        "announced once it is durable",
        "queue/database/schema.py",
        "                yield transaction\n",
        "                yield transaction\n                list(map(self._announce, transaction.transitions))\n"
        "                transaction.transitions.clear()\n",
        OPENING,
    ),
    _queue("claimed at all", "queue/transitions.py", ' or not row["claimed"]:', ":", CLAIMS),
    _queue("evidence of this claim", "queue/rows.py", ' and row["evidence_token"] == token', "", CLAIMS),
    _queue(
        "the token of a study that comes again",
        "queue/arrivals.py",
        "SELECT COALESCE(MAX(transition_id), 0) FROM",
        "SELECT 0 FROM",
        CLAIMS,
    ),
    _queue(
        "a deletion under way",
        "queue/arrivals.py",
        '                    if old["state"] == FileState.DELETING:\n                        continue\n',
        "",
        CLAIMS,
    ),
    _queue(
        "a deletion under way is not forgotten",
        "queue/arrivals.py",
        '"DELETE FROM files WHERE file_id = ? AND state != ? RETURNING',
        '"DELETE FROM files WHERE file_id = ? AND ? != 1 RETURNING',
        CLAIMS,
    ),
    _queue(
        "authorised as it was",
        "queue/deletions.py",
        '"UPDATE files SET state = ? WHERE file_id = ? AND identity = ? AND state = ?"',
        '"UPDATE files SET state = ? WHERE file_id = ? AND ? != 1 AND ? != 1"',
        CLAIMS,
    ),
    _queue(
        "a file that goes is counted no more",
        "queue/database/steps.py",
        "CREATE TRIGGER files_go AFTER DELETE ON files BEGIN\n  UPDATE file_counts SET files = files - 1",
        "CREATE TRIGGER files_go AFTER DELETE ON files BEGIN\n  UPDATE file_counts SET files = files - 0",
        PLANS,
    ),
    _queue(
        "a study that changes its state is counted anew",
        "queue/database/steps.py",
        "AFTER UPDATE OF state ON studies WHEN OLD.state != NEW.state BEGIN",
        "AFTER UPDATE OF state ON studies WHEN OLD.state = NEW.state BEGIN",
        PLANS,
    ),
    _queue(
        "an index for what is due",
        "queue/claims.py",
        "f.due_at IS NOT NULL AND f.due_at <= ?",
        "f.due_at <= ?",
        PLANS,
    ),
    _queue(
        "what is due of a study at rest",
        "queue/claims.py",
        " AND s.state = 'archived' ORDER BY f.due_at LIMIT 1",
        " ORDER BY f.due_at LIMIT 1",
        PLANS,
    ),
    _queue(
        "another destination",
        "queue/bindings/binding.py",
        "            if changed:\n",
        "            if False:\n",
        OPENING,
    ),
    _queue(
        "another archive",
        "queue/bindings/binding.py",
        '(self._get("archive_id"), self._get("destination")) not in',
        '("archive-1", self._get("destination")) not in',
        OPENING,
    ),
    _queue(
        "receipts of another destination",
        "queue/bindings/binding.py",
        "SET state = ?, receipt = NULL, evidence = NULL",
        "SET state = ?, evidence = NULL",
        OPENING,
    ),
    _queue(
        "receipts of kept files",
        "queue/bindings/binding.py",
        "SET receipt = NULL WHERE state = ?",
        "SET size_bytes = size_bytes WHERE state = ?",
        OPENING,
    ),
    _queue(
        "a kept file falls due here alone",
        "queue/claims.py",
        "f.due_at <= ? AND f.receipt IS NOT NULL",
        "f.due_at <= ?",
        OPENING,
    ),
    _queue(
        "a second daemon",
        "queue/database/schema.py",
        "fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        OPENING,
    ),
    _queue(
        "a newer state", "queue/database/schema.py", "        if version > len(steps):", "        if False:", OPENING
    ),
    _queue("durable", "queue/database/schema.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL", OPENING),
    _queue(
        "taken back",
        "queue/database/schema.py",
        '                        self._connection.execute("ROLLBACK")',
        "                        pass",
        OPENING,
    ),
    _queue(
        "the audit's hash",
        "queue/audit.py",
        "                or hashlib.sha256(text.encode()).hexdigest() != entry.hash\n",
        "",
        AUDIT,
    ),
    _queue(
        "the audit's chain",
        "queue/audit.py",
        '                or entry.body.get("previous") != previous\n',
        "",
        AUDIT,
    ),
    _queue(
        "the audit's numbers",
        "queue/audit.py",
        '                entry.sequence != expected\n                or entry.body.get("sequence") != expected\n',
        "                False\n",
        AUDIT,
    ),
    *(
        Mutation(f"anchor: {name}", file, old, new, ANCHORS)
        for name, file, old, new in (
            ("a chain that ends too early", "audit/checkpoints.py", "    if found is None:", "    if False:"),
            (
                "the hash of the entry",
                "audit/checkpoints.py",
                '"fits" if found == published.sha256 else "differs"',
                '"fits"',
            ),
            (
                "a copy of the state",
                "audit/checkpoints.py",
                "        if not self._has_read or head.sequence > self.published:",
                "        if not self._has_read:",
            ),
            ("no newer head over it", "audit/checkpoints.py", "        if self.is_bad or head", "        if head"),
            ("bad for good", "audit/checkpoints.py", "        if self.is_bad:\n            return\n", ""),
            (
                "what the store holds",
                "archive/layout/audit_checkpoints.py",
                "    return _load(store, head.key)\n",
                "    return head\n",
            ),
            (
                "the head its key names",
                "archive/layout/audit_checkpoints.py",
                "    if head.key != key:",
                "    if False:",
            ),
            (
                "read twice",
                "archive/layout/audit_checkpoints.py",
                "    if _read_once(store, key) != first:",
                "    if False:",
            ),
            ("the newest first", "archive/keys.py", "HIGHEST_SEQUENCE - sequence:012d", "sequence:012d"),
        )
    ),
    *(
        Mutation(f"segments: {name}", file, old, new, tests)
        for name, file, old, new, tests in (
            (
                "nothing goes before it was read back",
                "queue/segments.py",
                " audit_segments WHERE sealed_at IS NOT NULL ORDER BY last DESC LIMIT 1) ORDER BY",
                " audit_segments ORDER BY last DESC LIMIT 1) ORDER BY",
                SEALING,
            ),
            (
                "it is read back",
                "audit/sealing.py",
                "            found, _ = audit_segments.read_checked(self._store, name)\n",
                "            found = header\n",
                SEALING,
            ),
            (
                "another key than a damaged one",
                "audit/sealing.py",
                "                self._segments.another_key(segment)\n",
                "                pass\n",
                SEALING,
            ),
            (
                "not every key of a store that damages",
                "audit/sealing.py",
                "segment.attempt < _MOST_ATTEMPTS",
                "segment.attempt < 50",
                SEALING,
            ),
            ("a broken chain", "audit/sealing.py", "        if broken_at is not None:", "        if False:", SEALING),
            (
                "only what is published",
                "audit/checkpoints.py",
                "return self._audit.head().sequence if self.is_bad else self.published",
                "return self._audit.head().sequence",
                SEALING,
            ),
            (
                "a chain that was cut goes on",
                "audit/checkpoints.py",
                "return self._audit.head().sequence if self.is_bad else self.published",
                "return self.published",
                SEALING,
            ),
            (
                "the same bounds after a crash",
                "audit/sealing.py",
                "self._segments.under_way() or self._segments.begin(",
                "self._segments.begin(",
                SEALING,
            ),
            (
                "the chain goes on from what is sealed",
                "queue/audit.py",
                'return sealed if row is None or row["sequence"] <= sealed[0] else',
                "return (0, FIRST) if row is None else",
                SEALING,
            ),
            (
                "what is sealed is not looked for here",
                "queue/audit.py",
                "(study_uid, sealed_end(db)[0])",
                "(study_uid, 0)",
                SEALING,
            ),
            (
                "the head at a segment's end",
                "queue/audit.py",
                'WHERE last = ? AND sealed_at IS NOT NULL", (sequence,)',
                'WHERE last = -? AND sealed_at IS NOT NULL", (sequence,)',
                SEALING,
            ),
            (
                "one that is old is finished",
                "queue/segments.py",
                'if last < end + entries and not _written_before(first["entry"], self._clock.now() - seconds):',
                "if last < end + entries:",
                SEALING,
            ),
            (
                "which entry follows: its number",
                "archive/layout/audit_segments.py",
                'body["sequence"] != sequence or ',
                "",
                PROVING,
            ),
            (
                "which entry follows: the one before",
                "archive/layout/audit_segments.py",
                ' or body["previous"] != previous or',
                " or",
                PROVING,
            ),
            ("the end", "archive/layout/audit_segments.py", "walk.sequence != name.last + 1:", "False:", PROVING),
            (
                "the head of the header",
                "archive/layout/audit_segments.py",
                "    if walk.previous != header.head:",
                "    if False:",
                PROVING,
            ),
            (
                "what the key names",
                "archive/layout/audit_segments.py",
                "    if content.hexdigest() != name.sha256:",
                "    if False:",
                PROVING,
            ),
            (
                "the chain of the header",
                "archive/layout/audit_segments.py",
                "    if not fits:",
                "    if False:",
                PROVING,
            ),
            (
                "two readings",
                "archive/layout/audit_segments.py",
                "    if not isinstance(again, BadSegment):\n        return again\n",
                "",
                SEALING,
            ),
            ("one that is missing", "audit/proving.py", "        if not is_there:", "        if False:", PROVING),
            (
                "one of another size",
                "audit/proving.py",
                "                if seen[1] != segment.size_bytes:",
                "                if False:",
                PROVING,
            ),
            (
                "one that was never sealed",
                "audit/proving.py",
                '            found.problems.append(f"there is a segment of {name.text} that was never sealed")',
                "            pass",
                PROVING,
            ),
            (
                "more in the archive than here",
                "audit/proving.py",
                "        if end is not None and name.last > end:",
                "        if end is not None:\n            continue\n        if False:",
                PROVING,
            ),
            ("the list of them", "audit/proving.py", "    if misfit is not None:", "    if False:", PROVING),
            (
                "its place between the others",
                "audit/proving.py",
                "    if (header.previous, header.head) != (segment.previous, segment.head):",
                "    if False:",
                PROVING,
            ),
            (
                "a gap in an old chain",
                "audit/proving.py",
                "        if header.first > self.end + 1:",
                "        if False:",
                PROVING,
            ),
            (
                "what does not follow in an old chain",
                "audit/proving.py",
                "        elif header.previous != self.head:",
                "        elif False:",
                PROVING,
            ),
            (
                "what was published of an old chain",
                "audit/proving.py",
                'hashlib.sha256(text.encode("ascii")).hexdigest() != newest.sha256',
                "False",
                PROVING,
            ),
            (
                "this chain's alone",
                "archive/layout/audit_segments.py",
                "store.listing(keys.audit_segments_prefix(chain_id)):",
                'store.listing(f"{keys.AUDIT}segments/"):',
                PROVING,
            ),
        )
    ),
    *(
        Mutation(f"pruning: {name}", file, old, new, PRUNED)
        for name, file, old, new in (
            (
                "a study whose files are here",
                "queue/database/pruning.py",
                'if db.execute("SELECT 1 FROM files WHERE study_uid = ? LIMIT 1", (row["study_uid"],)).fetchone():',
                "if False:",
            ),
            (
                "the newest step stays",
                "queue/database/pruning.py",
                " AND transition_id < (SELECT MAX(transition_id) FROM transitions) AND (NOT EXISTS (SELECT 1 FROM",
                " AND (NOT EXISTS (SELECT 1 FROM",
            ),
            ("half recorded", "queue/database/pruning.py", "event NOT IN ('verified', 'recorded') OR", "1 OR"),
            ("recorded since", "queue/database/pruning.py", "NOT IN ('verified', 'recorded')", "NOT IN ('verified')"),
            ("a study once a day", "queue/database/pruning.py", "            0 if again else 1,", "            1,"),
            (
                "the attributes come back",
                "queue/arrivals.py",
                'return json.dumps(filled_up(json.loads(known), attributes) if known != "{}" else attributes)',
                "return known",
            ),
            (
                "the attributes are asked for",
                "queue/arrivals.py",
                "(state != 'archived' OR EXISTS (SELECT 1 FROM files f WHERE f.study_uid = studies.study_uid))",
                "study_uid != ''",
            ),
        )
    ),
    Mutation(
        "recovery: known again by its inode",
        "pipeline/deletion/staging/recover.py",
        "    if found is not None and found.same_but_ctime(was):",
        "    if place.here:",
        ENDINGS,
    ),
    Mutation(
        "recovery: an inbox that is not mounted",
        "pipeline/deletion/staging/recover.py",
        "    if place.device == was.dev:",
        "    if True:",
        ENDINGS,
    ),
    *(
        Mutation(f"recovery: {name}", file, old, new, ENDINGS)
        for name, file, old, new in (
            (
                "the inbox is another folder",
                "pipeline/deletion/staging/recover.py",
                "known_root not in (None, place.root)",
                "False",
            ),
            (
                "the folder is known before the crash",
                "daemon/startup.py",
                "            recover.know_root(self._queue.deletions, self._sources.by_id[source_id], recovered)\n",
                "            pass\n",
            ),
            ("nobody is at it after a restart", "queue/deletions.py", " AND s.claimed = 1", ""),
        )
    ),
    # -- the archive as its own inbox
    *(
        Mutation(f"own: {name}", file, old, new, OWN)
        for name, file, old, new in (
            ("a mark in the directory", "intake/scan.py", "    if signs and (mark", "    if False and (mark"),
            (
                "a mark above a hint",
                "markers.py",
                "        if (name := sign_in(directory_fd)) is not None:",
                "        if False:",
            ),
            ("a mark above the inbox", "intake/folder/own_trees.py", "= markers.is_below(root_fd)", "= False"),
            (
                "a released archive",
                "markers.py",
                "        if name not in _OLDER:\n            return name",
                "        return name",
            ),
            (
                "the same inode",
                "archive/stores/directory/store.py",
                "(seen.st_dev, seen.st_ino) == (found.st_dev, found.st_ino)",
                "False",
            ),
            (
                "an object's own name",
                "archive/stores/directory/store.py",
                'path.rpartition(b"/")[2] == own_name or ',
                "",
            ),
            ("an object's path", "archive/stores/directory/store.py", " or _LIKE_AN_OBJECT.search(path)", ""),
            (
                "gone while it was staged",
                "pipeline/deletion/batch.py",
                "one.key in gone or one.stands is Standing.MISSING]",
                "False]",
            ),
            (
                "a mark while it is shipped",
                "pipeline/deletion/batch.py",
                "            if in_own_tree(self.policy.source(first), first.dir):",
                "            if False:",
            ),
            (
                "before it is decided on",
                "pipeline/deletion/keeping.py",
                "    _keep_own(objects, shipment, context)\n",
                "",
            ),
            (
                "no verified copy",
                "queue/uploads.py",
                "verified=kept[0] - own - damaged + deleted_files",
                "verified=kept[0] - damaged + deleted_files",
            ),
            (
                "own names",
                "intake/scan.py",
                "            if name.startswith(markers.OWN):",
                "            if name.startswith(STAGING_NAME):",
            ),
            (
                "a released archive is marked",
                "archive/stores/directory/store.py",
                "            self._mark(root_fd)\n",
                "",
            ),
            ("a state is marked", "queue/database/schema.py", "        _mark(state_directory)\n", ""),
            ("upload", "uploads/reception.py", "markers.sign_in(again) is not None or ", ""),
        )
    ),
    *(Mutation(*row) for row in CLOUD),
    *(Mutation(*row) for row in COMPOSITION),
    *(Mutation(*row) for row in FAIRNESS),
    *(Mutation(*row) for row in HANDED_IN),
    *(Mutation(*row) for row in HELD),
    *(Mutation(*row) for row in AT_ONCE),
    *(Mutation(*row) for row in PACING),
    *(Mutation(*row) for row in INBOXES),
    *(Mutation(*row) for row in LAST_SIGHT),
    *(Mutation(*row) for row in ERASED),
    *(Mutation(*row) for row in PARTS),
    *(Mutation(*row) for row in PLANTED),
    *(Mutation(*row) for row in ROOTS),
    *(Mutation(*row) for row in SERIES),
    *(Mutation(*row) for row in SETUP),
    *(Mutation(*row) for row in ALARMS),
    *(Mutation(*row) for row in SITES),
    *(Mutation(*row) for row in FIGURES),
    *(Mutation(*row) for row in UPLOADS),
    *(Mutation(*row) for row in LINEAGE),
    *(Mutation(*row) for row in LIMITS),
    *(Mutation(*row) for row in LOGGED),
    *(Mutation(*row) for row in METRICS),
    *(Mutation(*row) for row in COMMITMENT),
    *(Mutation(*row) for row in DRILL),
    *(Mutation(*row) for row in (*WEB, *ACCESS, *DICOMWEB)),
    *(Mutation(*row) for row in PAGE),
    *(Mutation(*row) for row in PROTECTION),
    *(Mutation(*row) for row in SAME_PLACE),
    *(Mutation(*row) for row in RECEIVER),
    *(Mutation(*row) for row in HANDED_OUT),
    # -- several daemons at one inbox, and what a crash leaves aside
    *(
        Mutation(f"staging: {name}", file, old, new, STAGING)
        for name, file, old, new in (
            (
                "a name of its own",
                "pipeline/deletion/staging/private.py",
                'secrets.token_hex(8).encode("ascii")',
                'b"same"',
            ),
            (
                "its owner lives",
                "pipeline/deletion/staging/recover.py",
                "            if not is_left:",
                "            if False:",
            ),
            (
                "whose owner is gone",
                "pipeline/deletion/staging/private.py",
                "yield _lock(fd) is not Held.BY_ANOTHER",
                "yield False",
            ),
            (
                "without locks it counts as left",
                "pipeline/deletion/staging/private.py",
                "yield _lock(fd) is not Held.BY_ANOTHER",
                "yield _lock(fd) is Held.BY_US",
            ),
            (
                "its own looks",
                "pipeline/deletion/staging/recover.py",
                ", partial(deletions.is_at, source.source_id), only)",
                ", only=only)",
            ),
            (
                "of the first release",
                "pipeline/deletion/staging/private.py",
                "    return name == STAGING_NAME or ",
                "    return ",
            ),
            (
                "a name alone",
                "pipeline/deletion/staging/staged.py",
                '    return re.sub(rb"\\A~[0-9a-f]{16}~", b"", ',
                "    return (",
            ),
            (
                "found by looks",
                "intake/traversal.py",
                "        self._leftovers.end_scan()\n",
                "",
            ),
            ("a former path is kept", "queue/arrivals.py", "                _leave(db, row, self._clock.now())\n", ""),
            (
                "a former path until nothing lies there",
                "pipeline/deletion/staging/recover.py",
                "        return self.root is not None and self.is_searched and not self.left and not self.owned",
                "        return True",
            ),
            (
                "a former path with an open end",
                "queue/arrivals.py",
                ' AND created_at <= ? AND NOT EXISTS"\n                    "',
                ' AND created_at <= ? AND 1 OR EXISTS"\n                    "',
            ),
            (
                "a former path that is away",
                "queue/arrivals.py",
                "        before = self._clock.now() - FORGET_SECONDS if unseen else math.inf",
                "        before = math.inf",
            ),
            (
                "an inbox that is away ends nothing",
                "pipeline/deletion/staging/recover.py",
                "        except _Away:\n            left.away.extend(these)\n            continue\n",
                "        except _Away:\n            place = _Found(0, 0, {}, {})\n",
            ),
            (
                "closed once",
                "pipeline/deletion/staging/staged.py",
                "            copy_fd = source.open()\n            stack",
                "            os.close(copy_fd)\n            copy_fd = source.open()\n            stack",
            ),
        )
    ),
)
