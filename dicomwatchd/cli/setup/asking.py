"""Questions and answers: at a terminal one after the other, each checked at once; or all of them from options."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dicomwatchd.cli.setup.answers import Answers
from dicomwatchd.cli.setup.folders import Refused
from dicomwatchd.cli.setup.questions import QUESTIONS, Around, Checked, Question
from dicomwatchd.errors import ConfigError

#: Given the prompt and the default; raises click.Abort.
Read = Callable[[str, str], str]
Tell = Callable[[str], None]


def ask(given: Mapping[str, str], around: Around, read: Read, tell: Tell) -> dict[str, str]:
    """All answers. What ``given`` has is not asked for, unless its check refuses it. Where a check doubts answers
    before its own, these are asked once more, what was said being the default."""
    said, answers = dict(given), dict[str, str]()
    again: set[str] = set()
    at = 0
    while at < len(QUESTIONS):
        question = QUESTIONS[at]
        at += 1
        if not question.applies(answers):
            answers.pop(question.key, None)
            continue
        is_asked = question.key in again or (question.is_asked(answers) and question.key not in given)
        value = said.get(question.key) or question.default(answers, around)
        if is_asked:
            tell("")
            tell(question.why)
            value = read(question.text, value).strip() or value
        try:
            checked = question.check(value, answers, around)
        except Refused as refused:
            tell(f"  {value or question.text}: {refused.message}")
            doubted = {key for key in refused.ask_again if key in answers} | {question.key}
            again |= doubted
            said[question.key] = value if refused.ask_again else ""
            at = min(number for number, one in enumerate(QUESTIONS) if one.key in doubted)
            continue
        again.discard(question.key)
        _keep(question, checked, answers, said)
        for note in checked.notes:
            tell(f"  {checked.value}: {note}")
    return answers


def take(given: Mapping[str, str], around: Around, tell: Tell) -> dict[str, str]:
    """All answers, from options and defaults. Raises ConfigError with every option that cannot be."""
    answers, problems = dict[str, str](), list[tuple[str, str]]()
    for question in QUESTIONS:
        if not question.applies(answers):
            if question.key in given:
                problems.append((question.option, "does not go together with the other options"))
            continue
        value = given.get(question.key) or question.default(answers, around)
        try:
            checked = question.check(value, answers, around)
        except Refused as refused:
            problems.append((question.option, f"{value}: {refused.message}" if value else refused.message))
            checked = Checked(value)  # the questions behind it are still looked at
        _keep(question, checked, answers, {})
        for note in checked.notes:
            tell(f"{question.option} {checked.value}: {note}")
    if problems:
        raise ConfigError(problems)
    return answers


def _keep(question: Question, checked: Checked, answers: dict[str, str], said: dict[str, str]) -> None:
    answers[question.key] = said[question.key] = checked.value


def asked_for(given: Mapping[str, str], around: Around) -> Answers:
    """What options and defaults come to, with nothing asked of any folder or archive: for a comparison alone."""
    answers = dict[str, str]()
    for question in QUESTIONS:
        if question.applies(answers):
            answers[question.key] = given.get(question.key) or question.default(answers, around)
    return answers
