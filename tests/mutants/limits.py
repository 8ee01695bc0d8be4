"""Mutants of the limits: what strangers send may take only so much of the daemon. Rows of `mutations.Mutation`."""

from __future__ import annotations

CONTROL = ("tests/unit/test_control_limits.py",)

INTAKE = ("tests/unit/test_intake_limits.py",)
STORE = ("tests/unit/test_store_limits.py",)
DATA_PLANE = ("tests/unit/test_data_plane.py",)
LOOKS = ("tests/unit/test_looks.py",)
ADDRESSING = ("tests/unit/test_addressing.py",)
DENSE = ("tests/unit/test_dense_manifests.py",)

LIMITS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "limits, nested manifests",
        "archive/layout/checked.py",
        "    for _ in range(_DEPTH_LIMIT):",
        "    for _ in range(1_000_000):",
        ("tests/unit/test_manifest.py",),
    ),
    *(
        (f"limits, dense manifests: {name}", file, old, new, DENSE)
        for name, file, old, new in (
            (
                "read",
                "archive/layout/manifest.py",
                "            if has_too_many_values(data):",
                "            if False:",
            ),
            ("written", "archive/layout/manifests.py", " or has_too_many_values(content.data)", ""),
            ("of text alone", "archive/stores/reading.py", " and _values_outside_of_strings(text) > allowed", ""),
            ("a string in two pieces", "archive/stores/reading.py", "        inside ^= len(parts) % 2 == 0\n", ""),
            (
                "large ones at once",
                "archive/layout/lineage.py",
                "size_bytes + one[1].size_bytes > _AT_ONCE_BYTES",
                "False",
            ),
            ("all together", "archive/layout/lineage.py", "judgement.other_values > LIMIT_OTHER_VALUES", "False"),
        )
    ),
    *(
        (f"limits, control socket: {name}", "control/server.py", old, new, CONTROL)
        for name, old, new in (
            ("own connections", "for one in set(own)) >= self._limits.own_connections", "for one in set(own)) < 0"),
            ("all users", "full = others >= self._limits.connections or", "full ="),
            ("by user", " or self._taken[user] >= self._limits.by_user", ""),
            ("the administrator's own", "            if user in own:\n", "            if False:\n"),
            ("long lists one at a time", " and wanted > limits.long_lines:", " and False:"),
            ("seats are left", "            self._seats.leave(client_address[0])\n", "            pass\n"),
            ("seats without a thread", "            self._seats.leave(user)\n            raise", "            raise"),
            ("who has none is forgotten", "            self._taken += Counter()", "            pass"),
            ("length of a line", "            if searched > self._limits.line_bytes:", "            if False:"),
            (
                "time of a request",
                "max(deadline - time.monotonic(), 0.001)",
                "self._limits.idle_seconds",
            ),
            ("time of an answer", "self.request.settimeout(limits.send_seconds)", "self.request.settimeout(None)"),
            (
                "no traceback",
                "    def handle_error(",
                "    def _handle_error(",
            ),
            (
                "the refused reads why",
                "                request.send(_line(_refusal(error)), socket.MSG_DONTWAIT)",
                "                pass",
            ),
        )
    ),
    *(
        (f"limits, retry of all: {name}", "cli/daemon.py", old, new, ("tests/unit/test_cli_daemon.py",))
        for name, old, new in (
            ("a list that is shorter is the last", "        if len(listed) < limit:\n", "        if not left:\n"),
            (
                "no long list where a short one will do",
                "        if not left:  # they were parked again, and others come after them\n",
                "        if True:\n",
            ),
            (
                "others come after those that were parked again",
                "            limit += _AT_ONCE\n",
                "            return\n",
            ),
            (
                "what was done is said",
                "        if count:\n            _say_retried(count, refusals)\n",
                "",
            ),
        )
    ),
    *(
        (f"limits, intake: {name}", file, old, new, INTAKE)
        for name, file, old, new in (
            ("elements", "intake/dicom/structure.py", "        if self._left < 0:", "        if False:"),
            (
                "elements of deflated files",
                "intake/dicom/opening.py",
                "    for_one = PACKED_BYTES_FOR_AN_ELEMENT if is_deflated else BYTES_FOR_AN_ELEMENT\n",
                "    for_one = 1\n",
            ),
            (
                "the most elements",
                "intake/dicom/opening.py",
                "return min(ELEMENTS_LIMIT, ELEMENTS_FREE +",
                "return max(0, ELEMENTS_FREE +",
            ),
            (
                "inflation",
                "intake/dicom/opening.py",
                "min(inflated_limit_bytes, inflated_allowed(source.size_bytes))",
                "inflated_limit_bytes",
            ),
            (
                "the most inflated",
                "intake/dicom/opening.py",
                "return min(INFLATED_LIMIT_BYTES, INFLATED",
                "return max(0, INFLATED",
            ),
            ("sizes are asked", "intake/take.py", "            sizes.require(fd)\n", ""),
            (
                "largest file",
                "intake/dicom/sizes.py",
                "        if seen.st_size > self.max_file_bytes:",
                "        if False:",
            ),
            ("holes", "intake/dicom/sizes.py", "_is_nearly_all_hole(fd, seen):\n", "False:\n"),
            ("holes may be taken", "intake/dicom/sizes.py", "        if not self.takes_sparse and ", "        if "),
            (
                "what was reserved",
                "intake/dicom/sizes.py",
                " or seen.st_blocks * 512 * 100 >= seen.st_size * STORED_PERCENT",
                "",
            ),
            (
                "what compresses",
                "intake/dicom/sizes.py",
                "            if stored * 100 >= seen.st_size * STORED_PERCENT:\n",
                "            if False:\n",
            ),
            (
                "holes not told",
                "intake/dicom/sizes.py",
                "        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):",
                "        if False:",
            ),
            (
                "very many holes",
                "intake/dicom/sizes.py",
                "                return False\n        return True\n",
                "                return False\n        return False\n",
            ),
            ("small files", "intake/dicom/sizes.py", "    if seen.st_size < HOLES_FROM_BYTES or ", "    if "),
            (
                "the file's position",
                "intake/dicom/sizes.py",
                "        os.lseek(fd, 0, os.SEEK_SET)\n",
                "        pass\n",
            ),
            ("looked at again", "intake/comparison.py", "TOO_LARGE, SPARSE, OLD_DICOMDIR)", "OLD_DICOMDIR)"),
            (
                "sizes of the configuration",
                "intake/comparison.py",
                "                self._sizes,\n                self._source.asker,\n",
                "                asker=self._source.asker,\n",
            ),
        )
    ),
    *(
        (f"limits, store: {name}", file, old, new, STORE)
        for name, file, old, new in (
            (
                "read back",
                "archive/proof/evidence.py",
                "                if size_bytes > receipt.size_bytes:\n",
                "                if False:\n",
            ),
            ("documents", "archive/stores/reading.py", "        if not left:\n", "        if False:\n"),
            (
                "a listed manifest",
                "archive/layout/manifests.py",
                "    if listed_bytes > MANIFEST_LIMIT_BYTES:\n",
                "    if False:\n",
            ),
            (
                "a manifest that was read",
                "archive/layout/manifests.py",
                "    if len(data) > MANIFEST_LIMIT_BYTES:\n",
                "    if False:\n",
            ),
            (
                "a manifest that is written",
                "archive/layout/manifests.py",
                "content.digest.size_bytes > MANIFEST_LIMIT_BYTES or ",
                "",
            ),
            (
                "bundles",
                "archive/layout/bundle.py",
                "        if size_bytes > BUNDLE_LIMIT_BYTES:\n            break",
                "        if False:\n            break",
            ),
            (
                "lengths",
                "archive/stores/s3/data_plane.py",
                'LENGTH = re.compile(r"[0-9]{1,19}\\Z")',
                'LENGTH = re.compile(r"[0-9]+\\Z")',
            ),
            (
                "time of a head",
                "archive/stores/s3/connection.py",
                "        self.allow(deadlines.body_seconds(len(data)))\n",
                "        self.allow(1e9)\n",
            ),
            (
                "time of a body",
                "archive/stores/s3/data_plane.py",
                "        connection.allow(deadlines.body_seconds(self.length))\n",
                "        connection.allow(1e9)\n",
            ),
            (
                "time of chunks",
                "archive/stores/s3/data_plane.py",
                "connection.allow(deadlines.body_seconds(_SMALL_BODY_BYTES))",
                "connection.allow(1e9)",
            ),
            (
                "bytes by way of botocore",
                "archive/aws/limits.py",
                " or (self._most_bytes is not None and self._most_bytes < 0)",
                "",
            ),
            ("time by way of botocore", "archive/aws/limits.py", "if self._seconds < 0 or (", "if ("),
        )
    ),
    *(
        (f"limits, data plane: {name}", f"archive/stores/s3/{file}", old, new, DATA_PLANE)
        for name, file, old, new in (
            ("bytes of a head", "connection.py", "self._head_bytes > _HEAD_LIMIT_BYTES or ", ""),
            ("silence", "connection.py", "deadlines.ANSWER_SECONDS - self._quiet_seconds)", "1e9)"),
            ("bytes ahead", "connection.py", "        if self._ahead_bytes >= _AHEAD_BYTES:", "        if False:"),
            ("bytes of a listing", "data_plane.py", "        if len(found) > _LISTING_BYTES:", "        if False:"),
            ("bytes of a listing of a length", "data_plane.py", "if body.length > _LISTING_BYTES:", "if False:"),
            (
                "what was sent is kept",
                "connection.py",
                '        self._curl.setopt(pycurl.POSTFIELDS, b"")',
                "        pass",
            ),
        )
    ),
    *(
        (f"data plane: {name}", f"archive/stores/s3/{file}", old, new, DATA_PLANE)
        for name, file, old, new in (
            (
                "another status of a creation",
                "data_plane.py",
                "sha256, headers, (200, 409, 412))",
                "sha256, headers, (200, 403, 409, 412, 503))",
            ),
            (
                "another status of a part",
                "data_plane.py",
                "data, sha256, headers, (200,))",
                "data, sha256, headers, (200, 204, 409, 412))",
            ),
            ("another status of a look", "data_plane.py", "response.status in (200, 404)", "True"),
            (
                "another status of a reading",
                "data_plane.py",
                "            if response.status not in (200, 206):",
                "            if False:",
            ),
            ("another status of a listing", "data_plane.py", "response.status != 200 or ", ""),
            ("a body that breaks off", "connection.py", "            elif failed:", "            elif False:"),
            ("a coded body", "data_plane.py", '            or "content-encoding" in response.headers\n', ""),
            (
                "two values of a header",
                "connection.py",
                " or headers.setdefault(name, value.strip()) != value.strip():",
                ":\n            raise OddResponse\n        headers[name] = value.strip()\n        if False:",
            ),
            ("an older protocol", "connection.py", 'rb"HTTP/1\\.1 ', 'rb"HTTP/1\\.[01] '),
            (
                "a header that is signed otherwise than sent",
                "data_plane.py",
                "not all(map(_plain, headers.values()))",
                "False",
            ),
            (
                "proxies of the environment",
                "connection.py",
                "            (pycurl.PROXY, route.proxy),",
                "            *([(pycurl.PROXY, route.proxy)] if route.proxy else []),",
            ),
            ("sent again from where it was", "connection.py", "        self._sent_bytes = offset\n", ""),
            (
                "a connection in the middle of an answer",
                "data_plane.py",
                "            if is_whole:\n                self._give_back",
                "            if True:\n                self._give_back",
            ),
            (
                "a look without a length",
                "fast_path.py",
                "    if not LENGTH.match(length):\n        return None\n",
                "    length = length if LENGTH.match(length) else '0'\n",
            ),
            (
                "a look without a zone",
                "fast_path.py",
                '        if found["LastModified"].tzinfo is None:\n            return None\n',
                "",
            ),
        )
    ),
    (
        "data plane: absence needs the bucket",
        "archive/stores/s3/bucket.py",
        "        if found is not None:\n            self._require_bucket()\n",
        "        if found is not None:\n",
        LOOKS,
    ),
    (
        "data plane: what is not there is no object",
        "archive/stores/s3/fast_path.py",
        "    if response is None or response.status != 200:",
        "    if response is None:",
        LOOKS,
    ),
    *(
        (f"data plane, address: {name}", f"archive/stores/s3/{file}", old, new, ADDRESSING)
        for name, file, old, new in (
            (
                "signed otherwise",
                "addressing.py",
                '.get("auth_type") not in _SIGNED_BY or signing.get("signing_name") != "s3"',
                '.get("auth_type") is None',
            ),
            ("the usual region", "addressing.py", 'region=signing["region"]', "region=client.meta.region_name"),
            (
                "the endpoint's host",
                "addressing.py",
                '    parts = urlsplit(prepared["url"])',
                "    parts = urlsplit(client.meta.endpoint_url)",
            ),
            (
                "a proxy that speaks TLS",
                "addressing.py",
                'proxy.startswith("http://") else None',
                'proxy.startswith("http") else None',
            ),
            (
                "listings end for ever",
                "addressing.py",
                "        client.meta.events.unregister(_OPERATION, take)",
                "        pass",
            ),
            (
                "trusts anybody",
                "connection.py",
                "            (pycurl.NOSIGNAL, 1),",
                "            (pycurl.NOSIGNAL, 1),\n            (pycurl.SSL_VERIFYPEER, 0),",
            ),
            (
                "trusts any name",
                "connection.py",
                "            (pycurl.NOSIGNAL, 1),",
                "            (pycurl.NOSIGNAL, 1),\n            (pycurl.SSL_VERIFYHOST, 0),",
            ),
            ("the CONNECT's headers", "connection.py", "            (_SUPPRESS_CONNECT_HEADERS, 1),\n", ""),
            (
                "the first credentials",
                "fast_path.py",
                "credentials=lambda: _frozen(credentials)",
                "credentials=lambda kept=_frozen(credentials): kept",
            ),
        )
    ),
    *(
        (f"limits, record: {name}", file, old, new, INTAKE)
        for name, file, old, new in (
            ("names", "intake/dicom/attributes.py", "{group: text[: _TEXT_CHARACTERS[vr]] for", "{group: text for"),
            ("text", "intake/dicom/attributes.py", "return item[: _TEXT_CHARACTERS[vr]] if", "return item if"),
            ("numbers are not cut", "intake/dicom/attributes.py", " if vr in _TEXT_CHARACTERS else None", ""),
            (
                "number of values",
                "intake/dicom/attributes.py",
                "for item in items[:VALUES_LIMIT]]",
                "for item in items]",
            ),
            (
                "patient ID",
                "intake/dicom/attributes.py",
                '    return found[: _TEXT_CHARACTERS["LO"]]',
                "    return found",
            ),
            (
                "what was cut is told",
                "intake/take.py",
                "        if not known and header.has_long_attributes:",
                "        if False:",
            ),
            (
                "series of a shipment",
                "queue/shipments.py",
                "attributes if left >= 0 else least(attributes)",
                "attributes",
            ),
            ("series of a shipment are told", "queue/shipments.py", "((LIMITED,) if left < 0 else ())", "()"),
            (
                "series over revisions",
                "pipeline/revision.py",
                "        series[uid] = attributes if left >= 0 else",
                "        series[uid] = attributes if True else",
            ),
            (
                "instances",
                "pipeline/revision.py",
                "            if left_bytes < 0:\n                raise",
                "            if False:\n                raise",
            ),
            ("turns", "pipeline/turns.py", "        if has_turn or size_bytes < LARGE_BYTES:", "        if True:"),
            (
                "a turn is given back",
                "pipeline/turns.py",
                "                self._lock.release()",
                "                pass",
            ),
            (
                "what is there is weighed",
                "pipeline/revision.py",
                "    admit(max((seen.size_bytes for seen in listed.revisions.values()), default=0))\n",
                "",
            ),
            (
                "instances are weighed",
                "pipeline/revision.py",
                "            shipment.admit(MANIFEST_LIMIT_BYTES - left_bytes)\n",
                "",
            ),
            ("modality is kept", "model.py", ' if tag == "00080060"}', " if not tag}"),
        )
    ),
)
