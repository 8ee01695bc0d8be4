"""Mutants of uploads through the page, and of the limits of what is looked at for series objects: rows of
`mutations.Mutation`."""

from __future__ import annotations

BOOK, ROOM = "web/pages/staging/book.py", "web/pages/staging/room.py"
CUSTODY, UPLOADS = "web/pages/staging/custody.py", "web/pages/uploads.py"
ATTACKED, SENT = "tests/unit/test_page_attacked.py", "tests/unit/test_page_uploads.py"
SERIES = "tests/unit/test_series_attacked.py"

PAGE: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"page: {name}", file, old, new, (test,))
    for name, file, old, new, test in (
        (
            "neither fewer nor more than was chosen",
            BOOK,
            "            if lacking or others:",
            "            if lacking:",
            f"{ATTACKED}::test_another_disc_in_the_same_upload_does_not_make_the_first_one_whole",
        ),
        (
            "all has arrived",
            BOOK,
            "max(coming, chosen - files), max(0",
            "max(0, chosen - files), max(0",
            f"{SENT}::test_lies_about_sizes_offsets_and_contents",
        ),
        (
            "all was announced",
            BOOK,
            "max(coming, chosen - files), max(0",
            "coming, max(0",
            f"{SENT}::test_lies_about_sizes_offsets_and_contents",
        ),
        (
            "nothing is whole",
            UPLOADS,
            'max(said["files"], 1)',
            'max(said["files"], 0)',
            f"{ATTACKED}::test_no_number_of_files_makes_an_empty_upload_whole",
        ),
        (
            "nothing comes to what is whole",
            BOOK,
            '            raise NotOpen("the upload takes no files any more")',
            "            pass",
            f"{ATTACKED}::test_nothing_is_announced_in_what_is_whole",
        ),
        (
            "the same is what has the same hash",
            BOOK,
            "    return bool(one.sha256) and (row",
            "    return (row",
            f"{ATTACKED}::test_images_of_another_disc_with_the_same_name_size_and_time_are_not_taken_for_there",
        ),
        (
            "what was to be copied comes",
            BOOK,
            "(FileState.COMING, upload_id, row.number, FileState.SAME),",
            '(FileState.COMING, "", row.number, FileState.SAME),',
            f"{ATTACKED}::test_what_was_to_be_copied_from_a_file_that_has_changed_comes_by_itself",
        ),
        (
            "what was left is not there",
            BOOK,
            "(FileState.THERE, upload_id, number, FileState.LEFT),",
            '(FileState.THERE, upload_id, number, ""),',
            f"{ATTACKED}::test_a_late_request_of_an_older_content_does_not_pass_for_the_newer_one",
        ),
        (
            "what lies there is compared",
            ROOM,
            '            if os.fstat(fd).st_size != size_bytes or sha256 not in ("", sum_of(fd, sha256)):',
            "            if os.fstat(fd).st_size != size_bytes:",
            f"{ATTACKED}::test_a_late_request_of_an_older_content_does_not_pass_for_the_newer_one",
        ),
        (
            "what came is compared",
            ROOM,
            'size_bytes and sha256 in ("", sum_of(fd, sha256))',
            "size_bytes",
            f"{SENT}::test_lies_about_sizes_offsets_and_contents",
        ),
        (
            "a copy is compared",
            ROOM,
            "size_bytes or sum_of(fd, sha256) != sha256:",
            "size_bytes:",
            f"{ATTACKED}::test_a_copy_is_compared_too",
        ),
        (
            "all of a copy is written",
            ROOM,
            "rest = rest[os.write(fd, rest) :]",
            "rest = rest[len(rest) * bool(os.write(fd, rest)) :]",
            f"{ATTACKED}::test_a_disc_that_takes_half_of_what_is_written_loses_nothing_of_a_copy",
        ),
        (
            "a piece begins where the file ends",
            ROOM,
            "                if (there := os.fstat(fd).st_size) != offset:",
            "                if (there := os.fstat(fd).st_size) > 1 << 60:",
            f"{SENT}::test_lies_about_sizes_offsets_and_contents",
        ),
        (
            "a piece is compared",
            UPLOADS,
            'if not _is_what_it_says(request.headers.get("content-digest", ""), body):',
            "if False:",
            f"{SENT}::test_lies_about_sizes_offsets_and_contents",
        ),
        (
            "whose it is",
            UPLOADS,
            "            if row is not None and row.owner == person.name:",
            "            if row is not None:",
            f"{SENT}::test_of_another_persons_upload_nothing_is_to_be_seen_or_had",
        ),
        (
            "a lost answer is found again",
            CUSTODY,
            "self._known_to_daemon(row) or self._handed_in(row)",
            "self._handed_in(row)",
            f"{SENT}::test_an_answer_that_was_lost_hands_nothing_in_twice",
        ),
        (
            "what was given up is not handed in",
            CUSTODY,
            "            if now is None or now.stage is not Stage.WHOLE:",
            "            if now is None:",
            f"{ATTACKED}::test_what_was_given_up_before_is_not_handed_in",
        ),
        (
            "what is just handed in is not given up",
            CUSTODY,
            "            with self._handing_in if stage is Stage.WHOLE else nullcontext():",
            "            with nullcontext():",
            f"{ATTACKED}::test_what_the_daemon_is_just_taking_in_is_not_thrown_away",
        ),
        (
            "what the daemon has stays",
            CUSTODY,
            "self._uploads(Stage.ENDED, Stage.DROPPED):",
            "self._uploads(Stage.ENDED, Stage.DROPPED, Stage.HANDED_IN):",
            f"{SENT}::test_what_nobody_goes_on_with_goes_and_what_the_daemon_has_stays",
        ),
        (
            "only what has ended is thrown away",
            CUSTODY,
            "Stage.ENDED, Stage.ENDED, _LONG_AGO",
            "Stage.HANDED_IN, Stage.DROPPED, _LONG_AGO",
            f"{ATTACKED}::test_what_the_daemon_works_at_is_not_thrown_away_by_anybody",
        ),
        (
            "the result has no names in the end",
            BOOK,
            "            if said is not None and not keeps_names:",
            "            if False:",
            f"{ATTACKED}::test_a_person_may_throw_away_what_is_left_and_no_name_stays",
        ),
        (
            "nor has the database's log",
            BOOK,
            'self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")',
            'self._db.execute("SELECT 1")',
            f"{ATTACKED}::test_a_person_may_throw_away_what_is_left_and_no_name_stays",
        ),
        (
            "good is what the daemon calls so",
            UPLOADS,
            "if not all_verified(row.result):",
            'if not row.result.get("done"):',
            f"{SENT}::test_its_words_are_shown_word_for_word_with_the_names_from_where_the_files_come",
        ),
        (
            "what is held has no tick",
            UPLOADS,
            'return "held" if row.result.get("held") else "good"',
            'return "good"',
            f"{ATTACKED}::test_what_is_verified_and_held_is_no_reason_to_throw_a_disc_away",
        ),
        (
            "frames are counted before they are told",
            "series/pixels.py",
            "    if limit is not None and (said.frames or 0) > limit:",
            "    if False:",
            SERIES,
        ),
        (
            "fragments are counted",
            "series/pixels.py",
            "        if len(fragments) == limit:",
            "        if False:",
            SERIES,
        ),
        (
            "the daemon's limit",
            "series/sent.py",
            "            frames_limit=_FRAMES_LIMIT,\n",
            "",
            SERIES,
        ),
    )
)
