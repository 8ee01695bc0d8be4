"""The test servers by hand: `python -m tests.servers up {rgw,dynamodb,all} DIR`, `down DIR`, `packages`.

`up` prints shell assignments and leaves the servers running behind; use it as `set -a; eval "$(... up all
DIR)"; set +a`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from tests.servers import DEBIAN_PACKAGES, missing, processes
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.processes import ServerError
from tests.servers.tls import make_certificate


def assignments(rgw: CephRgw | None, dynamodb: DynamoDBLocal | None) -> dict[str, str]:
    """The variables that lead to these servers. The gateway checks the credentials, DynamoDB Local takes any."""
    found: dict[str, str] = {}
    if dynamodb is not None:
        found |= dynamodb.env()
        found["DYNAMODB_ENDPOINT"] = dynamodb.http_endpoint
        found["DYNAMODB_TLS_ENDPOINT"] = dynamodb.https_endpoint
        found["DYNAMODB_CA"] = str(dynamodb.ca_file)
    if rgw is not None:
        found |= rgw.env()
        found["S3_ENDPOINT"] = rgw.http_endpoint
        found["S3_TLS_ENDPOINT"] = rgw.https_endpoint
        found["S3_CA"] = str(rgw.ca_file)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start servers in the new directory DIR and print how to reach them")
    up_parser.add_argument("kind", choices=["rgw", "dynamodb", "all"])
    up_parser.add_argument("directory", metavar="DIR", type=Path)
    down_parser = commands.add_parser("down", help="stop the servers of DIR and remove it")
    down_parser.add_argument("directory", metavar="DIR", type=Path)
    commands.add_parser("packages", help="print the Debian packages that the tests need")
    given = parser.parse_args(arguments)
    try:
        if given.command == "up":
            _up(["rgw", "dynamodb"] if given.kind == "all" else [given.kind], given.directory.absolute())
        elif given.command == "down":
            _down(given.directory.absolute())
        else:
            print(" ".join(sorted({name for names in DEBIAN_PACKAGES.values() for name in names})))
    except ServerError as error:
        print(f"tests.servers: {error}", file=sys.stderr)
        return 1
    return 0


def _up(kinds: list[str], directory: Path) -> None:
    lacks = [sentence for kind in kinds for sentence in missing(kind)]
    if lacks:
        raise ServerError("; ".join(lacks))
    processes.claim_directory(directory)
    rgw: CephRgw | None = None
    dynamodb: DynamoDBLocal | None = None
    try:
        certificate = make_certificate(directory / "tls")
        if "rgw" in kinds:
            rgw = CephRgw(directory / "rgw", certificate=certificate, detached=True).start()
        if "dynamodb" in kinds:
            dynamodb = DynamoDBLocal(directory / "dynamodb", certificate=certificate, detached=True).start()
    except BaseException:
        _down(directory)
        raise
    for name, value in sorted(assignments(rgw, dynamodb).items()):
        print(f"{name}={shlex.quote(value)}")


def _down(directory: Path) -> None:
    if not (directory / processes.MARKER).exists():
        raise ServerError(f"{directory} holds no test servers")
    if (directory / "rgw" / "state.json").exists():
        CephRgw.attach(directory / "rgw").stop()
    if (directory / "dynamodb" / "state.json").exists():
        DynamoDBLocal.attach(directory / "dynamodb").close()
    processes.remove_directory(directory)


if __name__ == "__main__":
    sys.exit(main())
