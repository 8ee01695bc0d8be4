"""Mutants of what holds a study and of its release: rows of `mutations.Mutation`."""

from __future__ import annotations

HOLDS = ("tests/unit/test_holds.py",)
PATIENTS = ("tests/unit/test_patients.py",)
_HELD, _QUEUE, _KEEPING = "pipeline/deletion/vetoes/held.py", "queue/holds.py", "pipeline/deletion/keeping.py"

HELD: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"held: {name}", file, old, new, HOLDS)
        for name, file, old, new in (
            ("patients of other revisions", _HELD, "distinct(manifest.all_identities, ", "distinct((), "),
            ("who is in no manifest yet", _HELD, ", context.holds.patients(study_uid))", ")"),
            (
                "more than are on record",
                _HELD,
                " and IDENTITIES_LIMITED not in manifest.flags",
                "",
            ),
            ("another patient than was released", _HELD, "        return all(any(", "        return any(any("),
            ("what stays by its rule says so", _KEEPING, ", *to_keep.pop(None, [])]", "]"),
            ("asked again for each page", _KEEPING, "    if held.is_held(manifest, context):", "    if False:"),
            ("a release is no hold", _QUEUE, "            return False, False\n", "            pass\n"),
            ("on record", _QUEUE, "            audit.append(db,", "            _ = (db,"),
            (
                "released in the midst",
                "queue/deletions.py",
                "            if code == HELD:",
                "            if False:",
            ),
            ("no word to delete", "upload_result.py", "complete and not progress.held", "complete"),
        )
    ),
    *(
        (f"patients: {name}", "patients.py", old, new, PATIENTS)
        for name, old, new in (
            ("the ID alone", "return _ids_differ(one, other) or (", "return ("),
            ("the issuer", " or _texts_differ(_plain(one.issuer), _plain(other.issuer))", ""),
            (
                "blank is unknown",
                "    if not mine or not its:\n        return False\n    return _texts",
                "    return _texts",
            ),
            ("case and padding", '.strip(" \\0").casefold()\n', "\n"),
            ("the form of carets", '.replace("^", " ").replace(",", " ")', ""),
        )
    ),
)
