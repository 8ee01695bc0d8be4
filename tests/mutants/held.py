"""Mutants of what holds a study and of its release: rows of `mutations.Mutation`."""

from __future__ import annotations

HOLDS = ("tests/unit/test_holds.py",)
DAMAGED = ("tests/unit/test_damaged_files.py",)
PATIENTS = ("tests/unit/test_patients.py",)
_DAMAGED, _MANIFEST = "pipeline/deletion/vetoes/damaged.py", "archive/layout/manifest.py"
_INSTANCE = "archive/layout/instance.py"
VERSIONS = ("tests/unit/test_versions.py", "tests/unit/test_fingerprint.py")
_VERSIONS, _VARIANTS = "pipeline/deletion/vetoes/versions.py", "archive/layout/variants.py"
_FINGERPRINT = "intake/dicom/fingerprint.py"
_HELD, _QUEUE, _KEEPING = "pipeline/deletion/vetoes/held.py", "queue/holds.py", "pipeline/deletion/keeping.py"

HELD: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"held: {name}", file, old, new, HOLDS)
        for name, file, old, new in (
            ("patients of other revisions", _HELD, "manifest.all_identities, recorded.named, ", ""),
            ("patients in the catalogue", _HELD, "recorded.named, ", ""),
            ("who is in no manifest yet", _HELD, ", known.patients, limit", ", limit"),
            ("more than are on record", _HELD, " or IDENTITIES_LIMITED in manifest.flags", ""),
            ("more than are in the state", _HELD, "are_more = known.are_more or ", "are_more = "),
            ("more than were on record at the release", _HELD, "not known.are_more and all(", "all("),
            ("another patient than was released", _HELD, "and all(is_among(", "and any(is_among("),
            (
                "whom little is known of",
                "patients.py",
                ") or not any(\n        are_different(one, said)",
                ") or not all(\n        are_different(one, said)",
            ),
            (
                "who is one too many in a manifest",
                "archive/layout/manifest.py",
                "if leaves_out(patients, identities) else",
                "if False else",
            ),
            ("it stands until it is released", _HELD, "    if known.found is None and two", "    if two"),
            ("for whom it is held", _HELD, "distinct(known.found or (), ", "distinct((), "),
            (
                "what was kept by its rule before",
                _QUEUE,
                "if instances is None or file",
                "if instances is not None and file",
            ),
            ("what stays by its rule says so", _KEEPING, ", *to_keep.pop(None, [])]", "]"),
            ("asked again for each page", _KEEPING, "    if held.is_held(recorded, context):", "    if False:"),
            ("a release is no hold", _QUEUE, " and is_released_by(json", " and False and (json"),
            ("on record", _QUEUE, "            audit.append(db,", "            _ = (db,"),
            (
                "released in the midst",
                "queue/deletions.py",
                "            if code == HELD and _hold",
                "            if False and _hold",
            ),
            ("no word to delete", "upload_result.py", "complete and not progress.held", "complete"),
        )
    ),
    *(
        (f"damaged: {name}", file, old, new, DAMAGED)
        for name, file, old, new in (
            ("it stays", _KEEPING, " and whole.stays(file)]", " and False]"),
            ("its own content", _DAMAGED, " - {sha256})", ")"),
            ("its inbox's rule", _DAMAGED, "policy.due_at(file) or 0.0", "0.0"),
            ("found again in the store", _INSTANCE, "            and not self.is_found_again\n", ""),
            (
                "cannot be told",
                _INSTANCE,
                "            and not any(note.startswith(CANNOT_TELL)",
                "            and not any(False",
            ),
            ("in a damaged object", _MANIFEST, " if item.is_whole and item.key not in bad]", " if item.is_whole]"),
            (
                "known again when it comes once more",
                _MANIFEST,
                "            if present.is_found_again and",
                "            if False and",
            ),
            (
                "held at every moment",
                "queue/deletions.py",
                " if hold == holds.TWO_PATIENTS else",
                " if False else",
            ),
            (
                "no time before it is superseded",
                "queue/claims.py",
                "THEN NULL ELSE due_at END",
                "THEN due_at ELSE due_at END",
            ),
            ("an upload has failed for it", "queue/uploads.py", " + parked + own + damaged,", " + parked + own,"),
            ("not sent early", "pipeline/sending/early.py", "            and not file.header.damage\n", ""),
        )
    ),
    *(
        (f"versions: {name}", file, old, new, VERSIONS)
        for name, file, old, new in (
            ("held at all", _VERSIONS, "    waiting = looked_at.not_covered(several)", "    waiting = several[:0]"),
            (
                "one that nobody has looked at",
                _VERSIONS,
                "if not set(one.data_sets) <=",
                "if not set(one.data_sets[:1]) <=",
            ),
            ("all of very many", _VERSIONS, " if _digest(several) ==", " if True or _digest(several) =="),
            ("what stays by its rule says so", _KEEPING, "[*concerned, *concerned_for_good]", "concerned"),
            ("what stayed by its rule says so", _QUEUE, 'file["sop_instance_uid"] in instances', "False"),
            (
                "what cannot be read is unlike all else",
                _VARIANTS,
                "{one.data_set_sha256 or sha256 for",
                "{one.data_set_sha256 for",
            ),
            (
                "of the very bytes",
                "pipeline/variants.py",
                "            if source.finish() == item.sha256:",
                "            if source.finish():",
            ),
            ("other bytes in a value", _FINGERPRINT, "            self._writer.write(piece)\n", ""),
            (
                "elements behind the pixel data",
                _FINGERPRINT,
                "        if self._is_behind:\n",
                "        if False:\n",
            ),
            ("a fragment is no offset table", _FINGERPRINT, "        if index.holds:", "        if True:"),
            (
                "what waits once a study is held again",
                _VERSIONS,
                '"data_sets"] if is_released else',
                '"data_sets"] if True else',
            ),
            ("what has come since it was shown", _QUEUE, "if shown not in (None, _shown(db, study_uid))", "if False"),
            ("values and their ends", _FINGERPRINT, "        self._writer.write(_VALUE + _LENGTH(length))\n", ""),
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
