"""dicomwatchctl, the command line tool; nothing is imported before it is needed, somebody waits at the prompt."""


def main() -> None:
    from dicomwatchd.cli.app import root

    root.main(prog_name="dicomwatchctl")
