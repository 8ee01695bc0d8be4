"""Which services botocore is found to know, without a look into each of their folders."""

from __future__ import annotations

import json
from pathlib import Path

import botocore.exceptions
import botocore.loaders
import botocore.session
import pytest

from dicomwatchd.archive.aws import clients as aws


def built(session: botocore.session.Session) -> object:
    return aws.build_client(
        "s3",
        region="us-east-1",
        endpoint_url="https://localhost:1",
        ca_file=None,
        max_connections=1,
        session=session,
    )


def test_the_same_services_are_known() -> None:
    session = aws.new_session()
    built(session)
    loader = session.get_component("data_loader")
    known = botocore.loaders.create_loader().list_available_services("service-2")
    assert set(known) <= set(loader.list_available_services("service-2"))
    built(session)
    assert session.get_component("data_loader") is loader, "what was read once is not read again"


def test_one_that_is_not_there_is_still_found_out() -> None:
    session = aws.new_session()
    built(session)
    with pytest.raises(botocore.exceptions.UnknownServiceError):
        session.create_client("no-such-service", region_name="us-east-1")
    with pytest.raises(botocore.exceptions.DataNotFoundError):
        session.get_component("data_loader").load_service_model("s3", "no-such-type")


def test_a_folder_of_other_descriptions_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "2026-01-01").mkdir(parents=True)
    (tmp_path / "own" / "2026-01-01" / "service-2.json").write_text(json.dumps({"metadata": {}}))
    monkeypatch.setenv("AWS_DATA_PATH", f"{tmp_path}:{tmp_path}/is-not-there")
    session = aws.new_session()
    built(session)
    assert session.get_component("data_loader").load_service_model("own", "service-2") == {"metadata": {}}
