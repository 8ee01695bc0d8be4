"""Mutants of what lets a person delete a folder that was handed in, and of how uploads end: rows of
`mutations.Mutation`."""

from __future__ import annotations

CLAUSES = ("tests/unit/test_final_scan_clauses.py",)
SAID = ("tests/unit/test_cli_daemon.py::test_only_a_wholly_verified_folder_is_called_deletable",)

UPLOADS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "upload: who is at a file is waited for",
        "uploads/job.py",
        "pending(unclaimed_of=source_id)",
        "pending()",
        ("tests/unit/test_uploads.py::test_a_comparison_that_takes_long_is_not_cut_off_by_a_cancellation",),
    ),
    *(
        (f"last look: {name}", "intake/final_scan.py", old, new, CLAUSES)
        for name, old, new in (
            ("oddities count", "        return not self.odd and not self.barred", "        return not self.barred"),
            ("quarantine counts", "        return not self.odd and not self.barred", "        return not self.odd"),
            (
                "which folder",
                '        if not self._is_root(root_fd):\n            findings.name(b"", EXCHANGED)',
                "        if False:\n            pass",
            ),
            ("the folder in the end", "        self._require_still_there(root_fd, findings)\n", ""),
            (
                "another folder in the end",
                "            if not self._is_root(there_fd):\n                findings",
                "            if False:\n                findings",
            ),
            (
                "an unlistable folder",
                "            _trouble(findings, parent, error, UNLISTED if",
                "            str(UNLISTED if",
            ),
            (
                "an entry that cannot be looked at",
                "                        _trouble(findings, join(parent, name), error, NOT_ASKED)\n",
                "",
            ),
            ("too deep", "                findings.name(parent, TOO_DEEP)\n", ""),
            ("private names", "            findings.name(path, PRIVATE)\n", ""),
            (
                "an own tree",
                "            findings.barred += 1\n        else:\n            findings.name(parent",
                "            pass\n        else:\n            findings.name(parent",
            ),
            (
                "no record",
                "            findings.name(path, CAME_LATER, news=True)\n",
                "            findings.archived += 0\n",
            ),
            ("identity", "    elif known.identity != identity:", "    elif False:"),
            ("no end", "        findings.name(path, NOT_ENDED, news=True)\n", "        findings.archived += 1\n"),
            (
                "a record without its file",
                "            if name not in here and _is_of_a_file(one):",
                "            if False:",
            ),
            ("a record without its folder", "            if parent not in seen:", "            if False:"),
            ("what has vanished", "        for path, how_far in gone:", "        for path, how_far in ():"),
            ("more than are listed", "        findings.odd += count - len(gone)\n", ""),
            (
                "late things are news",
                "        findings.name(path, CAME_LATER, news=True)",
                "        findings.name(path, CAME_LATER)",
            ),
        )
    ),
    *(
        (f"complete: {name}", "upload_result.py", old, new, CLAUSES)
        for name, old, new in (
            ("outcome", "        outcome == FINISHED\n        and expires", "        expires"),
            ("the archive's end", "        and expires is None\n", ""),
            ("findings", "        and findings.accounted_for\n", ""),
            ("count", "        and not count\n", ""),
            (
                "each verified file was met",
                "        and progress.verified == findings.archived + progress.deleted\n",
                "",
            ),
            ("each ignored file was met", "        and progress.ignored == findings.ignored\n", ""),
            ("all files", "        and progress.verified + progress.ignored == progress.files\n", ""),
            ("something", "        and progress.verified > 0\n", ""),
        )
    ),
    *(
        (f"said of an upload: {name}", "upload_text.py", old, new, SAID)
        for name, old, new in (
            ("complete", '        and result.get("complete") is True\n', ""),
            ("done", '        result.get("done") is True\n        and', "        True and"),
            ("failed", '        and not result.get("failed")\n', ""),
            ("failed files", '        and not result.get("failed_files")\n', ""),
            ("all files", "        and verified + ignored == files\n", ""),
            ("missing images", '        and not _number(_dicomdir(result), "missing")\n', ""),
        )
    ),
    *(
        (f"disc: {name}", file, old, new, (f"tests/unit/test_disc.py::{test}",))
        for name, file, old, new, test in (
            (
                "a folder with other files is not to be deleted",
                "upload_result.py",
                "is_deletable and not seen.not_dicom",
                "is_deletable",
                "test_a_patients_cd_is_archived_and_what_is_no_image_is_left_alone",
            ),
            (
                "what is listed and missing is named",
                "intake/listed.py",
                "                name(image.path, MISSING)\n",
                "",
                "test_an_image_that_is_listed_and_not_there_is_named",
            ),
            (
                "what is listed and no DICOM is named",
                "intake/listed.py",
                "                name(image.path, DAMAGED)\n",
                "                pass\n",
                "test_a_listed_picture_is_called_damaged",
            ),
            (
                "an archive file that nothing accounts for is named",
                "intake/final_scan.py",
                "            if not lists.covers(path):",
                "            if False:",
                "test_what_may_hold_images_is_named",
            ),
            (
                "noise under an image's name is a failure",
                "intake/dicom/other.py",
                "    if _may_be_an_image(name):\n",
                "    if False:\n",
                "test_what_is_taken_for_no_image_without_a_list",
            ),
            (
                "an empty image is a failure",
                "intake/dicom/other.py",
                "        if image_by_ending or (",
                "        if False and (",
                "test_what_is_taken_for_no_image_without_a_list",
            ),
        )
    ),
    *(
        (f"upload: {name}", file, old, new, (f"tests/unit/{tests}",))
        for name, file, old, new, tests in (
            (
                "a second look",
                "uploads/job.py",
                "        if findings.accounted_for and job.in_order_at is None:",
                "        if False:",
                "test_uploads_final_scan.py::test_what_comes_between_the_two_last_looks_is_archived_too",
            ),
            (
                "late things go round again",
                "uploads/job.py",
                "        elif findings.news and job.rounds < ROUNDS:",
                "        elif False:",
                "test_uploads_final_scan.py::test_what_comes_late_is_archived_too",
            ),
            (
                "it goes round so often",
                "uploads/job.py",
                "findings.news and job.rounds < ROUNDS:",
                "findings.news:",
                "test_uploads_final_scan.py::test_a_folder_that_grows_at_every_last_look_ends_and_the_last_one_is_named",
            ),
            (
                "what was archived long ago is asked for again",
                "uploads/job.py",
                "                if self._is_asked_again(job):\n                    return\n",
                "",
                "test_uploads.py::test_what_was_archived_days_before_the_end_is_looked_at_once_more",
            ),
            (
                "a slow store is not asked for ever",
                "uploads/job.py",
                "        if job.doubts < ROUNDS and uploads.doubt(",
                "        if uploads.doubt(",
                "test_uploads.py::test_a_store_too_slow_for_young_evidence_is_not_asked_for_ever",
            ),
            (
                "what could not be asked for again is named",
                "uploads/job.py",
                "            self._name_unasked(job, findings)\n",
                "            pass\n",
                "test_uploads.py::test_nothing_is_said_of_a_study_that_cannot_be_asked_for_once_more",
            ),
            (
                "a study that is not at rest is waited for, to be asked for again",
                "uploads/job.py",
                "        return now - job.unasked_since < UNASKED_SECONDS",
                "        return False",
                "test_uploads.py::test_a_study_that_comes_to_rest_meanwhile_is_asked_for_once_more",
            ),
            (
                "a last look that was broken off is made again",
                "intake/final_scan.py",
                "        except (Transient, OSError):",
                "        except Transient:",
                "test_uploads_final_scan.py::test_a_last_look_that_the_folder_breaks_off_is_not_waited_for",
            ),
            (
                "a folder that is gone ends it",
                "uploads/job.py",
                "        return self._clock.monotonic() - job.away_since >= GONE_SECONDS",
                "        return False",
                "test_uploads.py::test_a_folder_that_vanished_ends_its_upload",
            ),
            (
                "patience",
                "uploads/job.py",
                "        return now - job.restless[1] >= patience",
                "        return False",
                "test_uploads_final_scan.py::test_a_file_that_is_written_on_and_on_is_named_in_the_end",
            ),
            (
                "no patience",
                "uploads/job.py",
                "        return now - job.restless[1] >= patience",
                "        return True",
                "test_uploads_final_scan.py::test_a_file_that_is_written_on_and_on_is_named_in_the_end",
            ),
            (
                "a cancelled one deletes nothing",
                "uploads/jobs.py",
                '            return job.upload.stage == "running"\n        known',
                "            return True\n        known",
                "test_uploads.py::test_cancelled_in_the_midst_of_a_shipment",
            ),
            (
                "with and without --delete",
                "uploads/jobs.py",
                "    if running.source.delete_local != delete:",
                "    if False:",
                "test_uploads.py::test_the_same_folder_without_delete_is_not_taken_for_the_one_with",
            ),
            (
                "a file without an end",
                "queue/uploads.py",
                "            if counted.deleting or (counted.waiting and not unfinished):",
                "            if counted.deleting:",
                "test_queue_uploads.py",
            ),
            (
                "a deletion under way",
                "queue/uploads.py",
                "            if counted.deleting or (counted.waiting and not unfinished):",
                "            if counted.waiting and not unfinished:",
                "test_queue_uploads.py",
            ),
            (
                "another source holds the study",
                "queue/uploads.py",
                '                if still["quiet"] == 0 or (still["quiet"] and waits.look_again(db, study_uid)):',
                "                if False:",
                "test_queue_uploads.py",
            ),
            (
                "no source holds the study",
                "queue/uploads.py",
                '                leave_arriving(db, study_uid, still["quiet_at"] or now, now)\n',
                "",
                "test_queue_uploads.py",
            ),
            (
                "a claim is revoked",
                "queue/uploads.py",
                "                state in _SHIPPED_FROM or (",
                "                (",
                "test_queue_uploads.py",
            ),
            (
                "a parked study is let go",
                "queue/uploads.py",
                " or (state is StudyState.PARKED and not _has_files_to_ship(db, study_uid))",
                "",
                "test_queue_uploads.py",
            ),
            (
                "results are kept",
                "queue/uploads.py",
                "(self._clock.now() - KEPT_SECONDS, KEPT_RESULTS)",
                "(self._clock.now() - KEPT_SECONDS / 2, KEPT_RESULTS)",
                "test_queue_uploads.py",
            ),
            (
                "results go",
                "queue/uploads.py",
                "\"DELETE FROM uploads WHERE stage = 'ended' AND (ended_at < ? OR",
                "\"DELETE FROM uploads WHERE stage = 'ended' AND (ended_at < ? AND 0 OR",
                "test_queue_uploads.py",
            ),
            (
                "nothing comes of an ended one",
                "queue/arrivals.py",
                "            if source is None:\n                return\n",
                "",
                "test_queue_uploads.py",
            ),
            (
                "all that was seen is owed",
                "queue/arrivals.py",
                "                _owe_an_account(db, source_id, arrivals)\n",
                "                pass\n",
                "test_queue_uploads.py",
            ),
            (
                "a deletion on record after a crash",
                "queue/deletions.py",
                '                upload_deleted(db, row["source_id"], deleting.dir, deleting.name)\n',
                "",
                "test_queue_uploads.py",
            ),
            (
                "taken back",
                "pipeline/deletion/batch.py",
                "        if not is_due(self.policy.due_at(file), self.services.clock.now()):",
                "        if False:",
                "test_uploads.py::test_cancelled_in_the_midst_of_a_shipment",
            ),
            (
                "left as it is",
                "daemon/startup.py",
                '    return source.kind != "upload" or source.delete_local',
                "    return True",
                "test_uploads.py::test_a_folder_handed_in_without_delete_is_not_tidied",
            ),
        )
    ),
)
