"""Mutants of what keeps a writer of objects from hiding images: rows of `mutations.Mutation`."""

from __future__ import annotations

PROPERTIES = "tests/unit/test_lineage_property.py"
READ = (PROPERTIES, "tests/unit/test_forged_manifests.py")
ARCHIVING = (PROPERTIES, "tests/unit/test_forged_while_archiving.py")
VERIFY = tuple(
    f"tests/unit/test_forged_manifests.py::test_{name}"
    for name in (
        "an_object_that_no_manifest_lists_is_named",
        "a_bundle_of_copies_is_nothing_to_tell_of",
        "a_study_on_its_way_here",
    )
)
DAMAGED = ("tests/unit/test_damaged_manifest.py",)
LINEAGE_FILE = "archive/layout/lineage.py"
REVISION = "pipeline/revision.py"

FORGED_RECORD = (
    "tests/unit/test_forged_manifests.py::test_a_forged_record_hides_nothing_from_who_does_not_ask_the_catalogue",
)
WITHHELD = tuple(
    f"tests/unit/test_forged_while_archiving.py::test_{name}"
    for name in (
        "an_object_that_nobody_may_read_holds_up_its_study_alone",
        "a_place_that_nobody_may_read_stops_nothing",
    )
)
HONEST_BELOW = ("tests/unit/test_dense_manifests.py::test_any_number_of_honest_revisions_below_the_vouched_one",)

