"""Mutants of the receiver: what was answered with Success is on the disk, by name. Rows of `mutations.Mutation`."""

from __future__ import annotations

UNIT = ("tests/unit/test_receiver.py",)
CONFIG = ("tests/unit/test_receiver_config.py",)

_FOLDER, _WIRE = "receiver/folder.py", "receiver/upper_layer.py"

RECEIVER: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"receiver, into an inbox: {name}", _FOLDER, old, new, UNIT)
        for name, old, new in (
            ("synced before it has a name", "            os.fsync(self._fd)\n", ""),
            ("the name is synced", "            os.fsync(self._folder.fd)\n", ""),
            ("the rest is written", "        self._flush()\n        try:", "        try:"),
            (
                "a short write goes on",
                "            while written < len(block):",
                "            if written < len(block):",
            ),
            ("another name beside one", "            except FileExistsError:", "            except BlockingIOError:"),
            ("the same folder in the end", "        self._folder.require_same()\n\n    def _give", "\n    def _give"),
            ("the same folder", "        folder.require_same()\n", ""),
            ("an archive's folder", "markers.sign_in(self.fd) is not None or", ""),
            ("below an archive's folder", " or markers.is_below(self.fd)", ""),
            (
                "length of an object",
                "            raise NoRoom\n        self._block",
                "            pass\n        self._block",
            ),
            ("no room is no other fault", "NoRoom() if error.errno in _NO_ROOM else ", ""),
        )
    ),
    *(
        (f"receiver, off the wire: {name}", _WIRE, old, new, UNIT)
        for name, old, new in (
            ("time of a PDU", "        if left <= 0:", "        if False:"),
            ("length of a PDU", "length > self._pdu_bytes + SLACK_BYTES", "False"),
            ("a value within its PDU", "if not 0 <= self._value_left <= self._pdu_left:", "if False:"),
            ("a PDU of nothing", "        if length == 0:", "        if False:"),
            ("a release in the middle", "            if not between_messages:", "            if False:"),
        )
    ),
    *(
        (f"receiver, who may: {name}", file, old, new, CONFIG)
        for name, file, old, new in (
            ("address and title", "receiver/association.py", "one.has_address(address) and ", ""),
            ("the title", "receiver/association.py", " and one.ae_title in (None, calling)", ""),
            (
                "the address",
                "receiver/association.py",
                "return not allow or any(one.has_address(address) for",
                "return any(True for",
            ),
            ("nobody by mistake", "config/receivers.py", "            if not is_local:", "            if False:"),
            (
                "certificates that nobody demands",
                "config/receivers.py",
                ' and tls.get("client_ca_file") is not None',
                "",
            ),
        )
    ),
    (
        "receiver: an inbox in memory is told of",
        "doctor.py",
        ", *_inbox(box), *in_memory]",
        ", *_inbox(box)]",
        CONFIG,
    ),
    ("receiver: ramfs is memory, too", "localfiles.py", "0x01021994, 0x858458F6", "0x01021994", CONFIG),
    (
        "receiver: a disk is no memory",
        "unit/receivers.py",
        "        if not is_in_memory(fd):\n            return\n",
        "        pass\n",
        CONFIG,
    ),
    ("receiver: storage commitment is no storage", "receiver/association.py", '"Storage Commitment", ', "", UNIT),
)
