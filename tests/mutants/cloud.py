"""Mutants of what is read out of an answer that refuses a look, and of what others on the machine may see."""

from __future__ import annotations

LOOKS = ("tests/unit/test_refused_looks.py",)
SHOWN = ("tests/unit/test_cli_basics.py::test_no_control_and_no_format_character_of_unicode_gets_through",)
SAID = ("tests/unit/test_cli_basics.py::test_whatever_says_a_line_cleans_it",)
NAMED = ("tests/unit/test_identifiers.py",)
MODES = tuple(
    f"tests/unit/test_fetch.py::test_{name}"
    for name in (
        "what_is_fetched_is_its_readers_alone",
        "others_may_read_it_where_that_is_said",
        "nobody_else_reads_a_file_before_it_is_whole",
        "what_was_there_keeps_its_mode",
    )
)
REFUSED_MODES = ("tests/unit/test_cli_archive.py::test_a_mode_that_serves_nobody_is_refused",)

CLOUD: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "a listing that is refused says nothing",
        "archive/stores/s3/bucket.py",
        "            return False  # then the refusal is the answer",
        "            return True",
        LOOKS,
    ),
    (
        "what is listed is there, though refused",
        "archive/stores/s3/bucket.py",
        'all(item.get("Key") != full_key for item',
        'all(item.get("Key") != full_key or True for item',
        LOOKS,
    ),
    (
        "another key with the same beginning",
        "archive/stores/s3/bucket.py",
        'return all(item.get("Key") != full_key for item in page.get("Contents", []))',
        'return not page.get("Contents")',
        LOOKS,
    ),
    (
        "a listing knows no versions, for a head",
        "archive/stores/s3/bucket.py",
        '403 and "VersionId" not in arguments and self',
        "403 and self",
        LOOKS,
    ),
    (
        "a listing knows no versions, for a read",
        "archive/stores/s3/store.py",
        "403 and version_id is None and self._bucket.absent",
        "403 and self._bucket.absent",
        LOOKS,
    ),
    (
        "no look beyond the prefix",
        "archive/stores/s3/bucket.py",
        "        if self.prefix:\n            return self.client.list",
        "        if not self.prefix:\n            return self.client.list",
        LOOKS,
    ),
    *(
        (f"shown: {category}", "plain_text.py", f'"{category}"', '"Lo"', SHOWN)
        for category in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn")
    ),
    ("said: cleaned", "cli/terminal/output.py", "    click.echo(clean(text))\n", "    click.echo(text)\n", SAID),
    ("noted: cleaned", "cli/terminal/output.py", "{PROGRAM}: {clean(text)}", "{PROGRAM}: {text}", SAID),
    (
        "an identifier once",
        "cli/terminal/identifiers.py",
        "            if _TAKEN in ctx.meta:\n",
        "            if False:\n",
        NAMED,
    ),
    ("an identifier of some length", "cli/terminal/identifiers.py", "len(line) > _LONGEST_BYTES", "False", NAMED),
    ("an identifier at all", "cli/terminal/identifiers.py", "        if not line:\n", "        if False:\n", NAMED),
    (
        "a patient from standard input",
        "cli/studies/search.py",
        '    metavar="ID",\n    type=IDENTIFIER,\n',
        '    metavar="ID",\n',
        NAMED,
    ),
    (
        "fetch: a private file",
        "fetch/folder.py",
        "os.open(name, flags, PRIVATE, dir_fd",
        "os.open(name, flags, 0o666, dir_fd",
        MODES,
    ),
    (
        "fetch: a private folder",
        "fetch/folder.py",
        "path.mkdir(_PRIVATE_FOLDER, parents",
        "path.mkdir(0o777, parents",
        MODES,
    ),
    (
        "fetch: a private folder of a series",
        "fetch/folder.py",
        "os.mkdir(name, _PRIVATE_FOLDER, dir_fd",
        "os.mkdir(name, 0o777, dir_fd",
        MODES,
    ),
    (
        "fetch: the mode that was asked for",
        "fetch/folder.py",
        "        _give_mode(self._fd, self._mode, PRIVATE)\n",
        "",
        MODES,
    ),
    (
        "fetch: a folder that was there keeps its mode",
        "fetch/folder.py",
        "            if made:\n                _give_mode(fd, folder_mode(mode)",
        "            if True:\n                _give_mode(fd, folder_mode(mode)",
        MODES,
    ),
    (
        "fetch: a series' folder that was there keeps its mode",
        "fetch/folder.py",
        "            if made:\n                _give_mode(fd, folder_mode(self._mode)",
        "            if True:\n                _give_mode(fd, folder_mode(self._mode)",
        MODES,
    ),
    (
        "fetch: the owner reads and writes",
        "cli/studies/fetch.py",
        "mode & 0o600 != 0o600 or mode",
        "mode",
        REFUSED_MODES,
    ),
    ("fetch: nobody executes", "cli/studies/fetch.py", "!= 0o600 or mode & 0o111:", "!= 0o600:", REFUSED_MODES),
    ("fetch: no other bits", "cli/studies/fetch.py", 'r"0?[0-7]{3}"', 'r"[0-7]*"', REFUSED_MODES),
)
