"""Mutants of what goes on beside something else, and must not come before it: rows of `mutations.Mutation`."""

from __future__ import annotations

_START = ("tests/unit/test_start_beside_probe.py",)
_ERASED = ("tests/unit/test_erased_studies.py",)
_TURNS = ("tests/unit/test_deleting_at_once.py",)
_TABLE = ("tests/unit/test_catalogue_at_once.py",)
_VERSIONS = ("tests/unit/test_data_plane.py",)
_RECORD = ("tests/unit/test_on_record.py",)

AT_ONCE: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"at once: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "nothing goes on before the store is known",
            "daemon/startup.py",
            "        self._probed()\n        bind(",
            "        bind(",
            _START,
        ),
        (
            "a store that was refused gets no checkpoint",
            "daemon/composition.py",
            "        if self._is_going:\n            self.checkpoints.step()",
            "        self.checkpoints.step()",
            _START,
        ),
        (
            "a state is bound to nothing that may be refused",
            "daemon/startup.py",
            " and self._queue.binding.archive_id() is not None:",
            ":",
            _START,
        ),
        (
            "what is known of another place is given up at the start",
            "daemon/startup.py",
            "        if not is_bound(self._queue, self._archive) and",
            "        if False and",
            _START,
        ),
        (
            "the word of a look that has taken long",
            "pipeline/erased.py",
            "            is_there = last is not None and is_young and last.is_to_be_had",
            "            is_there = last is not None and last.is_to_be_had",
            _ERASED,
        ),
        (
            "a look that has failed is no look",
            "pipeline/erased.py",
            "                if self._looks.get(study) is last:\n                    del self._looks[study]",
            "                pass",
            _ERASED,
        ),
        (
            "a turn ends",
            "pipeline/deletion/at_once.py",
            "            if has_turn:\n                self._free.release()",
            "            pass",
            _TURNS,
        ),
        (
            "nobody waits for a turn for ever",
            "pipeline/deletion/at_once.py",
            "        while not has_turn and waited < self._most_seconds:",
            "        while not has_turn:",
            _TURNS,
        ),
        (
            "who had no turn gives none back",
            "pipeline/deletion/at_once.py",
            "            if has_turn:\n                self._free.release()",
            "            self._free.release()",
            _TURNS,
        ),
        (
            "a record with all of its items",
            "archive/catalogues/dynamodb/catalogue.py",
            "                written.result()",
            "                pass",
            _TABLE,
        ),
        (
            "a version that was replaced is not current",
            "archive/stores/s3/fast_path.py",
            '            found.append((listed, of_version.get(version_id) or None) if latest == "true" else None)',
            "            found.append((listed, of_version.get(version_id) or None))",
            _VERSIONS,
        ),
        (
            "a version that does not say whether it is current",
            "archive/stores/s3/fast_path.py",
            '            if latest not in ("true", "false"):',
            '            if latest == "":',
            _VERSIONS,
        ),
        (
            "files that say something else",
            "intake/on_record.py",
            "        if said in self._seen:",
            "        if self._seen:",
            _RECORD,
        ),
        (
            "another character set is something else",
            "intake/dicom/attributes.py",
            "ASKED_OF = (SPECIFIC_CHARACTER_SET, ORDER_ISSUER, ",
            "ASKED_OF = (ORDER_ISSUER, ",
            _RECORD,
        ),
        (
            "a batch that is on the queue",
            "intake/on_record.py",
            "        self._seen.clear()\n",
            "",
            _RECORD,
        ),
    )
)
