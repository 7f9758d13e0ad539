"""Messages between a device and the admin server, which travel sealed in envelopes.

Delivery is at least once and may be out of order, so every message states a whole situation or
carries an id that makes it idempotent: a :class:`Heartbeat` says what the device knows, a
:class:`DesiredState` what it should do; whatever is lost is repaired by the next pair.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.discovery import Interface
from p2pdist.wire.envelope import Opened
from p2pdist.wire.frames import Candidate, Count, InfoHashText, NodeIdText, RoleName, SessionIdText, Text
from p2pdist.wire.message import Identifier, Message, UnixSeconds
from p2pdist.wire.questions import NodeAwaited, NodeCame, SecretsRequest, TaskSecrets
from p2pdist.wire.services import Service
from p2pdist.wire.tasks import Assignment, TaskItems, TaskOffers, TaskProgress, TaskResult, TaskSightings
from p2pdist.wire.wakes import WakeOrder, WakePlace

Group = Annotated[str, Meta(pattern=r"^/", max_length=limits.GROUP_PATH_CHARS_MAX)]
Target = Annotated[str, Meta(min_length=1, max_length=limits.TARGET_PATH_CHARS_MAX)]
Channel = Annotated[str, Meta(min_length=1, max_length=limits.CHANNEL_NAME_CHARS_MAX)]
Swarm = Annotated[str, Meta(min_length=1, max_length=253)]
Version = Annotated[int, Meta(ge=1)]
Retry = Annotated[int, Meta(ge=0, le=limits.RETRIES_MAX)]
"""How often somebody has asked for another try of a deployment on one device."""

Stage = Literal[
    "waiting",  # known, not started: metadata, a prerequisite, a window
    "fetching",
    "verifying",
    "installing",
    "installed",
    "failed",  # tried, did not work; the device is as it was before
    "refused",  # not tried: it cannot be trusted, or the platform cannot install it
]


# From a device to the admin server -----------------------------------------------------------------


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """What the device knows and is; sent on attaching, on every change, and every few minutes."""

    revision: Count
    metadata: Annotated[dict[RoleName, Version], Meta(max_length=limits.BUNDLE_FILES_MAX)]
    platform: Annotated[str, Meta(max_length=64)]
    program: Annotated[str, Meta(max_length=64)]
    name: Annotated[str, Meta(max_length=255)]
    certificate_expires: UnixSeconds
    swarms: Annotated[list[Swarm], Meta(max_length=256)]
    disk_free_bytes: Count
    installed: Annotated[dict[Target, Count], Meta(max_length=10_000)]
    """``channel/product`` to the sequence number that is installed."""
    opened: Opened | None = None
    """Which of the admin server's envelopes the device has dealt with."""
    wake: WakePlace | None = None
    """Where it listens while it has no link, if it rests; see :mod:`p2pdist.wire.wakes`."""
    woken: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """The counter of the wake that it came for last: it tells the way on which that came."""
    id: Annotated[str, Meta(max_length=64)] = ""
    """Where it has one, the admin server confirms it by this, as it does reports."""
    interfaces: Annotated[list[Interface], Meta(max_length=limits.INTERFACES_MAX)] | None = None
    """Said first over each link, and when they have changed; None: they are as they were."""


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """How far a deployment is on this device; the newest replaces the ones before."""

    deployment: Identifier
    target: Target
    stage: Stage
    fraction: Annotated[float, Meta(ge=0, le=1)]
    rate_bytes_per_s: Count
    sources: Count
    """Peers that bytes came from in the last second."""
    detail: Text = ""
    retry: Retry = 0
    """Which try this is of."""


class SourceBytes(msgspec.Struct, frozen=True, kw_only=True):
    """How many content bytes came from one node, and how many went to it."""

    node: NodeIdText
    role: Literal["origin", "point", "device", "mirror"]
    received: Count
    sent: Count


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """The end of a deployment on this device. Repeated until a :class:`Received` names its id."""

    id: Identifier
    deployment: Identifier
    target: Target
    stage: Literal["installed", "failed", "refused"]
    reason: Text
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**32)] | None = None
    output: Annotated[bytes, Meta(max_length=limits.OUTPUT_BYTES_MAX)] = b""
    seconds: Annotated[float, Meta(ge=0, le=2**40)] = 0.0
    """From the moment the device learned of the deployment to its end."""
    finished: UnixSeconds
    retry: Retry = 0
    """Which try this is the end of."""


class ContentReport(Message, frozen=True, kw_only=True, tag="content-report"):
    """Where one artifact's bytes came from and went, and every source that was considered.

    The totals are since the node took the artifact in; the newest replaces the ones before.
    What was received is the sources' bytes and ``unattributed``; ``wasted`` comes on top.
    """

    info_hash: InfoHashText
    target: Target
    held: Count = 0
    """Verified bytes on this node's disk, whatever they came from."""
    unattributed: Count = 0
    """Verified bytes of which it is not known who sent them."""
    wasted: Count = 0
    """Bytes that came twice, or did not match their signed hash, and were thrown away."""
    sources: Annotated[list[SourceBytes], Meta(max_length=limits.CANDIDATES_MAX)]
    candidates: Annotated[list[Candidate], Meta(max_length=limits.CANDIDATES_MAX)]


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """Something was refused for want of trust. Repeated until a :class:`Received` names its id."""

    id: Identifier
    kind: Literal["metadata", "content", "rollback", "platform", "grant", "stranger", "envelope"]
    subject: Text
    """What was refused: a role, a target, a node, an address."""
    reason: Text
    at: UnixSeconds


