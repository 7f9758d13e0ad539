"""What a device remembers, when what it remembered was damaged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.deployment_model import Moment, Task
from p2pdist.core.ledger import Ledger
from p2pdist.errors import PeerError
from p2pdist.ids import TargetPath

NOW = Moment(unix_s=1_000.0, monotonic_s=5.0)
TASK = Task(deployment="d1", target=TargetPath("stable/app/1/f"), order=1, learned=900.0)


def remembered() -> dict[str, bytes]:
    """The records of a device with a deployment that failed, and a refusal."""
    ledger = Ledger({})
    ledger.add(TASK)
    ended = ledger.keep(TASK.deployment, stage="failed", reason="no luck")
    ledger.report(ended, NOW, exit_code=1, output=b"why")
    ledger.refuse("metadata", "root 2", "expired", NOW)
    return {key: data for key, data in ledger.take_changes().items() if data is not None}


RECORDS = remembered()


def test_what_was_remembered_is_known_again() -> None:
    again = Ledger(RECORDS)
    (task,) = again.tasks()
    assert (task.deployment, task.stage, task.reason) == ("d1", "failed", "no luck")
    assert len(again.unconfirmed.messages()) == 2


@given(st.sampled_from(sorted(RECORDS)), st.integers(0, 10_000), st.binary(max_size=8), st.booleans())
def test_a_damaged_record_is_said_to_be_damaged_or_does_no_harm(
    key: str, at: int, damage: bytes, cut: bool
) -> None:
    data = RECORDS[key]
    at %= len(data) + 1
    records = RECORDS | {key: data[:at] + damage + (b"" if cut else data[at + len(damage) :])}
    use(records)


@given(
    st.dictionaries(
        st.sampled_from(
            ["task/d1", "task/", "product/stable/app", "counter", "report/1", "refusal/1", "other"]
        ),
        st.binary(max_size=64),
        max_size=4,
    )
)
def test_arbitrary_records_are_said_to_be_damaged_or_do_no_harm(records: dict[str, bytes]) -> None:
    use(records)


def use(records: dict[str, bytes]) -> None:
    """Do with a device's records what the device does."""
    try:
        ledger = Ledger(records)
    except PeerError:
        return
    for task in ledger.tasks():
        ledger.keep(task.deployment, reason="again")
    ledger.refuse("content", "something", "it is bad", NOW)
    ledger.unconfirmed.confirm([message.id for message in ledger.unconfirmed.take_due(now_s=NOW.monotonic_s)])
    changes = ledger.take_changes()
    Ledger({key: data for key, data in (records | changes).items() if data is not None})
