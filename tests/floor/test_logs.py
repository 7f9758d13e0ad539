"""The log: where it goes, what it looks like, what never stands in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from p2pdist import logs
from p2pdist.errors import UsageError


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_lines_carry_program_level_time_event_and_keywords(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("p2pdist-agent", "info", True)
    logs.get_logger("swarm").info("artifact finished", seconds=1.5)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "program": "p2pdist-agent",
        "level": "info",
        "room": "swarm",
        "event": "artifact finished",
        "seconds": 1.5,
    }


def test_text_for_people_names_event_and_keywords_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("p2pdist-agent")
    logs.get_logger().warning("upstream lost", host="10.0.0.1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "upstream lost" in captured.err
    assert "host=10.0.0.1" in captured.err
    assert len(captured.err.splitlines()) == 1


def test_less_serious_lines_than_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("p2pdist-agent", "warning", True)
    logs.get_logger().info("quiet")
    logs.get_logger().error("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


@pytest.mark.parametrize(
    "secret",
    [
        {"token": "hunter2"},
        {"enrolment_token": "hunter2"},
        {"Authorization": "Bearer hunter2"},
        {"detail": {"passphrase": "hunter2"}},
        {"detail": [{"private_pem": "hunter2"}]},
        {"url": "postgresql://user:hunter2@db/p2pdist"},
        {"key_pem": b"hunter2"},
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_never_reach_the_log(
    capsys: pytest.CaptureFixture[str], secret: dict[str, Any], as_json: bool
) -> None:
    logs.configure_logging("p2pdist-server", "info", as_json)
    logs.get_logger().info("configured", **secret)
    written = capsys.readouterr().err
    assert "configured" in written
    assert "hunter2" not in written


def test_ordinary_names_and_urls_are_left_alone() -> None:
    event = {"token_id": "7", "key": "a", "url": "https://host/path", "tokens_used": 3}
    assert logs.redact(event) == event


def test_an_exception_is_written_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("p2pdist-server", "info", True)
    try:
        raise ValueError("broken")
    except ValueError:
        logs.get_logger().exception("request failed")
    (line,) = lines(capsys)
    assert "ValueError: broken" in line["exception"]


def test_a_standard_error_that_cannot_be_written_does_not_stop_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    logs.configure_logging("p2pdist-seed")
    monkeypatch.setattr(sys, "stderr", Full())
    logs.get_logger().error("disk full")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UsageError, match="use one of debug, info, warning, error"):
        logs.configure_logging("p2pdist-agent", "loud")


def test_logging_brings_nothing_into_an_endpoint_that_it_does_not_use() -> None:
    code = "import sys, p2pdist.logs; print(sorted({'rich', 'asyncio', 'pickle'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_logging_has_left_out_can_be_imported_afterwards() -> None:
    code = (
        "import p2pdist.logs, asyncio, pickle, rich.console; asyncio.run(asyncio.sleep(0)); pickle.dumps({})"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
