"""A modality that sends each object in one piece, and acknowledges at once: run as a process.

python -m tests.bench.receive.whole_pdus PORT CALLED FOLDER

DCMTK's programs write the header of a PDU by itself, and the rest once that is acknowledged: with them on both sides
much of the time is the kernel's delayed acknowledgement. This sender waits for no such thing, and no receiver does for
it. It says "ready" once it has an association, begins when its input ends, and ends with status 0 when every file of
the folder was answered with Success.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from pydicom import dcmread

from tests.dicom_peer import Modality, c_store_rq, data_set_of, p_data
from tests.synthetic import CT_IMAGE

#: Of a PDU, for the header of its one value.
_HEADER_BYTES = 6


def message(path: Path, sop_instance: str, number: int, max_pdu_bytes: int) -> bytes:
    """One C-STORE request with its data set, as the PDUs that the receiver wants."""
    data_set = data_set_of(path)
    step = max_pdu_bytes - _HEADER_BYTES
    pieces = [p_data(1, 3, c_store_rq(CT_IMAGE, sop_instance.encode(), number))]
    for start in range(0, len(data_set), step):
        is_last = start + step >= len(data_set)
        pieces.append(p_data(1, 2 if is_last else 0, data_set[start : start + step]))
    return b"".join(pieces)


def main() -> int:
    port, called, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    uids = {path: str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sorted(folder.iterdir())}
    with Modality(port, called=called) as modality:
        if 1 not in modality.accepted:
            return 1
        modality.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        sys.stdin.read()
        for number, (path, uid) in enumerate(uids.items(), start=1):
            modality.socket.sendall(message(path, uid, number, modality.max_pdu_bytes))
            # It acknowledges what is there, and nothing that comes: so after the first bytes of the answer.
            modality.socket.recv(1, socket.MSG_PEEK)
            modality.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if modality.answer()[0x0900] != b"\0\0":
                return 1
        modality.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
