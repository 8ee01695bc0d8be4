"""dicomwatchctl, the command line tool; nothing is imported before it is needed, somebody waits at the prompt."""


def main() -> None:
    import atexit
    import gc

    # Nearly all that a command makes is imported, and lasts as long as the command: the collector goes through it again
    # and again while it grows, and once more at the end.
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)
    import sys

    _lead_nowhere_what_is_closed()
    try:
        from dicomwatchd.cli.app import root

        root.main(prog_name="dicomwatchctl")
    except KeyboardInterrupt:  # before anybody else was there to take it
        sys.exit(130)


def _lead_nowhere_what_is_closed() -> None:
    """Of standard input, output and error what the caller has closed (`>&-`): the next file to be opened, such as the
    state, would get its number, and Python has None in its place."""
    import os
    import sys

    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  it stays as long as the command
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
