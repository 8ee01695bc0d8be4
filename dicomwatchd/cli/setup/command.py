"""`dicomwatchctl setup`: asks, makes the plan, takes its steps, and says what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.lazy import DefaultGroup
from dicomwatchd.cli.setup.first_study import test_study
from dicomwatchd.cli.terminal import output
from dicomwatchd.errors import ConfigError

if TYPE_CHECKING:
    from dicomwatchd.cli.setup.answers import Answers
    from dicomwatchd.cli.setup.plan import Ways
    from dicomwatchd.cli.setup.steps import Report
    from dicomwatchd.config.whole import Config


@click.command()
@click.option("--inbox", metavar="PATH", help="Folder that modalities write into. Default: /srv/dicom/ct1.")
@click.option("--inbox-name", metavar="NAME", help="Its name in logs and statistics. Default: that of the folder.")
@click.option(
    "--store",
    metavar="PATH|s3://BUCKET",
    help="Where studies are archived: a folder, or s3://BUCKET[/PREFIX]. Default: /srv/archive.",
)
@click.option("--region", metavar="NAME", help="Region of bucket and table. Default: $AWS_REGION, or eu-central-1.")
@click.option("--endpoint-url", metavar="URL", help="The S3 service. Default: Amazon's own.")
@click.option("--ca-file", metavar="FILE", help="Certificates of a private CA, in PEM form.")
@click.option("--insecure-http", is_flag=True, help="Allow a URL without TLS: patient data is sent unencrypted.")
@click.option(
    "--kms-key", metavar="ARN", help="KMS key that encrypts the objects. Default: the bucket's own encryption."
)
@click.option(
    "--catalogue",
    metavar="dynamodb:TABLE|sqlite",
    help="The catalogue. Default: dynamodb:dicom-studies with Amazon's S3, otherwise sqlite.",
)
@click.option("--catalogue-endpoint-url", metavar="URL", help="The DynamoDB service. Default: Amazon's own.")
@click.option(
    "--after-archiving",
    metavar="keep|delete",
    help="What becomes of local files once the archive provably holds them. Default: keep. delete begins once the test"
    " study has been proven.",
)
@click.option("--quiet-seconds", metavar="N", help="A study without a new file for this long is archived. Default: 60.")
@click.option("--state-directory", metavar="PATH", help="Folder of the daemon's state. Default: /var/lib/dicomwatchd.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Ask nothing: what no option says is as its default.")
@click.option("--dry-run", is_flag=True, help="Print every step, and do nothing.")
@click.option(
    "--no-service", is_flag=True, help="For a machine without systemd: no unit, no owners and ACLs, nothing is enabled."
)
@click.option("--no-start", is_flag=True, help="Do not enable or start the service, and send no test study.")
@click.option("--no-test-study", is_flag=True, help="Send no test study.")
@click.option("--no-acl", is_flag=True, help="Set no ACLs: the daemon's user has its rights by other means.")
@click.option(
    "--deadline", "deadline_seconds", metavar="SECONDS", type=click.IntRange(1, 86400), help="For the test study."
)
@output.json_option
@click.pass_obj
def first_start(
    invocation: Invocation,
    /,
    is_confirmed: bool,
    dry_run: bool,
    no_service: bool,
    no_start: bool,
    no_test_study: bool,
    no_acl: bool,
    insecure_http: bool,
    deadline_seconds: int | None,
    as_json: bool,
    **options: str | None,
) -> int:
    """Set up this machine, step by step.

    Asks for inbox, archive and what becomes of files, checks each answer at once, and writes the configuration; sets
    owners and ACLs, makes the archive, adapts the service's sandbox, enables and starts the service, and sends a
    synthetic test study through it. Each command is printed before it is run. It can be run again at any time: what is
    right already is said to be, and is not done twice. An existing configuration is never changed: it is checked, and
    the steps after it are taken; options that say something else are shown as differences, and nothing is done.

    Keys are neither asked for nor written down. Local files are kept until the test study has been proven and you have
    said delete. The exit code is 0 if all is set up, 1 if a step has failed or an existing configuration differs,
    2 if an answer cannot be, 3 if the archive refuses. With --json the document says whether anything was changed.
    """
    from dicomwatchd.cli.setup.plan import Ways

    given = {key: value for key, value in options.items() if value is not None}
    if insecure_http:
        given["insecure_http"] = "yes"
    ways = Ways(
        confirmed=is_confirmed,
        dry_run=dry_run,
        service=not no_service,
        start=not no_start,
        test_study=not (no_test_study or no_start),
        acl=not no_acl,
        deadline_seconds=deadline_seconds,
        as_json=as_json,
    )
    return Setup(invocation.config_path, given, ways, dict(os.environ)).run()


@click.group("setup", cls=DefaultGroup, default=first_start)
def setup() -> None:
    """Set up this machine, step by step."""


setup.add_command(test_study)


class Setup:
    """One run of it. ``given`` are the answers that options have given."""

    def __init__(self, config_path: Path, given: Mapping[str, str], ways: Ways, environment: Mapping[str, str]) -> None:
        from dicomwatchd.cli.setup import machine
        from dicomwatchd.cli.setup.questions import Around

        self._given, self._ways = dict(given), ways
        self._machine = machine.look(config_path, environment)
        self._around = Around(self._machine, ways.service)
        self._tell: Callable[[str], None] = _beside if ways.as_json else output.say

    def run(self) -> int:
        """The exit code. Raises click.UsageError, click.Abort, ConfigError, DicomwatchdError."""
        from dicomwatchd.cli.setup.answers import DELETE

        if self._given.get("after_archiving") == DELETE and not self._ways.test_study:
            raise click.UsageError(
                "--after-archiving delete begins once the test study has been proven: not with --no-start or"
                " --no-test-study"
            )
        self._require_what_it_needs()
        if os.path.lexists(self._machine.config_path):
            return self._with_a_configuration()
        if not self._ways.confirmed and not _may_be_asked():
            raise click.UsageError("nobody can be asked here: give --yes, and what is not as its default by options")
        answers = self._answers()
        wanted = _parsed(answers, str(self._machine.config_path))
        deletes = answers["after_archiving"] == DELETE
        return self._take(wanted.settings, wanted.keep_text, wanted.delete_text if deletes else None)

    def _require_what_it_needs(self) -> None:
        lacks = self._machine.lacks(service=self._ways.service)
        if not lacks:
            return
        for text in lacks:
            output.note(text)
        if self._ways.dry_run:
            return
        raise click.UsageError(
            "the service cannot be set up here. --dry-run shows the steps and what each needs; --no-service, with"
            " --config and --state-directory of your own, sets up a daemon without one"
        )

    def _answers(self) -> Answers:
        from dicomwatchd.cli.setup import asking

        if self._ways.confirmed:
            return asking.take(self._given, self._around, output.note)
        self._tell("Each question has a default in brackets; Enter takes it. Nothing is done before all are answered.")
        return asking.ask(self._given, self._around, _read(err=self._ways.as_json), self._tell)

    def _with_a_configuration(self) -> int:
        """It stays as it is, byte for byte; but where setup itself has written it, and nobody has changed it since, the
        deletion that was asked for is switched on in the end."""
        from dicomwatchd.cli.setup import answers as of
        from dicomwatchd.cli.setup import asking
        from dicomwatchd.cli.setup.questions import places_of
        from dicomwatchd.config import loading

        path = self._machine.config_path
        try:
            there = loading.load(path)
        except ConfigError as error:
            error.hint = f"correct it and run setup again; or, to be asked anew, move it away: mv {path} {path}.old"
            raise
        self._require_folders_of_its_own(there)
        if not self._given:
            self._tell(f"{path} is there, and stays as it is.")
            return self._take(there, None, None)
        asked = asking.asked_for(self._given, self._around)
        wanted = _parsed(asked, str(path))
        deletes = asked["after_archiving"] == of.DELETE
        delete_text = of.with_deletion(path.read_bytes()) if deletes else None
        found = of.differences(
            there,
            wanted.deleting if deletes and delete_text is None else wanted.settings,
            places_of(self._given, asked),
            self._given.get("inbox"),
        )
        if found:
            return self._differs(found)
        self._tell(f"{path} is there, and says what was asked for; it stays as it is.")
        return self._take(there, None, delete_text)

    def _require_folders_of_its_own(self, there: Config) -> None:
        """Owners and rights are changed in these folders, by root perhaps, and what they lead to may be something else
        by now. Raises click.UsageError."""
        from dicomwatchd.cli.setup import folders

        store = getattr(there.archive.store, "path", None)
        named = [*(box.path for box in there.inboxes), there.state_directory, *([] if store is None else [store])]
        try:
            folders.require_not_the_systems(named)
        except folders.Refused as refused:
            raise click.UsageError(f"{self._machine.config_path}: {refused.message}") from refused

    def _differs(self, found: list[tuple[str, Any, Any]]) -> int:
        from dicomwatchd.cli.setup import telling
        from dicomwatchd.cli.setup.steps import Report

        path = self._machine.config_path
        self._tell(f"{path} is there, and is never changed by setup. It differs from what was asked for:")
        for place, is_there, asked in found:
            self._tell(f"  {place}: {telling.shown(is_there)}, asked for: {telling.shown(asked)}")
        self._tell("Nothing was done. Change the file, or leave these options out.")
        if self._ways.as_json:
            output.document(telling.document(self._machine, self._ways, Report(), found))
        return exits.NO

    def _take(self, settings: Config, text: str | None, delete_text: str | None) -> int:
        """``text`` is the configuration to be written, ``delete_text`` what it is to be in the end."""
        from dicomwatchd.cli.setup import keys, plan, steps, telling
        from dicomwatchd.cli.setup.background import Background, ended_by_signals
        from dicomwatchd.cli.setup.first_study import tested_before

        machine, ways = self._machine, self._ways
        background = Background(machine.daemon_command, settings.state_directory / "setup.log", settings.socket_path)
        wanted = plan.Wanted(
            settings,
            text,
            ways,
            background,
            tested=lambda: tested_before(settings, keys.session(machine) if plan.is_remote(settings) else None),
            delete_text=delete_text,
        )
        report = steps.Report()
        try:
            with ended_by_signals():
                try:
                    steps.take(plan.steps(wanted, machine), steps.run, self._tell, report, dry_run=ways.dry_run)
                finally:
                    background.stop()
        except KeyboardInterrupt:
            again = telling.again(machine, ways, self._given, deletes=delete_text is not None)
            self._tell("")
            self._tell(f"Interrupted. To go on: {again}")
            raise
        return self._told(report, settings, deletes=delete_text is not None)

    def _told(self, report: Report, settings: Config, *, deletes: bool) -> int:
        from dicomwatchd.cli.setup import telling

        self._tell("")
        for line in telling.sentences(report, settings, self._machine, self._ways, self._given, deletes=deletes):
            self._tell(line)
        if self._ways.as_json:
            output.document(telling.document(self._machine, self._ways, report, []))
        if report.failed is None:
            return exits.OK
        return exits.ARCHIVE if report.failed.code == exits.ARCHIVE else exits.NO


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A configuration that keeps files, and the one that deletes them; each as it is written, too."""

    settings: Config
    deleting: Config
    keep_text: str
    delete_text: str


def _parsed(answers: Answers, source: str) -> _Parsed:
    """Raises ConfigError."""
    from dicomwatchd.cli.setup import answers as of
    from dicomwatchd.cli.setup.questions import values_of
    from dicomwatchd.config import loading

    keep, delete = (of.data_of(answers, values_of(answers), each) for each in (of.KEEP, of.DELETE))
    return _Parsed(
        loading.parse(keep, source=source),
        loading.parse(delete, source=source),
        of.text_of(keep),
        of.text_of(delete),
    )


def _may_be_asked() -> bool:
    return sys.stdin.isatty()


def _beside(text: str) -> None:
    """Where the answer is JSON, everything else goes to stderr."""
    click.echo(output.clean(text), err=True)


def _read(*, err: bool) -> Callable[[str, str], str]:
    def read(text: str, default: str) -> str:
        answer: str = click.prompt(text, default=default, err=err)
        return answer

    return read
