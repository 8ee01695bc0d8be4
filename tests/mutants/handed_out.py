"""Mutants of what hands studies out: nothing that was not compared, under no name that leads elsewhere, over nothing
that is there. Rows of `mutations.Mutation`."""

from __future__ import annotations

_LAYOUTS, _ZIP = ("tests/unit/test_layouts.py",), ("tests/unit/test_fetch_zip.py",)
_FILE_SET, _SEND = ("tests/unit/test_file_set.py",), ("tests/unit/test_send.py",)

HANDED_OUT: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"handed out: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "bytes are compared",
            "fetch/copying.py",
            "                if digest.hexdigest() != item.sha256:",
            "                if False:",
            _ZIP,
        ),
        (
            "plain folders alone",
            "fetch/folder.py",
            '            if name in (b"", b".", b".."):',
            "            if False:",
            _LAYOUTS,
        ),
        ("plain members alone", "fetch/zipped.py", '        if path.startswith("/") or', "        if False and", _ZIP),
        (
            "a safe name has no slash",
            "fetch/safe_names.py",
            '    whole = " ".join(_FORBIDDEN.sub("_", whole).split())',
            '    whole = " ".join(whole.split())',
            _LAYOUTS,
        ),
        (
            "a safe name is no device",
            "fetch/safe_names.py",
            "if _DEVICE.match(name) else name",
            "if False else name",
            _LAYOUTS,
        ),
        (
            "names in another case",
            "fetch/safe_names.py",
            'unicodedata.normalize("NFC", name).casefold()',
            'unicodedata.normalize("NFC", name)',
            _LAYOUTS,
        ),
        (
            "no list, no ZIP file",
            "fetch/zipped.py",
            "        self._zip.fp = None\n",
            "        self._zip.close()\n",
            _ZIP,
        ),
        (
            "nothing where the store has ended it",
            "fetch/stream.py",
            "            run.fail(item, error)\n            if isinstance",
            "            if isinstance",
            _ZIP,
        ),
        (
            "no DICOMDIR of a set that lacks files",
            "cli/studies/fetching.py",
            "        if not report.complete:\n            return Listing",
            "        if False:\n            return Listing",
            _FILE_SET,
        ),
        (
            "a DICOMDIR of somebody's",
            "fetch/file_set/writing.py",
            "if not top.holds(DICOMDIR, Digest(hashlib.sha256(data).hexdigest(), len(data)), lambda: None):",
            "if True:",
            _FILE_SET,
        ),
        (
            "refused is not confirmed",
            "fetch/destination.py",
            "        if status != 0 and status & 0xF000 != 0xB000:",
            "        if False:",
            _SEND,
        ),
        (
            "only what is accepted is sent",
            "fetch/destination.py",
            "        if pair not in association.accepted:",
            "        if False:",
            _SEND,
        ),
        (
            "what the file says is accepted, too",
            "fetch/destination.py",
            "        if its_pair not in association.accepted:",
            "        if False:",
            _SEND,
        ),
        (
            "an association that is over is made again",
            "fetch/destination.py",
            " or self._open[1].is_over",
            "",
            _SEND,
        ),
        (
            "an answer to this message",
            "fetch/association.py",
            " or answered != _us(self._message_id)",
            "",
            _SEND,
        ),
        (
            "an answer to a C-STORE",
            "fetch/association.py",
            "field != _us(of | _RESPONSE) or ",
            "",
            _SEND,
        ),
        (
            "an answer is a command",
            "fetch/association.py",
            " or not control & _COMMAND",
            "",
            _SEND,
        ),
        (
            "the end of a data set is its end",
            "fetch/association.py",
            "_LAST if self.data_bytes == left else 0",
            "_LAST",
            _SEND,
        ),
        (
            "no release in the midst of a message",
            "fetch/association.py",
            "        self._is_between_messages = False\n        self._message_id",
            "        self._message_id",
            _SEND,
        ),
        (
            "PDUs as long as the peer takes them",
            "fetch/association.py",
            "        self._value_bytes = min(most or _SENT_PDU_MOST_BYTES, _SENT_PDU_MOST_BYTES) - 6",
            "        self._value_bytes = _SENT_PDU_MOST_BYTES - 6",
            _SEND,
        ),
        (
            "what was confirmed is not sent again",
            "fetch/send.py",
            "            if failure is None or item in results:",
            "            if failure is None:",
            _SEND,
        ),
        (
            "a file of somebody's",
            "fetch/send.py",
            '    if lines[0] != _FORMAT + "\\n":',
            "    if False:",
            _SEND,
        ),
        (
            "another destination's",
            "fetch/send.py",
            '            if one["to"] == to:',
            "            if True:",
            _SEND,
        ),
    )
)
