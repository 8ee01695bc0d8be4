"""Mutants of what waits for the cloud's side, and of questions that must lose nothing: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_protection.py",)
SHAPES = ("tests/unit/test_preflight_shapes.py",)
HARMLESS = ("tests/unit/test_preflight_rights.py",)
_ASKED = "archive/aws/questions.py"
_SETTINGS = "archive/stores/s3/settings.py"
_WATCH = "archive/stores/s3/protection.py"
_RIGHTS = "archive/preflight/rights.py"
_VETO = "pipeline/deletion/vetoes/expiring.py"

PROTECTION: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"protection: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "no time is no answer",
            _ASKED,
            "        if aws.http_status(error) in _LATER:\n            raise\n",
            "",
            TESTS,
        ),
        ("a refusal is no absence", _ASKED, "        if code in absent:\n", "        if True:\n", TESTS),
        (
            "a store without blocks",
            _SETTINGS,
            "isinstance(block, Unanswered) and block.is_unknown_there:",
            "False:",
            TESTS,
        ),
        ("a block of policies", _SETTINGS, 'not known.get("RestrictPublicBuckets")', "True", TESTS),
        ("a block of policies that is off", _SETTINGS, 'not known.get("RestrictPublicBuckets")', "False", TESTS),
        ("a block of lists", _SETTINGS, 'not known.get("IgnorePublicAcls")', "True", TESTS),
        ("a block of lists that is off", _SETTINGS, 'not known.get("IgnorePublicAcls")', "False", TESTS),
        ("a block that may be there", _SETTINGS, "        if counts:\n", "        if counts is not False:\n", TESTS),
        (
            "what opens it is known",
            _SETTINGS,
            "            return Exposure(True, False, words)",
            "            pass",
            TESTS,
        ),
        (
            "a question without an answer is no no",
            _SETTINGS,
            "Exposure(None if left else False, ",
            "Exposure(False, ",
            TESTS,
        ),
        (
            "everybody with an account",
            _SETTINGS,
            'for group in ("AllUsers", "AuthenticatedUsers")',
            'for group in ("AllUsers",)',
            TESTS,
        ),
        (
            "an answer of another shape is none",
            _ASKED,
            "    except (LookupError, TypeError, AttributeError):\n",
            "    except ZeroDivisionError:\n",
            SHAPES,
        ),
        (
            "no judgement is no no",
            _SETTINGS,
            '["PolicyStatus"]["IsPublic"]',
            '.get("PolicyStatus", {}).get("IsPublic")',
            SHAPES,
        ),
        ("no list is no empty list", _SETTINGS, 'acl["Grants"]', '(acl.get("Grants") or ())', SHAPES),
        ("a lock that is off", _SETTINGS, '            == "Enabled"\n', "            is not None\n", SHAPES),
        (
            "an encryption without a name",
            _SETTINGS,
            'found if found.get("SSEAlgorithm") else {}',
            "found",
            SHAPES,
        ),
        ("a proxy's refusal", _RIGHTS, 'frozenset(("AccessDenied",))', 'frozenset(("AccessDenied", "403"))', SHAPES),
        (
            "half a denial",
            "archive/stores/s3/setup.py",
            'statement.get("Condition") in _WITHOUT_TLS',
            '"aws:SecureTransport" in str(statement.get("Condition"))',
            SHAPES,
        ),
        ("until the first answer", _WATCH, "if self._is_known else UNTIL_THEN", "", TESTS),
        ("not for ever", _WATCH, "self._in_vain >= _LOOKS", "False", TESTS),
        ("not at once", _WATCH, "self._in_vain >= _LOOKS", "True", TESTS),
        ("versions count", _WATCH, 'None if versions == "Enabled" else OVERWRITTEN', "None", TESTS),
        (
            "suspended versions are none",
            _WATCH,
            'versions == "Enabled" else OVERWRITTEN',
            "versions else OVERWRITTEN",
            TESTS,
        ),
        ("nothing is overwritten", _WATCH, '"Enabled" if creates_only else settings', "settings", TESTS),
        (
            "versions that are not told",
            _WATCH,
            "            if not isinstance(versions, Unanswered):\n",
            "            if True:\n",
            TESTS,
        ),
        ("a public bucket", _WATCH, "if found.is_public else None\n", "if False else None\n", TESTS),
        ("what was known", _WATCH, "            if found.is_public is not None:\n", "            if True:\n", TESTS),
        (
            "both are reasons",
            "archive/stores/port.py",
            "return self.unaccepted or self.unprotected",
            "return self.unaccepted",
            TESTS,
        ),
        ("it is told", _VETO, 'if found.unprotected is not None and self._is_news("unprotected"):', "if False:", TESTS),
        ("told once", _VETO, "        is_news = what not in self._told\n", "        is_news = True\n", TESTS),
        ("below studies", _RIGHTS, 'return f"{keys.STUDIES}dicomwatchd', 'return f"{keys.PROBE}dicomwatchd', HARMLESS),
        (
            "a key of nobody's",
            _RIGHTS,
            "}dicomwatchd-preflight-{random_name()}/none",
            "}1.2.3/series/1/1/{random_name()}.dcm",
            HARMLESS,
        ),
        ("nobody can guess it", _RIGHTS, "{random_name()}", "0", HARMLESS),
        ("a version that is not there", _RIGHTS, ', VersionId="null")', ")", HARMLESS),
        (
            "a condition that nothing fulfils",
            _RIGHTS,
            "(**self._address, IfMatch=_NO_ETAG))",
            "(**self._address))",
            HARMLESS,
        ),
        ("the MD5 of other bytes", _RIGHTS, "hashlib.md5(_OTHER_BODY", "hashlib.md5(_BODY", HARMLESS),
        ("an ETag that is not there", _RIGHTS, "ContentMD5=md5, IfMatch=_NO_ETAG", "ContentMD5=md5", HARMLESS),
        (
            "a store that takes wrong bytes is not asked",
            _RIGHTS,
            '!= "refused":',
            '== "?":',
            HARMLESS,
        ),
        ("what is refused is a no", _RIGHTS, "            return False\n", "            return True\n", HARMLESS),
        (
            "what goes beyond is a yes",
            _RIGHTS,
            "        if code in _PAST_RIGHTS:\n            return True\n",
            "",
            HARMLESS,
        ),
        (
            "an answer of neither kind",
            _RIGHTS,
            "        return Unanswered(right, code,",
            "        return False and Unanswered(right, code,",
            HARMLESS,
        ),
    )
)
