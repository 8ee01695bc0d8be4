"""The plan: which steps there are for a configuration on a machine, in their order. It is data, and does nothing."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.cli.setup import folders, keys
from dicomwatchd.cli.setup.answers import DELETE, KEEP
from dicomwatchd.cli.setup.background import Background
from dicomwatchd.cli.setup.machine import SERVICE, USER, Machine
from dicomwatchd.cli.setup.phantom import PATIENT_ID
from dicomwatchd.cli.setup.steps import Command, Outcome, Ran, Step, Told
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.config.inboxes import Inbox
from dicomwatchd.config.whole import Config
from dicomwatchd.rights import ENTER, READ, WRITE, Asker, hands_down
from dicomwatchd.unit import drop_in

ROOT, SYSTEMD = "root", "systemd"
#: Of a step whose result others ask for.
TEST_STUDY, FOLDERS, AFTER_ARCHIVING = "test-study", "sandbox", "after-archiving"
_JOURNAL = "journalctl -u dicomwatchd -n 30 says why; correct it, and run setup again: it goes on from here"
_ALL = READ | WRITE | ENTER


@dataclass(frozen=True, slots=True)
class Ways:
    """How it is done; what is set up is in the answers."""

    service: bool = True
    acl: bool = True
    start: bool = True
    test_study: bool = True
    deadline_seconds: int | None = None
    confirmed: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """``text`` is the configuration to be written, None where there is one; ``delete_text`` the same with deletion,
    where that was asked for and is not there yet. ``tested`` says whether the archive has the test study."""

    settings: Config
    text: str | None
    ways: Ways
    background: Background
    tested: Callable[[], str | None]
    delete_text: str | None = None


def steps(wanted: Wanted, machine: Machine) -> list[Step]:
    """In their order. Without a service there are no owners, no ACLs, no sandbox and no systemd among them."""
    return [
        *_inboxes(wanted, machine),
        *_state(wanted, machine),
        *_archive_folder(wanted, machine),
        *_configuration(wanted, machine),
        _check(machine),
        _init(wanted, machine),
        *_keys(wanted, machine),
        *_sandbox(wanted, machine),
        *_start(wanted, machine),
        *_test_study(wanted, machine),
        *_stop(wanted),
        *_deletion(wanted, machine),
    ]


# -- folders --------------------------------------------------------------------------------------------------------


def _made(path: Path, mode: str, wanted: Wanted) -> Command:
    if wanted.ways.service:
        return Command.of("install", "-d", "-o", USER, "-g", USER, "-m", mode, str(path))
    return Command.of("mkdir", "-p", str(path))


def _is_there(path: Path) -> Callable[[], str | None]:
    return lambda: f"{path} is there" if path.is_dir() else None


def _is_the_daemons(path: Path, wanted: Wanted, machine: Machine) -> Callable[[], str | None]:
    """An empty folder that somebody has made beforehand is still to become the daemon's."""

    def already() -> str | None:
        if not path.is_dir():
            return None
        is_empty_and_anothers = (
            wanted.ways.service
            and machine.daemon is not None
            and folders.owner(path) != machine.daemon.uid
            and not folders.entries(path)
        )
        return None if is_empty_and_anothers else f"{path} is there"

    return already


