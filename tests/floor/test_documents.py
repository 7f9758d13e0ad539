"""Documents that somebody else wrote: whatever stands in them, only our errors come out."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical

from p2pdist.cli.client import Client
from p2pdist.cli.profile import find_target
from p2pdist.documents import decode_json, read_toml
from p2pdist.errors import P2PDistError, PeerError, UsageError
from p2pdist.ids import ChannelName, FleetName, InfoHash, ProductName, TargetPath
from p2pdist.install.steps import InstallLayout, Job
from p2pdist.sign.packages import read_manifest
from p2pdist.trust import changes
from p2pdist.trust.catalog import FileRecipe, Release, ReleaseCustom
from p2pdist.trust.changes import KeySet
from p2pdist.trust.differences import differences
from p2pdist.trust.exchange import SigningRequest, import_signatures
from p2pdist.trust.keys import Ed25519Signer, PublicKeyFile, load_public_key
from p2pdist.trust.metadatasets import EMPTY_INDEX, MetadataSets
from p2pdist.trust.releases import put_release
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import Lives, SigningState
from p2pdist.wire.api import DeviceList

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DIGITS = b"9" * 5_000
DEEP = 5_000
HOSTILE = [
    DIGITS,
    b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP,
    b"x = " + b"[" * DEEP + b"]" * DEEP,
    b"x = " + DIGITS,
    b'"\\ud800"',
    b"\xff\xfe",
    b'\xc3("\x00',
    b"",
    b"null",
    b"1e999",
]

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mangled(valid: bytes) -> st.SearchStrategy[bytes]:
    """Something else than *valid*, but near it: cut, overwritten, or with something hostile in it."""
    place = st.integers(0, len(valid))
    piece = st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=8))
    return st.builds(lambda a, b, p: valid[: min(a, b)] + p + valid[max(a, b) :], place, place, piece)


# The parsers themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = " + DIGITS, "a number in it is too long"),
        (b"x = " + b"[" * DEEP + b"]" * DEEP, "nested too deeply"),
        (b"\xff", "not UTF-8"),
        (b"x", "not TOML"),
    ],
)
def test_toml_that_cannot_be_read_is_refused_with_the_name_of_its_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "some.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_toml(path, bytes_max=100_000)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("kind", [Any, dict[str, Any], DeviceList], ids=["anything", "object", "struct"])
def test_json_is_decoded_or_refused_in_the_family_that_was_asked_for(content: bytes, kind: Any) -> None:
    try:
        decode_json(content, kind, "it is wrong", family=PeerError)
    except PeerError as error:
        assert error.what.startswith("it is wrong (")


# What programs read ------------------------------------------------------------------------------


def read_step(path: Path) -> None:
    release = Release(
        target=TargetPath("stable/app/1/f"),
        channel=ChannelName("stable"),
        product=ProductName("app"),
        version="1",
        sequence=1,
        platform="any",
        length=1,
        sha256="ab" * 32,
        info_hash=InfoHash("cd" * 32),
        recipe=FileRecipe(path="/f"),
    )
    Job(release, path, InstallLayout(root=path.parent, state=path.parent), "try").load()


def read_profile(path: Path) -> None:
    environ = {"P2PDIST_PROFILE": str(path)}
    find_target(server=None, token_file=None, ca=None, environ=environ)


STEP = {"kind": "file", "attempt": "try", "sha256": "ab" * 32, "phase": "started", "output": "YQ=="}
MANIFEST = b'[[release]]\npath = "a"\nproduct = "app"\nversion = "1"\nto = "/a"\nexpect = [0]\n'
FILES: list[tuple[str, bytes, Callable[[Path], object]]] = [
    ("stable@app.json", json.dumps(STEP).encode(), read_step),
    ("releases.toml", MANIFEST, read_manifest),
    ("alice.pub", PublicKeyFile(name="alice", public=b"k" * 32).encode(), load_public_key),
    ("profile.toml", b'server = "https://h:1"\ntoken_file = "t"\nca = "c"\n', read_profile),
]


@pytest.mark.parametrize(("name", "valid", "read"), FILES, ids=[name for name, _, _ in FILES])
def test_only_our_errors_come_out_of_a_file(
    tmp_path: Path, name: str, valid: bytes, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name

    @quick
    @given(mangled(valid))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except P2PDistError as error:
            assert error.what

    check()
    for content in HOSTILE:
        path.write_bytes(content)
        with pytest.raises(P2PDistError):
            read(path)


@pytest.mark.parametrize(
    ("line", "near"),
    [("helth_check", "health_check"), ("mirror", "mirrors"), ("timeout", "timeout_s")],
)
def test_a_mistyped_key_of_a_manifest_is_refused_with_the_nearest_one(
    tmp_path: Path, line: str, near: str
) -> None:
    path = tmp_path / "releases.toml"
    path.write_bytes(MANIFEST + f'{line} = "x"\n'.encode())
    with pytest.raises(UsageError, match=f"unknown key release.{line}") as caught:
        read_manifest(path)
    assert caught.value.hint == f"did you mean {near}?"


def test_a_damaged_index_or_clock_starts_afresh(tmp_path: Path) -> None:
    sets = MetadataSets(tmp_path)
    with sets.draft(EMPTY_INDEX) as draft:
        sets.commit(draft, EMPTY_INDEX)
    current = sets.current()
    assert current is not None

    @quick
    @given(st.one_of(mangled(b'{"roots":{"1":"ab"},"roles":{}}'), st.sampled_from(HOSTILE)))
    def check(content: bytes) -> None:
        (current / "index.json").write_bytes(content)
        (tmp_path / "clock").write_bytes(content)
        sets.index()
        assert sets.clock_floor() >= 0

    check()
    (current / "index.json").write_bytes(b'{"roots":{"1":' + b"[" * DEEP)
    assert sets.index() == EMPTY_INDEX


ANSWER = b'{"devices":[],"next":null}'


@pytest.mark.parametrize("status", [200, 400])
def test_only_our_errors_come_out_of_a_servers_answer(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    answer = b""

    def respond(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "application/problem+json" if status != 200 else "application/json"}
        return httpx.Response(status, content=answer, headers=headers)

    client = Client.__new__(Client)  # without the certificate that its TLS would need
    client._server = "https://h:1"
    client._http = httpx.Client(base_url="https://h:1", transport=httpx.MockTransport(respond))

    @quick
    @given(st.one_of(mangled(ANSWER), st.sampled_from(HOSTILE)))
    def check(content: bytes) -> None:
        nonlocal answer
        answer = content
        try:
            client.get("/devices", DeviceList)
        except P2PDistError as error:
            assert error.what

    check()
    client._http.close()


# Signing requests --------------------------------------------------------------------------------

WEIRD: list[Any] = [1.5, -1, 10**30, True, None, "", "\ud800", "x" * 300, [], {}, {"a": [[]]}, [1.5], "root"]


def signer(name: str) -> Ed25519Signer:
    return Ed25519Signer(name.encode().ljust(32, b"."), name=name)


def key_set(name: str) -> KeySet:
    return KeySet(keys=(signer(name).public_key,), threshold=1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    state = changes.found_fleet(
        FleetName("acme"),
        root=key_set("alice"),
        targets=key_set("lead"),
        points=key_set("ops"),
        online=signer("online").public_key,
        lives=Lives(),
        now=MOMENT,
    )
    changes.add_channel(state, ChannelName("stable"), key_set("dev"), MOMENT)
    custom = ReleaseCustom(
        product="app",
        version="1",
        sequence=1,
        platform="any",
        info_hash="ab" * 32,
        recipe=FileRecipe(path="/f"),
    )
    target = TargetPath("stable/app/1/f")
    put_release(state, target, custom, length=1, sha256="cd" * 32, now=MOMENT)
    for role, name in (("root", "alice"), ("targets", "lead"), ("channel-stable", "dev")):
        state.sign(role, signer(name))
    return Repository.create(tmp_path / "repository", state)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def altered(value: Any, path: tuple[Any, ...], weird: Any, *, rename: bool) -> Any:
    """The value with something else at one place, or the same under another name, or nothing."""
    if not path:
        return weird
    made = copy.deepcopy(value)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    if rename and isinstance(holder, dict):
        holder[str(weird)] = holder.pop(path[-1])
    elif weird is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = weird
    return made


def look_and_take(data: bytes, repository: Repository) -> None:
    """Everything that happens to a request that came from elsewhere."""
    request = SigningRequest.decode(data)
    for role in request.state.roles():
        request.state.standing(role)
        request.state.wanted_keys(role)
        differences(request.state, role)
    request.encode()
    import_signatures(repository, request)


def test_only_our_errors_come_out_of_a_signing_request(repository: Repository) -> None:
    valid = SigningRequest.of(repository).encode()
    file = json.loads(valid)
    drafts = {role: json.loads(base64.b64decode(text)) for role, text in file["drafts"].items()}
    everywhere = [(role, path) for role, draft in sorted(drafts.items()) for path in places(draft)]

    def with_draft(role: str, draft: Any) -> bytes:
        text = base64.b64encode(json.dumps(draft).encode()).decode()
        return msgspec.json.encode({**file, "drafts": {**file["drafts"], role: text}})

    @settings(quick, max_examples=200)
    @given(st.sampled_from(everywhere), st.sampled_from(WEIRD), st.booleans())
    def check_drafts(place: tuple[str, tuple[Any, ...]], weird: Any, rename: bool) -> None:
        role, path = place
        try:
            draft = altered(drafts[role], path, weird, rename=rename)
            look_and_take(with_draft(role, draft), repository)
        except P2PDistError as error:
            assert error.what

    @quick
    @given(st.one_of(mangled(valid), st.sampled_from(HOSTILE)))
    def check_files(content: bytes) -> None:
        try:
            look_and_take(content, repository)
        except P2PDistError as error:
            assert error.what

    check_drafts()
    check_files()
    look_and_take(valid, repository)


def test_only_our_errors_come_out_of_a_request_of_strangers_who_sign_anything(repository: Repository) -> None:
    """What claims to be published carries valid signatures, of people who want to break the signer's tool."""
    files = {role: json.loads(data) for role, data in repository.load().draft_files().items()}
    holders = {"root": "alice", "targets": "lead", "points": "ops", "channel-stable": "dev"}

    def signed(role: str, document: Any) -> bytes:
        payload = (encode_canonical(document["signed"]) or "").encode()
        signature = signer(holders[role]).sign(payload)
        signatures = [{"keyid": signature.keyid, "sig": signature.signature}]
        return json.dumps({**document, "signatures": signatures}).encode()

    def request(published: dict[str, bytes]) -> bytes:
        state = SigningState(FleetName("acme"), Lives(), published)
        for role in ("targets", "points", "channel-stable"):
            state.open(role, MOMENT)
        return SigningRequest(state, [published["root"]]).encode()

    place = st.sampled_from(
        [(role, path) for role in holders for path in places(files[role]["signed"], ("signed",)) if path[1:]]
    )

    @settings(quick, max_examples=200)
    @given(place, st.sampled_from(WEIRD), st.booleans())
    def check(place: tuple[str, tuple[Any, ...]], weird: Any, rename: bool) -> None:
        role, path = place
        document = {"signed": altered(files[role], path, weird, rename=rename)["signed"]}
        try:
            published = {other: signed(other, files[other]) for other in files}
            published[role] = signed(role, document)
            look_and_take(request(published), repository)
        except (P2PDistError, FormatError, UnicodeEncodeError) as error:  # the latter: it cannot be signed
            assert str(error)

    check()


def test_a_draft_that_cannot_be_signed_is_not_taken_for_a_request(repository: Repository) -> None:
    file = json.loads(SigningRequest.of(repository).encode())
    draft = json.loads(base64.b64decode(file["drafts"]["channel-stable"]))
    draft["signed"]["x-share"] = 0.5
    file["drafts"]["channel-stable"] = base64.b64encode(json.dumps(draft).encode()).decode()
    with pytest.raises(UsageError, match="the channel 'stable' is not valid"):
        SigningRequest.decode(json.dumps(file).encode())


def test_only_our_errors_come_out_of_a_repositorys_settings(repository: Repository) -> None:
    path = repository.directory / "current" / "repository.json"
    valid = path.read_bytes()

    @quick
    @given(st.one_of(mangled(valid), st.sampled_from(HOSTILE)))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            repository.load()
        except P2PDistError as error:
            assert error.what

    check()
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"repository\.json is damaged"):
        repository.load()
