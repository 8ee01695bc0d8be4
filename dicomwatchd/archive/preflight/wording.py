"""What is said alike by all checks."""

from __future__ import annotations

from collections.abc import Iterable

from dicomwatchd.archive.aws.questions import Unanswered
from dicomwatchd.findings import Finding

#: The administrator's: the daemon's role has no right to any of it.
INIT = "run as an administrator: dicomwatchctl archive init"


def could_not_be_asked(subject: str, questions: Iterable[Unanswered], before: str = "") -> Finding:
    """Neither a pass nor a failure. ``before``: what is known all the same, with its "; "."""
    left = list(questions)
    codes = ", ".join(dict.fromkeys(one.code for one in left))
    if rights := [one.right for one in left if one.is_refused]:
        allow = f"allow {', '.join(dict.fromkeys(rights))} to the daemon's role (it changes nothing)"
        return Finding(subject, "unknown", f"{before}could not be asked: the role may not ({codes})", allow)
    if all(one.is_unknown_there for one in left):
        return Finding(subject, "unknown", f"{before}could not be asked: the service has no such question ({codes})")
    return Finding(subject, "unknown", f"{before}could not be asked: the service answered {codes}")
