"""A real admin server on loopback, what an operator signs for it, and devices that speak its protocol."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import nacl.utils
import trio
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, swarm_of
from p2pdist.net.link import Link, open_link, open_stranger_link
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.directorysettings import Directories
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.server.api.app import make_app
from p2pdist.server.api.context import Api
from p2pdist.server.api.listener import serve_api
from p2pdist.server.apicertificate import ApiCertificate
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.server.initialise import add_api_token
from p2pdist.server.origin import OriginSettings
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.service import Service, ServiceSettings, open_service
from p2pdist.store.fleetstore import FleetStore
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import Delta
from p2pdist.trust.certificates import make_request
from p2pdist.trust.keys import Ed25519Signer, IdentityKey
from p2pdist.trust.sealing import open_envelope, seal, seal_anonymous
from p2pdist.wire import api as wire
from p2pdist.wire import codec
from p2pdist.wire.frames import AnyFrame, Arrived, Attached, Routed
from p2pdist.wire.messages import AnyMessage, FromDevice, Heartbeat
from p2pdist.wire.requests import Enrolled, EnrolRequest, EnrolSecret
from tests.store import databases

ACME = FleetName("acme")
STABLE = ChannelName("stable")
PATIENCE_S = 20.0

T = TypeVar("T", bound=msgspec.Struct)


def signer(name: str) -> Ed25519Signer:
    """The same name is the same key."""
    return Ed25519Signer(name.encode().ljust(32, b".")[:32], name=name)


class Publisher:
    """What people sign for one fleet, as `p2pdist-sign publish` would leave it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._version = 0
        self._online = "online"
        self.root = self._root(1)
        self._roots = {"1.root.json": self.root}
        self.channel: dict[str, TargetFile] = {}
        self.points: dict[str, TargetFile] = {}
        self.torrents: dict[InfoHash, bytes] = {}
        self.artifacts: dict[InfoHash, Path] = {}

    def rotate_online(self, name: str) -> None:
        """Let people sign a root that names another online key."""
        self._online = name
        self._roots["2.root.json"] = self._root(2)

    def _root(self, version: int) -> bytes:
        root = Root(version=version, expires=_later(365))
        root.add_key(signer("alice").public_key, "root")
        root.add_key(signer("lead").public_key, "targets")
        for role in ("snapshot", "timestamp"):
            root.add_key(signer(self._online).public_key, role)
        return _signed(root, "alice")

    def add_release(
        self, version: str, data: bytes, *, sequence: int = 1, product: str = "app", **custom: Any
    ) -> MadeTorrent:
        path = self.directory / f"{product}-{version}"
        path.write_bytes(data)
        made = make_torrent(path, swarm=swarm_of(STABLE, ACME))
        self.torrents[made.info_hash] = made.torrent
        self.artifacts[made.info_hash] = path
        target = f"stable/{product}/{version}/{product}.bin"
        fields = {
            "product": product,
            "version": version,
            "sequence": sequence,
            "platform": "any",
            "info_hash": made.info_hash,
            "recipe": {"kind": "file", "path": f"/opt/{product}"},
            **custom,
        }
        hashes = {"sha256": made.sha256}
        self.channel[target] = TargetFile(made.length, hashes, target, {"custom": fields})
        return made

    def add_delta(self, base: MadeTorrent, version: str, data: bytes, product: str = "app") -> MadeTorrent:
        """Add what stands for a delta from *base* to a release that is there already."""
        path = self.directory / f"{product}-{version}-delta"
        path.write_bytes(data)
        made = make_torrent(path, swarm=swarm_of(STABLE, ACME))
        self.torrents[made.info_hash] = made.torrent
        self.artifacts[made.info_hash] = path
        delta = Delta(
            base=base.info_hash,
            base_sha256=base.sha256,
            base_length=base.length,
            info_hash=made.info_hash,
            length=made.length,
            sha256=made.sha256,
            window_log=20,
            base_unpacked=base.length,
            unpacked=base.length,
        )
        custom = self.channel[f"stable/{product}/{version}/{product}.bin"].custom
        custom["deltas"] = [*custom.get("deltas", []), msgspec.to_builtins(delta)]
        return made

    def add_grant(
        self,
        node: NodeId,
        scope: str,
        *,
        expires: int | None = None,
        duties: Sequence[str] = ("seed",),
        **more: Any,
    ) -> None:
        custom = {
            "node": node,
            "duties": list(duties),
            "scope": scope,
            "addresses": ["127.0.0.1:7701"],
            "expires": expires or int(time.time()) + 90 * 86_400,
            **more,
        }
        path = f"points/{node}.grant"
        grant = TargetFile.from_data(path, (encode_canonical(custom) or "").encode(), ["sha256"])
        grant.unrecognized_fields["custom"] = custom
        self.points[path] = grant

    def metadata(self, *, channel_signer: str = "dev") -> dict[str, bytes]:
        """Sign everything as it is now, with new versions."""
        self._version += 1
        targets = Targets(version=self._version, expires=_later(90))
        targets.delegations = Delegations({}, roles={})
        assert targets.delegations.roles is not None
        for role, pattern, key in (
            ("channel-stable", "stable/*/*/*", "dev"),
            ("points", "points/*", "ops"),
        ):
            targets.delegations.roles[role] = DelegatedRole(role, [], 1, True, [pattern])
            targets.add_key(signer(key).public_key, role)
        roles = {
            "targets": _signed(targets, "lead"),
            "channel-stable": _signed(
                Targets(version=self._version, expires=_later(90), targets=dict(self.channel)), channel_signer
            ),
            "points": _signed(
                Targets(version=self._version, expires=_later(90), targets=dict(self.points)), "ops"
            ),
        }
        meta = {f"{n}.json": MetaFile.from_data(self._version, d, ["sha256"]) for n, d in roles.items()}
        snapshot = _signed(Snapshot(version=self._version, expires=_later(7), meta=meta), self._online)
        described = MetaFile.from_data(self._version, snapshot, ["sha256"])
        timestamp = Timestamp(version=self._version, expires=_later(1), snapshot_meta=described)
        return {
            **self._roots,
            **{f"{self._version}.{name}.json": data for name, data in roles.items()},
            f"{self._version}.snapshot.json": snapshot,
            "timestamp.json": _signed(timestamp, self._online),
        }

    def write(self, directory: Path) -> Path:
        """Write a publication directory."""
        for name in ("metadata", "torrents", "artifacts"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        for name, data in self.metadata().items():
            (directory / "metadata" / name).write_bytes(data)
        for info_hash, torrent in self.torrents.items():
            (directory / "torrents" / f"{info_hash}.torrent").write_bytes(torrent)
            (directory / "artifacts" / info_hash).write_bytes(self.artifacts[info_hash].read_bytes())
        return directory


def _later(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def _signed(signed: Any, *names: str) -> bytes:
    metadata = Metadata(signed)
    for name in names:
        metadata.sign(signer(name), append=True)
    return metadata.to_bytes()


class Operator:
    """An HTTP client of the API that turns answers into types."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def ask(self, method: str, path: str, answer: type[T], body: Any = None, **query: Any) -> T:
        response = await self.client.request(
            method,
            f"/api/v1{path}",
            content=None if body is None else msgspec.json.encode(body),
            params=query,
        )
        assert response.status_code == 200, response.text
        return msgspec.json.decode(response.content, type=answer)

    async def problem(self, method: str, path: str, body: Any = None, **query: Any) -> wire.ProblemDetails:
        content = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        response = await self.client.request(method, f"/api/v1{path}", content=content, params=query)
        assert response.status_code >= 400, response.text
        assert response.headers["content-type"] == wire.PROBLEM_TYPE
        return msgspec.json.decode(response.content, type=wire.ProblemDetails)

    async def upload(self, made: MadeTorrent, data: bytes, offset: int = 0) -> wire.ArtifactState:
        response = await self.client.put(
            f"/api/v1/artifacts/{made.info_hash}",
            params={"offset": offset, "length": made.length, "sha256": made.sha256},
            content=data,
        )
        assert response.status_code == 200, response.text
        return msgspec.json.decode(response.content, type=wire.ArtifactState)

    async def publish(self, publisher: Publisher) -> wire.Published:
        for info_hash, path in publisher.artifacts.items():
            data = path.read_bytes()
            made = MadeTorrent(
                info_hash=info_hash,
                torrent=b"",
                length=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                piece_bytes=0,
            )
            await self.upload(made, data)
        body = wire.NewPublication(
            metadata=publisher.metadata(), torrents={str(h): t for h, t in publisher.torrents.items()}
        )
        return await self.ask("POST", "/publications", wire.Published, body)

    async def token(self, group: str = "/", **fields: Any) -> str:
        made = await self.ask("POST", "/tokens", wire.MadeToken, wire.NewToken(group=group, **fields))
        return made.token


class Fleet:
    """A running admin server and its operator."""

    def __init__(
        self, service: Service, publisher: Publisher, link: tuple[str, int], api: tuple[str, int], token: str
    ) -> None:
        self.service = service
        self.publisher = publisher
        self.link = link
        self.api = api
        self.token = token
        self.operator: Operator
        self.api_certificate: ApiCertificate

    @property
    def ca_pem(self) -> bytes:
        return self.service.home.authority.certificate_pem

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        shown = self.token if token is None else token
        return httpx.AsyncClient(
            base_url=f"https://{self.api[0]}:{self.api[1]}",
            verify=context,
            headers={"authorization": f"Bearer {shown}"} if shown else {},
            timeout=PATIENCE_S,
        )


def found(tmp_path: Path, publisher: Publisher) -> ServerHome:
    """Make or open the server's directory."""
    root = tmp_path / "server"
    if root.exists():
        return ServerHome(root)
    root.mkdir()
    return ServerHome.create(root, ACME, publisher.root, datetime.now(UTC))


@asynccontextmanager
async def open_fleet(
    tmp_path: Path,
    publisher: Publisher | None = None,
    *,
    plane: PlaneSettings | None = None,
    timestamp_life_s: int = 86_400,
    online: Sequence[str] = ("online",),
    mirrors: MirrorSettings | None = None,
    directories: Directories = (),
) -> AsyncIterator[Fleet]:
    """Run a real admin server on loopback; a second time on the same directory it is a restart."""
    publisher = publisher or Publisher(tmp_path / "signed")
    home = found(tmp_path, publisher)
    database = home.root / "fleet.db"
    if not database.exists():
        databases.copy_migrated(database)
    store = FleetStore.open(f"sqlite:///{database}")
    token = add_api_token(store, "ops", "admin", datetime.now(UTC))
    settings = ServiceSettings(
        plane=plane or PlaneSettings(host="127.0.0.1", port=0),
        origin=OriginSettings(host="127.0.0.1", port=0),
        timestamp_life_s=timestamp_life_s,
        mirrors=mirrors or MirrorSettings(),
        directories=directories,
    )
    try:
        async with (
            open_service(home, settings, store, *map(signer, online)) as service,
            trio.open_nursery() as nursery,
        ):
            link = await nursery.start(service.run)
            api = Api(service, addresses=[f"{link[0]}:{link[1]}"], started=int(time.time()))
            certificate = ApiCertificate(home, ["127.0.0.1"], 3_600)
            start = partial(serve_api, make_app(api), host="127.0.0.1", port=0, identity=certificate.identity)
            bound = await nursery.start(start)
            fleet = Fleet(service, publisher, link, bound, token)
            fleet.api_certificate = certificate
            async with fleet.client() as client:
                fleet.operator = Operator(client)
                yield fleet
            nursery.cancel_scope.cancel()
    finally:
        store.close()


class TestDevice:
    """A device that speaks the protocol, and does nothing by itself."""

    __test__ = False

    def __init__(self, fleet: Fleet, key: IdentityKey | None = None, machine: str = "") -> None:
        self.fleet = fleet
        self.key = key or IdentityKey.generate()
        self.machine = machine or f"machine of {self.key.node}"
        self.certificate = b""
        self.group = ""
        self._counter = time.time_ns()

    @property
    def node(self) -> NodeId:
        return self.key.node

    async def enrol(self, token: str, *, name: str = "laptop", request: bytes | None = None) -> Enrolled:
        home = self.fleet.service.home
        secret = EnrolSecret(
            token=token,
            request=make_request(self.key) if request is None else request,
            name=name,
            platform="linux-x86_64",
            machine=self.machine,
        )
        sealed = seal_anonymous(codec.encode(secret), home.key.public)
        async with open_stranger_link(
            *self.fleet.link, ca_pem=self.fleet.ca_pem, expect=home.key.node
        ) as link:
            enrolled = await link.request("/enrol", EnrolRequest(sealed=sealed), Enrolled)
        self.certificate, self.group = enrolled.certificate, enrolled.group
        return enrolled

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Link]:
        """A link with this device's certificate."""
        identity = TlsIdentity(
            certificate_pem=self.certificate, key_pem=self.key.private_pem(), ca_pem=self.fleet.ca_pem
        )
        async with open_link(
            *self.fleet.link, identity=identity, expect=self.fleet.service.home.key.node
        ) as link:
            self._counter += 1
            await link.send(Arrived(stamp=self._counter))
            yield link

    async def carry(self, link: Link, *devices: TestDevice) -> None:
        """Say that this node is a gateway that carries these devices from now on."""
        nodes = {str(device.node): time.time_ns() for device in devices}
        await link.send(Attached(carrier=self.node, nodes=nodes))

    async def send(self, link: Link, message: FromDevice, *, by: TestDevice | None = None) -> Routed:
        self._counter += 1
        envelope = seal(
            codec.encode(message),
            key=self.key,
            recipient_public=self.fleet.service.home.key.public,
            counter=self._counter,
            expires=int(time.time()) + 600,
            nonce=nacl.utils.random(24),
        )
        frame = Routed(envelope=envelope)
        await link.send(frame)
        return frame

    def read(self, frame: Routed) -> AnyMessage:
        data = open_envelope(
            frame.envelope,
            key=self.key,
            sender_public=self.fleet.service.home.key.public,
            now=int(time.time()),
        )
        message: AnyMessage = codec.decode(data, AnyMessage)
        return message

    async def next_message(self, frames: AsyncIterator[AnyFrame], kind: type[T]) -> T:
        """The next message of a kind; everything else is passed over."""
        with trio.fail_after(PATIENCE_S):
            async for frame in frames:
                if isinstance(frame, Routed):
                    message = self.read(frame)
                    if isinstance(message, kind):
                        return message
        raise AssertionError(f"the link ended before a {kind.__name__} came")

    def heartbeat(self, revision: int = 0, **fields: Any) -> Heartbeat:
        defaults: dict[str, Any] = {
            "revision": revision,
            "metadata": {"root": 1},
            "platform": "linux-x86_64",
            "program": "p2pdist test",
            "name": "laptop",
            "certificate_expires": 0,
            "swarms": [],
            "disk_free_bytes": 10**9,
            "installed": {},
        }
        return Heartbeat(**{**defaults, **fields})


async def next_frame(frames: AsyncIterator[AnyFrame], kind: type[T]) -> T:
    """The next frame of a kind; everything else is passed over."""
    with trio.fail_after(PATIENCE_S):
        async for frame in frames:
            if isinstance(frame, kind):
                return frame
    raise AssertionError(f"the link ended before a {kind.__name__} came")


async def enrolled_device(fleet: Fleet, group: str = "/", *, name: str = "laptop") -> TestDevice:
    """A device that is a member."""
    device = TestDevice(fleet)
    await device.enrol(await fleet.operator.token(group), name=name)
    return device
