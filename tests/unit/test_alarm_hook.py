"""The command of on_alarm: what it gets, and that it holds up nobody and leaves nothing, whatever it does."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.alarms.hook import Hook, HookFailed, Interrupted, Why


def script(folder: Path, text: str, mode: int = 0o755) -> Path:
    path = folder / "on-alarm"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def run(command: list[str], text: str = "x\n", deadline: float = 60.0, waiting: Callable[[float], bool] = wait) -> None:
    Hook(command, time.monotonic, deadline).run(text, waiting)


def failed(command: list[str]) -> HookFailed:
    with pytest.raises(HookFailed) as raised:
        run(command)
    return raised.value


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(*pids: int) -> None:
    """What is killed dies when the kernel next lets it run."""
    until = time.monotonic() + 60
    while any(map(is_there, pids)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_it_is_told_on_standard_input_and_gets_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    out = tmp_path / "out"
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        program = script(
            tmp_path, f'{{ cat; echo "$#:$1:$2"; env; pwd; ls -l /proc/self/fd; ps -o sid= -p $$; }} >{out}'
        )
        run([str(program), "radiology", "$(touch /tmp/no) ; *"], '{"alarm": "clock"}\n')
    said = out.read_text()
    assert said.startswith('{"alarm": "clock"}\n2:radiology:$(touch /tmp/no) ; *\n')
    assert "secret" not in said and "NOTIFY" not in said and str(tmp_path / "open") not in said
    assert {line.partition("=")[0] for line in said.splitlines() if "=" in line and " " not in line} <= {
        "PATH",
        "LANG",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    }
    assert "\n/\n" in said
    assert f"\n{os.getsid(0)}" not in said.replace(" ", ""), "a session of its own"


def test_much_to_say_to_one_that_does_not_listen(tmp_path: Path) -> None:
    begun = time.monotonic()
    run([str(script(tmp_path, "exit 0"))], "x" * 5_000_000)
    assert time.monotonic() - begun < 30


def test_output_is_nobodys(tmp_path: Path) -> None:
    run([str(script(tmp_path, "head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2"))])


def test_one_that_fails(tmp_path: Path) -> None:
    error = failed([str(script(tmp_path, "exit 3"))])
    assert (error.why, error.status) == (Why.FAILED, 3)
    error = failed([str(script(tmp_path, "kill -9 $$"))])
    assert (error.why, error.status) == (Why.FAILED, -9)


def test_one_that_hangs_is_killed_with_all_that_it_has_begun(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = script(tmp_path, f"trap '' TERM; sleep 300 & echo $! >{pids}; (sleep 300 & echo $! >>{pids}); sleep 300")
    begun = time.monotonic()

    def left() -> list[int]:
        return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []

    def clock() -> float:
        """Stands still until all of them are there."""
        return time.monotonic() if len(left()) == 2 else begun

    with pytest.raises(HookFailed) as raised:
        Hook([str(program)], clock, 1.0).run("x\n", wait)
    assert raised.value.why is Why.TOO_LATE and not raised.value.detail, "whoever waits for it has not given it up"
    assert 1 <= time.monotonic() - begun < 60
    wait_until_gone(*left())


def test_one_that_leaves_others_behind(tmp_path: Path) -> None:
    """It ends at once and well; what it has left in its group does not live on."""
    pids = tmp_path / "pids"
    run([str(script(tmp_path, f"sleep 300 & echo $! >{pids}; exit 0"))])
    wait_until_gone(int(pids.read_text()))


def test_a_share_that_does_not_answer_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the file system that the command is on waits for as long as its server is away. When it is back
    nothing is run any more that was to be told then, and the next is."""
    out, back, real = tmp_path / "out", threading.Event(), os.lstat
    program = script(tmp_path, f"cat >>{out}")
    # Its clock stands still once the share is back: the third may take its time.
    hook = Hook([str(program)], lambda: 0.0 if back.is_set() else time.monotonic(), 0.3)

    def away(path: str) -> os.stat_result:
        if str(path) == str(program):
            assert back.wait(25), "and nobody has waited for it"
        return real(path)

    started, start = list[object](), subprocess.Popen

    def starting(command: Any, **arguments: Any) -> Any:
        started.append(command)
        return start(command, **arguments)

    monkeypatch.setattr(os, "lstat", away)
    monkeypatch.setattr(subprocess, "Popen", starting)
    monkeypatch.setattr("dicomwatchd.alarms.hook._GRACE_SECONDS", 0.5)
    begun, beats = time.monotonic(), list[float]()

    def waiting(seconds: float) -> bool:
        beats.append(seconds)
        return wait(seconds)

    for text in ("first\n", "second\n"):
        with pytest.raises(HookFailed) as raised:
            hook.run(text, waiting)
        assert raised.value.why is Why.TOO_LATE and "does not answer" in raised.value.detail
    with pytest.raises(HookFailed, match="too-late"):
        hook.check()
    assert time.monotonic() - begun < 20 and beats, "and whoever waits shows signs of life"
    assert len([one for one in threading.enumerate() if one.name == "on-alarm"]) == 1, "one thread is left, and no more"
    back.set()
    until = time.monotonic() + 60
    while any(one.name == "on-alarm" for one in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not started and not out.exists(), "told as failed, and not told late"
    hook.run("third\n", wait)
    assert out.read_text() == "third\n"


def test_one_that_cannot_even_be_killed_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in the kernel for a share whose server is away."""
    dead, back, real = threading.Event(), threading.Event(), subprocess.Popen.wait

    def unending(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        dead.set()
        assert back.wait(25), "and nobody has waited for it"
        return real(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", unending)
    monkeypatch.setattr("dicomwatchd.alarms.hook._GRACE_SECONDS", 0.5)
    for waiting, error in ((wait, HookFailed), (lambda _: dead.is_set(), Interrupted)):
        dead.clear()
        back.clear()
        begun = time.monotonic()
        with pytest.raises(error):
            run([str(script(tmp_path, "exec sleep 300"))], deadline=0.3, waiting=waiting)
        assert time.monotonic() - begun < 20
        back.set()


def test_a_stop_ends_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        run([str(script(tmp_path, "sleep 300"))], waiting=lambda _: True)
    assert time.monotonic() - begun < 30


def test_what_is_no_program(tmp_path: Path) -> None:
    assert failed([str(tmp_path / "no-such")]).why is Why.MISSING
    assert failed([str(script(tmp_path, "exit 0", 0o644))]).why is Why.MISSING
    assert failed([str(tmp_path)]).why is Why.MISSING
    data = tmp_path / "data"
    data.write_bytes(b"\x00\x01no program")
    data.chmod(0o755)
    error = failed([str(data)])
    assert (error.why, error.detail) == (Why.NOT_STARTED, "Exec format error")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert failed([str(loop)]).why is Why.MISSING


def test_a_link_that_is_exchanged_or_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the reading of it; or its share has lost it."""
    link = tmp_path / "link"
    link.symlink_to(script(tmp_path, "exit 0"))
    real = os.readlink

    def exchanged(path: str) -> str:
        link.unlink()
        link.write_text("no link")
        return real(path)

    def lost(path: str) -> str:
        raise OSError(errno.EIO, "lost", path)

    for way, text in ((lost, "Input/output error"), (exchanged, "Invalid argument")):
        monkeypatch.setattr(os, "readlink", way)
        with pytest.raises(HookFailed) as raised:
            Hook([str(link)], time.monotonic, 10.0).check()
        assert (raised.value.why, raised.value.detail) == (Why.MISSING, f"{link}: {text}")


def raising(error: Exception) -> Callable[..., Any]:
    def instead(*_: object, **__: object) -> Any:
        raise error

    return instead


def test_what_it_is_told_cannot_be_put_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = str(script(tmp_path, "exit 0"))
    with monkeypatch.context() as short:
        short.setattr(os, "memfd_create", raising(OSError(errno.EMFILE, "none left")))
        error = failed([program])
        assert (error.why, error.detail) == (Why.NOT_STARTED, "Too many open files")
    full = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(full, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    monkeypatch.setattr(os, "memfd_create", lambda _: full)
    error = failed([program])
    assert (error.why, error.detail) == (Why.NOT_STARTED, "Operation not permitted")


def test_its_end_was_seen_by_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the daemon was started with SIGCHLD ignored."""
    monkeypatch.setattr(os, "waitid", raising(ChildProcessError(errno.ECHILD, "none")))
    error = failed([str(script(tmp_path, "exit 0"))])
    assert (error.why, error.detail) == (Why.NOT_STARTED, "No child processes")


def test_no_thread_is_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TasksMax= is reached. The next time there may be one."""
    hook = Hook([str(script(tmp_path, "exit 0"))], time.monotonic, 10.0)
    ways: list[Callable[[], object]] = [hook.check, lambda: hook.run("x\n", wait)]
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        for way in ways:
            with pytest.raises(HookFailed) as raised:
                way()
            assert (raised.value.why, raised.value.detail) == (Why.NOT_STARTED, "Resource temporarily unavailable")
    for way in ways:
        way()


def test_what_others_may_exchange_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    program = script(folder, "exit 0")
    run([str(program)])
    for mode in (0o775, 0o757):
        program.chmod(mode)
        assert failed([str(program)]).why is Why.NOT_SAFE
    program.chmod(0o755)
    folder.chmod(0o777)
    error = failed([str(program)])
    assert error.why is Why.NOT_SAFE and error.detail == f"{folder} can be written to by its group or by others"
    folder.chmod(0o1777)  # where nobody removes what is another's
    run([str(program)])
    folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_belongs_to_others_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    program = script(folder, "exit 0")
    os.chown(program, 1234, 0)
    assert failed([str(program)]).why is Why.NOT_SAFE
    os.chown(program, 0, 0)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    link = tmp_path / "link"
    link.symlink_to(theirs / "inner")
    (theirs / "inner").symlink_to(program)
    run([str(link)])
    os.chown(theirs, 1234, 0)  # a link there could lead elsewhere tomorrow
    assert failed([str(link)]).why is Why.NOT_SAFE
    os.chown(theirs, 0, 0)
    os.chown(theirs / "inner", 1234, 0, follow_symlinks=False)
    assert failed([str(link)]).why is Why.NOT_SAFE
    via = tmp_path / "bin" / ".." / "bin" / "." / "on-alarm"
    run([str(via)])


def test_it_has_no_memory_dump(tmp_path: Path) -> None:
    """See the units' LimitCORE=: 0 would be none to a file alone."""
    out = tmp_path / "out"
    run([str(script(tmp_path, f"sleep 0.3; grep '^Max core' /proc/self/limits >{out}"))])
    assert out.read_text().split()[4:6] == ["1", "1"]


def test_it_cannot_take_the_daemons_memory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([str(script(tmp_path, f"sleep 0.3; {{ ulimit -v; cat /proc/self/oom_score_adj; }} >{out}"))])
    memory, score = out.read_text().split()
    assert int(memory) == 1 << 20
    assert int(score) == 1000
