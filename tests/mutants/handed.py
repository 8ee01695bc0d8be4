"""Mutants of the rights of whoever hands a folder in, and of the descriptors: rows of `mutations.Mutation`."""

from __future__ import annotations

RIGHTS = ("tests/unit/test_rights.py",)
HANDED = "tests/unit/test_handed_rights.py"
FUZZ = (
    "tests/fuzz/test_fuzz_descriptors.py::test_not_exactly_one",
    "tests/fuzz/test_fuzz_descriptors.py::test_a_client_that_goes_away_in_the_middle_of_a_request",
)

HANDED_IN: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"rights: {name}", "rights.py", old, new, RIGHTS)
        for name, old, new in (
            ("the owner's bits", "            allowed = found.st_mode >> 6", "            allowed = found.st_mode"),
            ("further groups", "        mine = {self.gid, *self.groups}", "        mine = {self.gid}"),
            ("the process's own group", "        mine = {self.gid, *self.groups}", "        mine = {*self.groups}"),
            (
                "all that is wanted",
                "        return allowed & wanted == wanted\n\n",
                "        return bool(allowed & wanted)\n\n",
            ),
            (
                "the mask on a user",
                "            return allowed & mask & wanted == wanted",
                "            return allowed & wanted == wanted",
            ),
            ("the mask on a group", "any(allowed & mask & wanted == wanted for", "any(allowed & wanted == wanted for"),
            (
                "a group that is named bars",
                "    if of_groups:",
                "    if any(allowed & mask & wanted == wanted for allowed in of_groups):",
            ),
            (
                "an ACL of an unknown form",
                '        raise OSError(errno.EACCES, "an ACL of an unknown form")',
                "        return None",
            ),
            (
                "an ACL that cannot be read",
                "            return None\n        raise\n",
                "            return None\n        return None\n",
            ),
            (
                "write access to the folder",
                "        if not self._may(directory_fd, directory, WRITE | ENTER):",
                "        if False:",
            ),
            ("entering, to remove", "directory, WRITE | ENTER)", "directory, WRITE)"),
            ("sticky folders", "        return not is_sticky or ", "        return True or "),
            ("the file's owner in a sticky one", "(0, found.st_uid, directory.st_uid)", "(0, directory.st_uid)"),
            ("the folder's owner in a sticky one", "(0, found.st_uid, directory.st_uid)", "(0, found.st_uid)"),
            (
                "listing",
                "        if not self.may(directory_fd, READ | ENTER):",
                "        if not self.may(directory_fd, ENTER):",
            ),
            (
                "entering",
                "        if not self.may(directory_fd, READ | ENTER):",
                "        if not self.may(directory_fd, READ):",
            ),
        )
    ),
    *(
        (f"handed in: {name}", file, old, new, (f"{HANDED}::{test}",))
        for name, file, old, new, test in (
            (
                "the folder itself",
                "uploads/reception.py",
                "        if not asker.may(fd, READ | ENTER):",
                "        if False:",
                "test_a_folder_of_another_user_is_refused",
            ),
            (
                "opened for listing",
                "uploads/reception.py",
                " and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH",
                "",
                "test_what_is_no_folder_that_is_open_for_listing",
            ),
            (
                "a folder",
                "uploads/reception.py",
                "    return stat.S_ISDIR(os.fstat(fd).st_mode) and not",
                "    return not",
                "test_what_is_no_folder_that_is_open_for_listing",
            ),
            (
                "a folder that was removed",
                "uploads/reception.py",
                "os.fstat(again).st_nlink == 0 or not",
                "not",
                "test_what_is_no_folder_that_is_open_for_listing",
            ),
            (
                "folders below",
                "intake/scan.py",
                "directory(root_fd, parent, guard) as fd:",
                "directory(root_fd, parent) as fd:",
                "test_a_folder_below_that_may_not_be_listed",
            ),
            (
                "what the last look names",
                "intake/final_scan.py",
                "directory(root_fd, parent, self._guard) as fd",
                "directory(root_fd, parent) as fd",
                "test_a_folder_below_that_may_not_be_listed",
            ),
            (
                "files",
                "intake/take.py",
                "            if asker is not None and not asker.may(fd, READ):",
                "            if False:",
                "test_files_that_may_not_be_read",
            ),
            (
                "folders on the way to a file",
                "pipeline/local.py",
                "open_directory(root_fd, file.dir, source.guard)",
                "open_directory(root_fd, file.dir)",
                "test_a_folder_that_is_closed_to_its_asker_meanwhile",
            ),
            (
                "deleting, before it is on record",
                "pipeline/deletion/purge.py",
                "    no_right = without_right.among(files, run, policy, services.inboxes)\n",
                "    no_right: list[LocalFile] = []\n",
                "test_files_that_may_not_be_deleted_stay",
            ),
            (
                "deleting",
                "pipeline/deletion/proof.py",
                "                if source.asker is not None and not source.asker.may_remove(",
                "                if source.asker is None and not source.asker.may_remove(",
                "test_a_right_that_is_taken_away_after_it_was_put_on_record",
            ),
            (
                "emptied folders",
                "pipeline/deletion/staging/tidying.py",
                "                if asker is not None and not asker.may_remove(fd, os.stat(",
                "                if asker is None and not asker.may_remove(fd, os.stat(",
                "test_an_emptied_folder_stays_where_its_asker_may_not_remove_it",
            ),
            (
                "who asked is on record",
                "pipeline/deletion/purge.py",
                "proof.for_audit() | _asked_by(policy.source(file))",
                "proof.for_audit()",
                "test_who_asked_is_in_the_audit_chain",
            ),
            (
                "another user's upload",
                "uploads/jobs.py",
                "    if running.asker is not None and asker.uid not in (0, running.asker.uid):",
                "    if False:",
                "test_the_folder_of_another_users_upload",
            ),
            (
                "so many in all",
                "uploads/jobs.py",
                "        if len(jobs) >= reception.MOST_UPLOADS or ",
                "        if ",
                "test_so_many_uploads_of_one_user_and_in_all",
            ),
            (
                "so many of one user",
                "uploads/jobs.py",
                " or (asker.uid != 0 and own >= reception.MOST_OF_ONE):",
                ":",
                "test_so_many_uploads_of_one_user_and_in_all",
            ),
            (
                "what the service manager kept is compared",
                "uploads/folders.py",
                "            fd = _if_same(_opened_again(copy), root)",
                "            fd = _opened_again(copy)",
                "test_what_the_service_manager_kept_is_compared_with_what_is_on_record",
            ),
            (
                "what the service manager kept is kept on",
                "uploads/folders.py",
                "            kept = self._kept.get(name)\n",
                "            kept = self._kept.pop(name, None)\n",
                "test_what_the_service_manager_kept_stays_until_it_can_be_looked_at",
            ),
            (
                "what the service manager has is not given to it again",
                "uploads/folders.py",
                "        if fd is not None:\n            with self._lock:",
                "        if fd is not None:\n            self.hold(name, fd)\n            with self._lock:",
                "test_what_the_service_manager_kept_is_compared_with_what_is_on_record",
            ),
            (
                "a descriptor is closed in the end",
                "uploads/jobs.py",
                "        self._folders.let_go(source.name)\n        self._source_ended",
                "        self._source_ended",
                "test_no_descriptor_stays_open",
            ),
            (
                "what is staged is looked for by descriptor",
                "pipeline/deletion/staging/recover.py",
                "sources.get(one.source_id, one.source)",
                "one.source",
                "test_what_a_crash_left_staged_comes_back",
            ),
        )
    ),
    *(
        (f"handed in over a restart: {name}", file, old, new, (f"tests/unit/test_uploads.py::{test}",))
        for name, file, old, new, test in (
            (
                "another folder under its path",
                "uploads/folders.py",
                "    if not same:",
                "    if False:",
                "test_a_folder_that_vanished_ends_its_upload",
            ),
            (
                "a folder that was removed",
                "uploads/folders.py",
                "    if os.fstat(again).st_nlink == 0:",
                "    if False:",
                "test_a_folder_that_vanished_ends_its_upload",
            ),
            (
                "a path is not enough",
                "uploads/folders.py",
                "        if root is None:",
                "        if False:",
                "test_an_upload_of_an_older_state_is_broken_off",
            ),
            (
                "nobody knows who asked",
                "uploads/jobs.py",
                "(upload.asker is None or upload.root is None)",
                "upload.root is None",
                "test_an_upload_of_an_older_state_is_broken_off",
            ),
            (
                "it was moved",
                "intake/final_scan.py",
                '            findings.name(b"", MOVED, news=True)\n            return\n',
                "            pass\n",
                "test_a_folder_that_is_moved_while_it_is_archived_is_still_the_one",
            ),
        )
    ),
    (
        "handed in over a restart: another folder of the same inode",
        "queue/rows.py",
        "        if self.inode != other.inode or _is_another_birth(self.birth, other.birth):",
        "        if self.inode != other.inode:",
        ("tests/unit/test_final_scan_clauses.py",),
    ),
    *(
        (f"descriptors: {name}", "control/peer.py", old, new, FUZZ)
        for name, old, new in (
            ("exactly one", "        if len(self._fds) != 1:", "        if not self._fds:"),
            ("closed when a request is over", "        for fd in fds:\n            os.close(fd)", "        pass"),
        )
    ),
    (
        "handed in: another user's cancellation",
        "daemon/commands.py",
        " and not _may_end(asker, known.upload):",
        " and False:",
        (f"{HANDED}::test_another_users_upload_is_not_cancelled",),
    ),
    (
        "descriptors: no more held than tell that it is not one",
        "control/peer.py",
        "                    if len(self._fds) < _MOST_HELD:",
        "                    if True:",
        ("tests/unit/test_control_limits.py::test_a_request_without_end_that_brings_descriptors",),
    ),
)
