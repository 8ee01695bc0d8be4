"""Mutants of the record of access and of the tokens. Rows of `mutations.Mutation`."""

from __future__ import annotations

_RECORD, _TOKENS = ("tests/unit/test_web_record.py",), ("tests/unit/test_web_tokens.py",)
_ENTRIES, _FILE = "access/record.py", "access/tokens.py"

ACCESS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"access: {name}", _ENTRIES, old, new, _RECORD)
        for name, old, new in (
            ("the hash of an entry", '        and row["hash"] == _hash(row["entry"])\n', ""),
            ("an entry says what its columns say", "body == {**columns, ", "body == {**body, "),
            ("the entry before it", '"previous": previous}\n', '"previous": body.get("previous")}\n'),
            ("none is left out", '        and row["sequence"] == expected\n', ""),
            ("one way to write it", '        and row["entry"] == _canonical(body)\n', ""),
            (
                "it goes on",
                'sequence, previous = (row["sequence"], row["hash"])',
                'sequence, previous = (row["sequence"], FIRST)',
            ),
            ("on disk", "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),
            ("its owner's", "os.O_CLOEXEC, 0o600)", "os.O_CLOEXEC, 0o644)"),
            ("no link", " | os.O_NOFOLLOW", ""),
            ("ours", ".fetchone()[0] != APPLICATION_ID:", ".fetchone()[0] == -1:"),
            ("of this version", ".fetchone()[0] != SCHEMA_VERSION:", ".fetchone()[0] == -1:"),
        )
    ),
    *(
        (f"access, tokens: {name}", _FILE, old, new, _TOKENS)
        for name, old, new in (
            ("the hash", "if hmac.compare_digest(one.sha256, wanted):", "if True:"),
            ("the end", "if found is not None and found.holds_at(self._now()) else None", ""),
            ("the end of what was begun with it", " and one.holds_at(self._now())", ""),
            ("hashes alone", "Token(name, sha256_of(text), ", "Token(name, text, "),
            ("nobody guesses one", "secrets.token_urlsafe(32)", "secrets.token_urlsafe(8)"),
            ("a name", "if not NAME.match(name):", "if False:"),
            ("a name once", "if any(one.name == name for one in known):", "if False:"),
            ("a role that is one", ' or not set(data["roles"]) <= set(ROLES)', ""),
            ("a form that is known", 'document["format"] != _FORMAT or ', ""),
            (
                "what cannot be read holds none",
                "                self._known = ()\n                try",
                "                try",
            ),
            ("what was changed is read again", "if seen != self._seen:", "if self._seen is None:"),
            ("no link", "os.O_RDONLY | os.O_NOFOLLOW", "os.O_RDONLY"),
            ("its owner's", "os.O_NOFOLLOW, 0o600, dir", "os.O_NOFOLLOW, 0o644, dir"),
            ("whole before it has its name", "                os.fsync(file.fileno())\n", ""),
            ("its name is on disk", "            os.fsync(folder)\n", ""),
        )
    ),
)
