"""Handlers: what vendors offer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2pdist import limits
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.store import proposals
from p2pdist.store.records import ProposalRecord
from p2pdist.wire import api as wire
from p2pdist.wire.following import ProposalState


async def list_proposals(api: Api, call: Call[None]) -> wire.ProposalList:
    """What vendors offer, by the ids of the proposals."""
    limit = call.query_int("limit", limits.API_ROWS_MAX, at_most=limits.API_ROWS_MAX)
    state = call.query.get("state", "")
    found = await api.store.read(
        proposals.list_proposals,
        state="" if state == "published" else state,
        after=call.query.get("after", ""),
        limit=limit,
    )
    shown = _shown(api, found)
    return wire.ProposalList(
        proposals=[info for info in shown if state in ("", info.state)],
        next=found[-1].id if found and len(found) == limit else "",
    )


async def show_proposal(api: Api, call: Call[None]) -> wire.ProposalInfo:
    """One proposal, by its id or the beginning of it."""
    return _shown(api, [await api.store.read(proposals.find_proposal, call.path["id"])])[0]


async def drop_proposal(api: Api, call: Call[None]) -> wire.ProposalInfo:
    """Drop a proposal; it is not made again while it is on offer."""
    chosen = call.path["id"]
    return _shown(api, [await api.change(call, "proposal.drop", chosen, proposals.drop_proposal, chosen)])[0]


def _shown(api: Api, records: Sequence[ProposalRecord]) -> list[wire.ProposalInfo]:
    """Say what proposals are; one that is a signed release is published, whatever else was said of it."""
    by_content = {release.sha256: target for target, release in api.releases.items()}
    by_name = {(str(release.product), release.version): target for target, release in api.releases.items()}
    shown = []
    for record in records:
        version = record.version.replace(":", "+")
        named = by_name.get((record.product, version), "")  # versions of a vendor that says no checksums
        release = by_content.get(record.sha256, "") if record.sha256 else named
        state: ProposalState = "published" if release else record.state
        fields = {**msgspec.structs.asdict(record), "state": state, "release": release}
        shown.append(wire.ProposalInfo(**fields))
    return shown
