"""Enrolment by files: whole, or refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import UsageError
from p2pdist.ids import FleetName, GroupPath
from p2pdist.trust.enrolmentfiles import EnrolmentAnswer, EnrolmentRequest
from p2pdist.trust.keys import IdentityKey

NODE = IdentityKey.generate().node
REQUEST = EnrolmentRequest(fleet=FleetName("acme"), node=NODE, name="gateway", sealed=b"sealed")
ANSWER = EnrolmentAnswer(
    fleet=FleetName("acme"), node=NODE, group=GroupPath("/points"), certificate_pem=b"a certificate"
)


@pytest.mark.parametrize("document", [REQUEST, ANSWER], ids=lambda d: type(d).__name__)
def test_a_file_survives_a_save_and_a_load_and_is_its_owners_alone(
    document: EnrolmentRequest | EnrolmentAnswer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    document.save(path)
    assert type(document).load(path) == document
    assert path.stat().st_mode & 0o777 == 0o600


def altered(document: EnrolmentRequest | EnrolmentAnswer, path: Path, **fields: Any) -> bytes:
    document.save(path)
    return msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **fields})


@pytest.mark.parametrize(
    "fields", [{"fleet": "Not A Label"}, {"node": "x"}, {"sealed": 7}, {"kind": "something else"}], ids=repr
)
def test_a_request_that_is_not_one_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a valid enrolment request"):
        EnrolmentRequest.decode(altered(REQUEST, tmp_path / "file", **fields))


@pytest.mark.parametrize("fields", [{"group": "points"}, {"certificate": 7}, {"node": ""}], ids=repr)
def test_an_answer_that_is_not_one_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a valid enrolment answer"):
        EnrolmentAnswer.decode(altered(ANSWER, tmp_path / "file", **fields))


@pytest.mark.parametrize("kind", [EnrolmentRequest, EnrolmentAnswer])
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_but_our_error_comes_out_of_any_bytes(kind: Any, data: bytes) -> None:
    with pytest.raises(UsageError):
        kind.decode(data)
