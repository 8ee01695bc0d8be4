"""Mutants of what keeps an erased study from being archived again, or its local files from being deleted: rows of
`mutations.Mutation`."""

from __future__ import annotations

_DAEMON = ("tests/unit/test_erased_studies.py",)
_ARCHIVE = ("tests/unit/test_erasing.py",)
_CLAIMS = ("tests/unit/test_queue_claims.py",)
_STORE = ("tests/unit/test_erasing_s3.py",)
_VERIFICATION = ("tests/unit/test_fixity_erased.py",)

ERASED: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"erased: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "asked before a batch is sent",
            "pipeline/sending/loop.py",
            "        context.erased.require_none(batch.files[0].header.study_uid)\n",
            "        pass\n",
            _DAEMON,
        ),
        (
            "asked right before the unlink",
            "pipeline/deletion/batch.py",
            "        self.services.require_not_erased()\n",
            "",
            _DAEMON,
        ),
        (
            "asked after it was recorded",
            "pipeline/stages.py",
            "        context.erased.require_none_since(claim.study_uid, shipment.erased_through)\n        context.sh",
            "        context.sh",
            _DAEMON,
        ),
        (
            "asked whether another has come since",
            "pipeline/erased.py",
            "        if self.require_none(study) != through_revision:\n",
            "        self.require_none(study)\n        if False:\n",
            _DAEMON,
        ),
        (
            "a proof from before an erasure that is over",
            "pipeline/deletion/policy.py",
            "require_none_since(shipment.claim.study_uid, shipment.erased_through)",
            "require_none(shipment.claim.study_uid)",
            _DAEMON,
        ),
        (
            "what was verified before an erasure that is over",
            "pipeline/stages.py",
            "        context.erased.require_none_since(claim.study_uid, shipment.erased_through)\n        asked_at",
            "        context.erased.require_none(claim.study_uid)\n        asked_at",
            _DAEMON,
        ),
        (
            "what was recorded before an erasure that is over",
            "pipeline/stages.py",
            "        context.erased.require_none_since(claim.study_uid, shipment.erased_through)\n        context.sh",
            "        context.erased.require_none(claim.study_uid)\n        context.sh",
            _DAEMON,
        ),
        (
            "a damaged one hides no other",
            "pipeline/erased.py",
            "                with suppress(Permanent):",
            "                if True:",
            _DAEMON,
        ),
        (
            "what is kept still counts as sent",
            "queue/deletions.py",
            ' WHERE file_id = ? AND identity = ? AND state = ?",\n                    (*becomes',
            " WHERE file_id = ? AND identity = ? AND state <> ? || '.'\",\n                    (*becomes",
            _DAEMON,
        ),
        (
            "a release in the midst of a deletion",
            "queue/holds.py",
            "SET receipt = NULL WHERE study_uid = ? AND state = ?",
            "SET receipt = NULL WHERE study_uid = ? AND state = ? AND 0",
            _DAEMON,
        ),
        (
            "what stays of a deletion after a release",
            "queue/deletions.py",
            "CASE WHEN receipt IS NULL THEN ? ELSE ? END",
            "CASE WHEN 0 THEN ? ELSE ? END",
            _DAEMON,
        ),
        (
            "only what was kept counts",
            "queue/deletions.py",
            "                if changed:\n                    kept.append(file)\n",
            "                kept.append(file)\n",
            _CLAIMS,
        ),
        (
            "what is kept is what was sent",
            "queue/deletions.py",
            ' WHERE file_id = ? AND identity = ? AND state = ?",\n                    (*becomes',
            " WHERE file_id = ? AND ? <> '' AND state = ?\",\n                    (*becomes",
            _CLAIMS,
        ),
        (
            "a look grows old",
            "pipeline/erased.py",
            "    return 0 <= now - asked_at <= LOOK_SECONDS\n",
            "    return True\n",
            _DAEMON,
        ),
        (
            "a release is for the erasures so far",
            "pipeline/erased.py",
            "_number(released) >= erasure.number",
            "_number(released) >= 1",
            _DAEMON,
        ),
        (
            "manifests from before do not count",
            "archive/layout/manifests.py",
            "    ).above(floor)\n",
            "    )\n",
            _DAEMON,
        ),
        (
            "the record comes first",
            "archive/erasing/erasure.py",
            "        erasure = self._on_record(found, because, who)\n        self._wait()\n",
            "        self._wait()\n        erasure = self._on_record(found, because, who)\n",
            _ARCHIVE,
        ),
        (
            "nothing goes before daemons have had time",
            "archive/erasing/erasure.py",
            "        self._wait()\n",
            "",
            _ARCHIVE,
        ),
        (
            "released while it is being erased",
            "pipeline/erased.py",
            "        self._require_ended(erasure)\n",
            "",
            _DAEMON,
        ),
        (
            "its end is asked for",
            "archive/layout/erasures.py",
            "    return store.head(keys.erasure_end(erasure.study_uid, erasure.number)) is not None\n",
            "    return True\n",
            _DAEMON,
        ),
        (
            "half a day is not long ago",
            "archive/layout/erasures.py",
            "ABANDONED_SECONDS = 2 * MOST_SECONDS\n",
            "ABANDONED_SECONDS = MOST_SECONDS / 2\n",
            _DAEMON,
        ),
        (
            "it has ended where nothing is left",
            "archive/erasing/erasure.py",
            "        if left.is_empty:\n            self.objects.adopt(erasures.put_end",
            "        if True:\n            self.objects.adopt(erasures.put_end",
            _DAEMON,
        ),
        (
            "whoever was asleep deletes nothing",
            "archive/erasing/erasure.py",
            "        if self.monotonic() > until[0] or self.now() > until[1]:\n",
            "        if False:\n",
            _DAEMON,
        ),
        (
            "nor who is not the last",
            "archive/erasing/erasure.py",
            "        if erasures.newest_number(self.store, erasure.study_uid) != erasure.number:\n",
            "        if False:\n",
            _DAEMON,
        ),
        (
            "nor takes he the record of what was archived anew",
            "archive/erasing/erasure.py",
            "            self._require_newest(erasure, until)\n            # A daemon",
            "            # A daemon",
            _DAEMON,
        ),
        (
            "one that has not said its end is run again",
            "archive/erasing/erasure.py",
            "        if found.is_empty and not self.is_open(found.study_uid):\n",
            "        if found.is_empty:\n",
            _DAEMON,
        ),
        (
            "what is left of nothing may still be open",
            "cli/studies/erase.py",
            " is not None and not eraser.is_open(study):",
            " is not None:",
            _ARCHIVE,
        ),
        (
            "what is locked is refused",
            "archive/erasing/erasure.py",
            "        if found.locked:\n",
            "        if False:\n",
            _ARCHIVE,
        ),
        (
            "a refusal within a 200",
            "archive/erasing/s3.py",
            '                for one in answer.get("Errors", [])\n',
            "                for one in ()\n",
            _STORE,
        ),
        (
            "a key of another prefix",
            "archive/erasing/s3.py",
            "        if not full.startswith(start):\n",
            "        if False:\n",
            _STORE,
        ),
        (
            "what is on its way of a released study is not called left",
            "archive/fixity/erased.py",
            " and not may_be_on_its_way(one.modified_at, self.seen_at)\n",
            "\n",
            _VERIFICATION,
        ),
        (
            "manifests from before are no part of the archive that is verified",
            "archive/fixity/study.py",
            "Listed(study, revisions, tuple(strangers)).above(floor)",
            "Listed(study, revisions, tuple(strangers))",
            _VERIFICATION,
        ),
        (
            "its reason is in no log",
            "archive/layout/erasures.py",
            '{self.erased_at}", because=self.because\n',
            '{self.erased_at}", hint=self.because, because=self.because\n',
            ("tests/unit/test_erasing.py", "tests/unit/test_series_sent.py", "tests/unit/test_page_sends.py"),
        ),
        (
            "when it was is a time",
            "archive/layout/erasures.py",
            "    if not _TIME.fullmatch(checked.text(value)):\n",
            "    if not checked.text(value):\n",
            _ARCHIVE,
        ),
    )
)
