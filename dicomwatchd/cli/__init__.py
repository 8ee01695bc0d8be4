"""dicomwatchctl, the command line tool; nothing is imported before it is needed, somebody waits at the prompt."""


def main() -> None:
    import atexit
    import gc

    # Nearly all that a command makes is imported, and lasts as long as the command: the collector goes through it again
    # and again while it grows, and once more at the end.
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)
    from dicomwatchd.cli.app import root

    root.main(prog_name="dicomwatchctl")