class RenewalRequest(Message, frozen=True, kw_only=True, tag="renewal-request"):
    """Asks for a new certificate for the key that seals this envelope."""

    request: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]
    """A PKCS #10 certificate request in PEM."""


# From the admin server to a device -----------------------------------------------------------------


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One target that this device should have. ``order`` ranks them: lower first.

    What failed or was refused in a try before ``retry`` is tried again, once.
    """

    id: Identifier
    target: Target
    order: Count = 0
    retry: Retry = 0


_CLOCK = "(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
_RATE = "=[0-9]{1,15}"
RATE_WINDOW = rf"^{_CLOCK}-{_CLOCK}({_RATE}| wan{_RATE}( site{_RATE})?| site{_RATE}( wan{_RATE})?)\Z"
"""How a window in :class:`RateLimits` is written; :mod:`p2pdist.core.rates` says what it means."""


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes per second; 0 is unlimited. ``wan`` is what leaves or enters the site, ``site`` the rest.

    ``windows`` lower them by local time of day, as ``"08:00-18:00 wan=250000 site=2000000"``.
    """

    site_up: Count = 0
    site_down: Count = 0
    wan_up: Count = 0
    wan_down: Count = 0
    windows: Annotated[
        list[Annotated[str, Meta(pattern=RATE_WINDOW, max_length=64)]], Meta(max_length=32)
    ] = msgspec.field(default_factory=list)


class DesiredState(Message, frozen=True, kw_only=True, tag="desired-state"):
    """Everything that the admin server wants of the device; replaces the one before if newer.

    ``prefetch`` is for distribution points: the targets that the devices in their scope need, most
    urgent first. ``keep`` are those that must not be evicted although nobody needs them right now.
    ``revoked`` is for them, too: nodes that have left the fleet with a certificate that is still valid.
    ``assignments`` are runs of tasks whose results the admin server does not have yet.
    """

    revision: Count
    group: Group
    swarms: Annotated[list[Swarm], Meta(max_length=256)]
    deployments: Annotated[list[Deployment], Meta(max_length=1_000)]
    prefetch: Annotated[list[Target], Meta(max_length=1_000)] = msgspec.field(default_factory=list)
    keep: Annotated[list[Target], Meta(max_length=1_000)] = msgspec.field(default_factory=list)
    revoked: Annotated[list[NodeIdText], Meta(max_length=limits.REVOKED_NAMED_MAX)] = msgspec.field(
        default_factory=list
    )
    assignments: Annotated[list[Assignment], Meta(max_length=limits.ASSIGNMENTS_MAX)] = msgspec.field(
        default_factory=list
    )
    rates: RateLimits = RateLimits()
    heartbeat_s: Annotated[int, Meta(ge=1, le=86_400)] = 300


class Received(Message, frozen=True, kw_only=True, tag="received"):
    """These reports, refusals, items and results are on the admin server's disk, and may be forgotten; so are
    these heartbeats.
    """

    ids: Annotated[list[Identifier], Meta(max_length=10_000)]


class Certificate(Message, frozen=True, kw_only=True, tag="certificate"):
    """The answer to a renewal: the node's new certificate, PEM."""

    certificate: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]


class SessionInvite(Message, frozen=True, kw_only=True, tag="session-invite"):
    """Somebody will open a session with the device: this is how the device knows them.

    ``authority`` is the certificate (PEM) of an authority that the initiator made for this session alone;
    in the session's TLS it shows a certificate of that authority which names ``initiator``.
    """

    session: SessionIdText
    initiator: NodeIdText
    authority: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]
    by: Annotated[str, Meta(min_length=1, max_length=255)]
    """Who asked the admin server for it."""
    service: Service
    """What for, as the audit log has it; nothing else may be asked for in the session."""
    expires: UnixSeconds
    """Until when it may begin."""


class Revoked(Message, frozen=True, kw_only=True, tag="revoked"):
    """The device is no longer a member of the fleet. It stops, and says so to its user."""

    reason: Text


class SendWakes(Message, frozen=True, kw_only=True, tag="send-wakes"):
    """To a distribution point with the duty ``push``: wake these devices, on its own segments if need be."""

    orders: Annotated[list[WakeOrder], Meta(max_length=limits.WAKE_ORDERS_MAX)]


FromDevice: TypeAlias = (
    Heartbeat
    | Progress
    | Report
    | ContentReport
    | Refusal
    | RenewalRequest
    | TaskProgress
    | TaskItems
    | TaskSightings
    | TaskOffers
    | TaskResult
    | SecretsRequest
    | NodeAwaited
)
FromServer: TypeAlias = (
    DesiredState | Received | Certificate | SessionInvite | SendWakes | TaskSecrets | NodeCame | Revoked
)
AnyMessage: TypeAlias = FromDevice | FromServer
