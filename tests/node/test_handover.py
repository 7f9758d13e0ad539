"""What a machine is enrolled with, from files and from standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from workshop import Workshop

from p2pdist.errors import UsageError
from p2pdist.ids import FleetName
from p2pdist.node.handover import STANDARD_INPUT, read_handover
from p2pdist.trust.enrolment import EnrolmentBundle
from tests.node.nodes import Nodes

TOKEN = "a-token"


@pytest.fixture
def bundle(nodes: Nodes) -> EnrolmentBundle:
    return EnrolmentBundle(
        fleet=FleetName("acme"),
        ca_pem=nodes.authority.certificate_pem,
        root=Workshop().roots[0],
        server_node=nodes.server.node,
        server_public=nodes.server.public,
        addresses=("192.0.2.1:7601",),
    )


def say(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def write_token(directory: Path) -> Path:
    path = directory / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN + "\n")
    return path


def test_both_come_from_files(bundle: EnrolmentBundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    assert read_handover(tmp_path / "bundle", write_token(tmp_path)) == (bundle, TOKEN)


def test_a_token_that_others_can_read_is_refused(bundle: EnrolmentBundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    path = write_token(tmp_path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        read_handover(tmp_path / "bundle", path)


def test_both_come_from_standard_input_the_token_first(
    bundle: EnrolmentBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, TOKEN.encode() + b"\n" + bundle.encode())
    assert read_handover(STANDARD_INPUT, STANDARD_INPUT) == (bundle, TOKEN)


def test_either_comes_from_standard_input(
    bundle: EnrolmentBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(tmp_path / "bundle")
    say(monkeypatch, TOKEN.encode() + b"\n")
    assert read_handover(tmp_path / "bundle", STANDARD_INPUT) == (bundle, TOKEN)
    say(monkeypatch, bundle.encode())
    assert read_handover(STANDARD_INPUT, write_token(tmp_path)) == (bundle, TOKEN)


@pytest.mark.parametrize("data", [b"", b"\n", b"a-token\n", b"a-token\n{", b"\xff\xff\n{}"])
def test_standard_input_that_is_cut_short_or_something_else_is_refused(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, data)
    with pytest.raises(UsageError):
        read_handover(STANDARD_INPUT, STANDARD_INPUT)