LINEAGE: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"lineage, forged record: {name}", "archive/repair/rebuild.py", old, new, FORGED_RECORD)
        for name, old, new in (
            ("all revisions are read", ", below=vouched is not None", ""),
            ("it vouches no more", " and not _hides(vouched, found)", ""),
        )
    ),
    (
        "lineage: no room is left for the next",
        REVISION,
        "if vouched is None or vouched is found.whole:",
        "if True:",
        ("tests/unit/test_forged_while_archiving.py::test_a_manifest_that_leaves_no_room_for_the_next",),
    ),
    *(
        (f"lineage, no room for two: {name}", file, old, new, ("tests/unit/test_no_room_for_two.py",))
        for name, file, old, new in (
            ("what was gone on from is named", REVISION, ", above), vouched.sha256", ", above), None"),
            ("the catalogue is told", "pipeline/stages.py", ", instead_of=made.instead_of", ""),
            (
                "the catalogue looks",
                "archive/catalogues/sqlite/catalogue.py",
                "            if instead_of is not None and there != ours",
                "            if False and there != ours",
            ),
        )
    ),
    (
        "lineage, no room for two: the table",
        "archive/catalogues/dynamodb/catalogue.py",
        "        if instead_of is not None:\n            older",
        "        if False:\n            older",
        (
            "tests/conformance/test_catalogue.py::"
            "test_a_revision_that_passes_others_over_is_recorded_in_the_place_of_one_alone",
        ),
    ),
    *(
        (f"lineage, withheld: {name}", file, old, "", WITHHELD)
        for name, file, old in (
            ("what is found again", "archive/repair/salvage.py", "    store = without_withheld(store)\n"),
            ("other places", "archive/repair/union.py", "    store = without_withheld(store)\n"),
        )
    ),
    *(
        (f"lineage, below the vouched: {name}", LINEAGE_FILE, old, new, HONEST_BELOW)
        for name, old, new in (
            ("bytes", "                left_bytes += listed.revisions", "                listed.revisions"),
            ("number", "                number -= 1", "                number -= 0"),
            ("values", "        if not is_within:", "        if True:"),
            ("what else it lists", "        return all(item.content in self._in_vouched", "        return any(True"),
        )
    ),
    *(
        (f"lineage: {name}", LINEAGE_FILE, old, new, READ)
        for name, old, new in (
            (
                "the hash of the one below",
                "        if not self._accounts_for_damage(manifest):",
                "        if False:",
            ),
            (
                "contents of the one below",
                "    if any(item.content not in sizes for item in parent.instances):",
                "    if False:",
            ),
            (
                "sizes of the one below",
                "    if any(sizes[item.content] != item.size_bytes for item in parent.instances):",
                "    if False:",
            ),
            (
                "attributes of the one below",
                "    if not _keeps(manifest.attributes, parent.attributes) or",
                "    if",
            ),
            ("flags of records", "not _OF_RECORDS.isdisjoint(manifest.flags)", "False"),
            ("plausible numbers", "manifest.revision) > PLAUSIBLE_GAP:", "manifest.revision) > 10**8:"),
            (
                "what does not count is told",
                "            elif (reason or other.revision > current.revision) and",
                "            elif other.revision > current.revision and False and",
            ),
            (
                "a fork above is told",
                "(reason or other.revision > current.revision)",
                "reason",
            ),
            (
                "what others list is taken along",
                "            item = chosen.setdefault(content, next",
                "            item = chosen.get(content, next",
            ),
        )
    ),
    *(
        (f"lineage: {name}", LINEAGE_FILE, old, new, ARCHIVING)
        for name, old, new in (
            (
                "what is named is looked at without the catalogue's word",
                "and other.key not in named:",
                "and other.key not in named or True:",
            ),
            (
                "what the catalogue names by another hash",
                "    return found if found.sha256 == record.manifest_sha256 else None",
                "    return found",
            ),
            (
                "the current one lists everything",
                "            if len(manifest.instances) == len(self._places):",
                "            if True:",
            ),
            (
                "a disputed record vouches for nothing",
                "    if record is None or DISPUTED in record.flags or record",
                "    if record is None or record",
            ),
            ("so many of one study", "                number > LIMIT_REVISIONS\n", "                False\n"),
            ("so large a manifest", "or found.size_bytes > LIMIT_EACH_BYTES", "or False"),
            ("so many bytes of one study", "or left_bytes < 0", "or False"),
            (
                "damage below",
                "        if any(one.kind in (BadManifest, NewerManifest) for one in self._refused):",
                "        if False:",
            ),
            (
                "damage that has healed",
                "        return {one.key for one in below} <=",
                "        return False and set() <=",
            ),
            ("the lowest free number", "        while number in self.listed.revisions:\n            number += 1\n", ""),
        )
    ),
    (
        "lineage: one that the store refuses to give",
        LINEAGE_FILE,
        "        if not isinstance(error, BadManifest | NewerManifest) and not lenient:",
        "        if False:",
        DAMAGED,
    ),
    (
        "lineage: one that is listed and not there",
        LINEAGE_FILE,
        "    except NoSuchObject as error:\n        raise _lost() from error\n"
        "    except Permanent as error:\n        if not",
        "    except Permanent as error:\n        if not",
        DAMAGED,
    ),
    *(
        (f"lineage: {name}", file, old, new, ARCHIVING)
        for name, file, old, new in (
            ("keys of the future", REVISION, "if not _is_of_the_future(key, found)", "if True"),
            (
                "what is disregarded is named",
                REVISION,
                "damaged_keys=(*added.damaged_keys, *passed_over))",
                "damaged_keys=added.damaged_keys)",
            ),
            (
                "the union",
                REVISION,
                "    base = recovered(found, current, archive.store, shipment.run)\n",
                "    base = current\n",
            ),
            (
                "the bytes decide on a place",
                "archive/repair/union.py",
                "    _settle(items, doubtful, store, map)\n",
                "",
            ),
            (
                "spans that do not fit",
                "archive/repair/union.py",
                "        if len(taken) < len(members):",
                "        if not (taken := members):",
            ),
            (
                "spans: the bytes decide",
                "archive/repair/union.py",
                "_disjoint(sorted(members, key=lambda item: item not in held))",
                "_disjoint(sorted(members, key=lambda item: item in held))",
            ),
            (
                "other places are tried",
                "fetch/fetcher.py",
                "        places = (item, *run.elsewhere.get(item.content, ()))\n",
                "        places = (item,)\n",
            ),
            (
                "the number of the catalogue's own",
                REVISION,
                "    record = _recorded(study, context, floor) if len(listed.revisions) > 1 else None\n",
                "    record = None\n",
            ),
        )
    ),
    (
        "lineage: a newer program's in place of the catalogue's",
        REVISION,
        "            if one.kind is NewerManifest:",
        "            if False:",
        ARCHIVING,
    ),
    (
        "lineage: another archive's in place of the catalogue's",
        REVISION,
        "            if one.kind is ForeignManifest:",
        "            if False:",
        DAMAGED,
    ),
    (
        "fetch: a disputed record vouches for nothing",
        "fetch/plan.py",
        "    if record is None or lineage.DISPUTED in record.flags:",
        "    if record is None:",
        READ,
    ),
    *(
        (f"verify: {name}", file, old, new, VERIFY)
        for name, file, old, new in (
            (
                "objects of no manifest",
                "archive/proof/verification.py",
                "        yield seen\n\n\ndef _is_a_copy",
                "        _ = seen\n        yield from ()\n\n\ndef _is_a_copy",
            ),
            (
                "copies are none",
                "archive/proof/verification.py",
                "        if named is not None and named[1:] in contents:",
                "        if False:",
            ),
            (
                "a bundle of copies",
                "archive/proof/verification.py",
                "    return all((one.series_uid, one.sop_instance_uid, one.digest.sha256) in contents for",
                "    return all(True for",
            ),
            (
                "their age",
                "cli/studies/verify.py",
                " if not may_be_on_its_way(one.modified_at, now)]",
                "]",
            ),
            (
                "a study on its way",
                "cli/studies/verify.py",
                "    return [] if old and is_on_its_way() else old",
                "    return old",
            ),
            (
                "a study that is archived",
                "cli/studies/verify.py",
                '    return found.get("state") != StudyState.ARCHIVED',
                "    return True",
            ),
            (
                "the exit code",
                "cli/studies/verify.py",
                "found.holds and not amiss and not stray else exits.NO",
                "found.holds and not amiss else exits.NO",
            ),
        )
    ),
)