def _inboxes(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    needs = (ROOT,) if wanted.ways.service else ()
    for box in wanted.settings.inboxes:
        yield Step(
            f"inbox {box.name}",
            f"The folder of inbox {box.name}",
            _made(box.path, "2770", wanted),
            hint="make the folder yourself, or mount its share, then run setup again",
            already=_is_there(box.path),
            needs=needs,
        )
        if wanted.ways.service and wanted.ways.acl and machine.daemon is not None:
            yield _rights(box, machine.daemon)


def _rights(box: Inbox, daemon: Asker) -> Step:
    acl = ("-m", f"u:{USER}:rwX", "-m", f"d:u:{USER}:rwX")

    def already() -> str | None:
        try:
            fd = os.open(box.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            has_them = daemon.may(fd, _ALL) and hands_down(fd, daemon.uid, _ALL)
        except OSError:
            return None
        finally:
            os.close(fd)
        return f"{USER} may read and delete there, and in folders made there later" if has_them else None

    return Step(
        f"rights {box.name}",
        f"The user {USER} may read and delete in inbox {box.name}, and in folders that modalities make there",
        Command.of("setfacl", "-R", *acl, str(box.path)),
        hint="setfacl is in the package acl (apt install acl). A file system without ACLs needs a group that the"
        " modality's user and dicomwatchd share, or mount options: see Setting up in docs/operations.md, and run setup"
        " again with --no-acl",
        already=already,
        needs=(ROOT,),
    )


def _state(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    path = wanted.settings.state_directory
    needs = (ROOT,) if wanted.ways.service else ()
    yield Step(
        "state",
        "The folder of the daemon's state",
        _made(path, "0750", wanted),
        already=_is_the_daemons(path, wanted, machine),
        needs=needs,
    )
    parent = machine.config_path.parent
    if wanted.text is not None and not wanted.ways.service and not parent.is_dir():
        yield Step("configuration folder", "The folder of the configuration", Command.of("mkdir", "-p", str(parent)))


def _archive_folder(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    store = wanted.settings.archive.store
    if not isinstance(store, DirectorySettings):
        return
    yield Step(
        "archive folder",
        "The folder of the archive",
        _made(store.path, "0750", wanted),
        hint="make the folder yourself, or mount its share, then run setup again",
        already=_is_the_daemons(store.path, wanted, machine),
        needs=(ROOT,) if wanted.ways.service else (),
    )


# -- configuration and archive --------------------------------------------------------------------------------------


def _configuration(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    path = machine.config_path
    text = wanted.text
    yield Step(
        "configuration",
        "The configuration; files are kept for now" if text is not None else "The configuration",
        Command.shell(_here_document(path, text or "")),
        already=lambda: f"{path} is there, and is left as it is" if os.path.lexists(path) else None,
        needs=(ROOT,) if wanted.ways.service else (),
    )


def _here_document(path: Path, text: str) -> str:
    """Written beside it, and linked: so the file is there whole or not at all, and one that is there stays. Never into
    what has that name already: it may be a link, or, after a kill, the same file as a configuration of before."""
    new, there = shlex.quote(f"{path}.new"), shlex.quote(str(path))
    writing = f"(umask 022; rm -f {new}; set -C; cat > {new})"
    return f"{writing} <<'END' && ln {new} {there} && rm {new}\n{text}END"


def _check(machine: Machine) -> Step:
    return Step(
        "check",
        "What the configuration says is checked",
        Command.of(*machine.ctl, "config", "check"),
        hint=f"correct {machine.config_path}, then run setup again: it goes on from here",
        understand=lambda _ran: Told(Outcome.CHECKED, "it is valid, and its folders are there"),
    )


def _init(wanted: Wanted, machine: Machine) -> Step:
    store = wanted.settings.archive.store
    in_folder = isinstance(store, DirectorySettings)
    command: tuple[str, ...] = (*machine.ctl, "archive", "init", "--json")
    if in_folder and wanted.ways.service:
        command = ("runuser", "-u", USER, "--", *command)
    elif not in_folder:
        command = (*keys.borrowed(machine), *command)

    def understand(ran: Ran) -> Told:
        said = json.loads(ran.stdout)
        made = [f"{step['part']}: {step['what']}" for step in said["steps"] if step["outcome"] in ("created", "set")]
        lacking = [step["what"] for step in said["steps"] if step["outcome"] == "not supported"]
        detail = f"archive {said['archive_id']}"
        if made:
            detail += f"; made {', '.join(made)}"
        if lacking:
            detail += f"; this store does not support {', '.join(lacking)} (dicomwatchctl archive init says why)"
        return Told(Outcome.DONE if said["changed"] else Outcome.ALREADY, detail, said)

    return Step(
        "archive",
        "The archive: what is missing of it is made",
        Command.of(*command),
        hint="is the share mounted, or is it the right bucket? "
        + ("" if in_folder else f"If keys are refused: {keys.WHERE_THIS_PERSONS}. ")
        + "Then run setup again: it goes on from here",
        understand=understand,
        needs=(ROOT,) if in_folder and wanted.ways.service else (),
    )


def _keys(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    """The service's own keys reach store and catalogue: asked for a patient that nobody is."""
    if not wanted.ways.service or not is_remote(wanted.settings):
        return
    of_service = keys.as_the_service()
    if of_service is None:
        yield Step(
            "keys",
            "The keys of the service",
            Command.of("true"),
            already=lambda: f"they are in {drop_in.ENVIRONMENT_FILE}, which systemd alone reads: the start will tell",
        )
        return
    yield Step(
        "keys",
        "The keys of the service reach the archive",
        Command.of(*of_service, *machine.ctl, "search", "--patient", PATIENT_ID, "--json"),
        hint=f"{keys.WHERE_THE_SERVICES}; then run setup again: it goes on from here",
        understand=lambda _ran: Told(Outcome.CHECKED, "store and catalogue answer"),
        needs=(ROOT,),
    )


# -- the service ----------------------------------------------------------------------------------------------------


def _sandbox(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    if not wanted.ways.service:
        return
    before = _bytes(drop_in.DROP_IN), _bytes(drop_in.RECEIVER_DROP_IN)

    def understand(ran: Ran) -> Told:
        changed = (_bytes(drop_in.DROP_IN), _bytes(drop_in.RECEIVER_DROP_IN)) != before
        [first, *_] = [*ran.stdout.splitlines(), ""]
        return Told(Outcome.DONE if changed else Outcome.ALREADY, first)

    yield Step(
        FOLDERS,
        "The service's sandbox lets it use these folders, addresses and keys",
        Command.of(machine.folders_name),
        understand=understand,
        needs=(ROOT, SYSTEMD),
    )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _start(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    if not wanted.ways.start:
        return
    if not wanted.ways.service:
        if wanted.ways.test_study:
            yield Step(
                "start",
                "The daemon, for as long as the test study takes",
                wanted.background.command,
                hint=f"{wanted.background.log} says why; correct it, and run setup again: it goes on from here",
                already=lambda: wanted.tested() or wanted.background.running(),
                act=wanted.background.start,
                understand=lambda _ran: Told(Outcome.CHECKED, "it is ready"),
            )
        return
    before = _bytes(drop_in.DROP_IN)
    is_on = machine.service_is_active and machine.service_is_enabled

    def as_it_is() -> str | None:
        return "it is enabled, and runs" if is_on else None

    yield Step(
        "service",
        "The service, now and after each start of the machine",
        Command.of("systemctl", "enable", "--now", SERVICE),
        hint=_JOURNAL + (f". If keys are refused: {keys.WHERE_THE_SERVICES}" if is_remote(wanted.settings) else ""),
        already=as_it_is,
        needs=(ROOT, SYSTEMD),
    )
    if machine.service_is_active:
        yield Step(
            "restart",
            "The service uses the sandbox as it is now",
            Command.of("systemctl", "restart", SERVICE),
            hint=_JOURNAL,
            already=lambda: "nothing has changed" if _bytes(drop_in.DROP_IN) == before else None,
            needs=(ROOT, SYSTEMD),
        )


def is_remote(settings: Config) -> bool:
    """Whether keys are needed, for a bucket or a table."""
    return any(True for _ in drop_in.endpoints(settings))


# -- the test study -------------------------------------------------------------------------------------------------


def _test_study(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    if not wanted.ways.test_study:
        return
    more = () if wanted.ways.deadline_seconds is None else ("--deadline", str(wanted.ways.deadline_seconds))
    borrowed = keys.borrowed(machine) if is_remote(wanted.settings) else ()

    def understand(ran: Ran) -> Told:
        said = json.loads(ran.stdout)
        return Told(Outcome.DONE, f"study {said['study_uid']} is archived and proven", said)

    yield Step(
        TEST_STUDY,
        "A test study of nobody goes its way: into the inbox, to the archive, and back for comparison",
        Command.of(*borrowed, *machine.ctl, "setup", "test-study", "--json", *more),
        hint="dicomwatchctl queue, quarantine and doctor say more; then run setup again: it goes on from here",
        already=wanted.tested,
        understand=understand,
        live=True,
    )


def _stop(wanted: Wanted) -> Iterator[Step]:
    if wanted.ways.service or not wanted.ways.start or not wanted.ways.test_study:
        return
    yield Step(
        "stop",
        "The daemon is stopped again",
        Command.of("kill", "%1"),
        already=lambda: None if wanted.background.is_ours else "it was not started here",
        act=wanted.background.stop,
        understand=lambda _ran: Told(Outcome.CHECKED, "it has ended"),
    )


def _deletion(wanted: Wanted, machine: Machine) -> Iterator[Step]:
    """From keep to delete, in the file that setup itself has written, and byte for byte that."""
    text = wanted.delete_text
    if text is None:
        return
    path = machine.config_path
    change = f"sed -i 's/after_archive: {KEEP}$/after_archive: {DELETE}/' {shlex.quote(str(path))}"
    if wanted.ways.service:
        change += f" && systemctl reload {SERVICE}"

    def understand(_ran: Ran) -> Told:
        if _bytes(path) != text.encode():
            return Told(Outcome.FAILED, f"{path} is not what was to come of it: look at it")
        return Told(Outcome.DONE, "from now on files are deleted, each on its own proof")

    yield Step(
        AFTER_ARCHIVING,
        "Files are deleted once the archive provably holds them, as you have said",
        Command.shell(change),
        hint=f"journalctl -u dicomwatchd -g reload says more. Files are kept until {path} says delete",
        already=lambda: "the configuration says so" if _bytes(path) == text.encode() else None,
        understand=understand,
        needs=(ROOT, SYSTEMD) if wanted.ways.service else (),
    )
