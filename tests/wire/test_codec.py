"""What crosses a link: every type there and back, and whatever else somebody may send instead."""

from __future__ import annotations

import functools
import inspect
import math
import re
import time
import tracemalloc
from typing import Any, get_args

import msgpack
import msgspec
import msgspec.inspect as mi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire import (
    codec,
    envelope,
    following,
    frames,
    messages,
    paths,
    polling,
    punching,
    questions,
    requests,
    services,
    tasks,
)
from p2pdist.wire.discovery import Interface, Sighting
from p2pdist.wire.stun import Endpoint, endpoint_of

ROOTS = (frames.Frame, messages.Message, paths.OnPath, services.InSession, punching.Punching)


def types_of(*modules: Any) -> list[type[msgspec.Struct]]:
    """Return every structure that travels by itself or inside another."""
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
    }
    return sorted(found - set(ROOTS), key=lambda kind: kind.__name__)


KINDS = types_of(
    envelope, following, frames, messages, paths, polling, punching, questions, requests, services, tasks
)
UNIONS = [
    frames.AnyFrame,
    messages.FromDevice,
    messages.FromServer,
    paths.PathFrame,
    services.SessionFrame,
    punching.PunchSignal,
]


def value_of(info: mi.Type) -> st.SearchStrategy[Any]:
    """Return values of a type, small ones mostly, within its declared bounds."""
    match info:
        case mi.StrType(pattern=None):
            return st.text(min_size=info.min_length or 0, max_size=min(info.max_length or 30, 30))
        case mi.StrType():
            return st.from_regex(info.pattern or "", fullmatch=True).filter(
                lambda text: (info.min_length or 0) <= len(text) <= (info.max_length or 10**6)
            )
        case mi.BytesType():
            low = info.min_length or 0
            return st.binary(min_size=low, max_size=min(info.max_length or low + 50, low + 50))
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.IntType():
            return st.integers(info.ge if info.ge is not None else -(2**31), info.le or 2**53)
        case mi.FloatType():
            return st.floats(info.ge, info.le, allow_nan=False)
        case mi.LiteralType():
            return st.sampled_from(info.values)
        case mi.ListType():
            return st.lists(value_of(info.item_type), min_size=info.min_length or 0, max_size=3)
        case mi.VarTupleType():
            return st.lists(value_of(info.item_type), min_size=info.min_length or 0, max_size=3).map(tuple)
        case mi.DictType():
            return st.dictionaries(value_of(info.key_type), value_of(info.value_type), max_size=3)
        case mi.UnionType():
            return st.one_of(*map(value_of, info.types))
        case mi.StructType(cls=cls) if cls is Endpoint:
            return st.builds(endpoint_of, st.ip_addresses().map(str), st.integers(0, 65535))
        case mi.StructType(cls=cls) if cls is Sighting:
            return st.sampled_from([SIGHTING, Sighting(method="mdns", names=["Büro 7"])])
        case mi.StructType(cls=cls) if cls is Interface:
            return st.sampled_from([INTERFACE, Interface(mac=INTERFACE.mac, addresses=[])])
        case mi.StructType():
            fields = {field.name: value_of(field.type) for field in info.fields}
            return st.builds(info.cls, **fields)
        case mi.CustomType() | mi.AnyType():
            raise AssertionError(f"no strategy for {info}")
    raise AssertionError(f"no strategy for {info}")


@functools.cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    return value_of(mi.type_info(kind))


SIGHTING = Sighting(
    method="neighbours", addresses=["10.1.0.7", "fd00::7"], macs=["00:1b:21:00:00:07"], services=["tcp/22"]
)

INTERFACE = Interface(mac="00:1b:21:00:00:07", addresses=["10.1.0.7", "fe80::7"])

EXAMPLES = [
    "a" * 32,
    "0" * 64,
    "timestamp.json",
    "/emea",
    "08:00-18:00 wan=1 site=2",
    "10.1.0.0/24",
    "02:00:00:00:00:07",
    "https://vendor.example/x",
]
"""Texts for the patterns that occur."""


def sample_of(info: mi.Type) -> Any:
    """Return one plain value of a type, with something in everything."""
    match info:
        case mi.StrType():
            fitting = [e for e in EXAMPLES if re.search(info.pattern or "", e)]
            return next(e for e in fitting if (info.min_length or 0) <= len(e) <= (info.max_length or 99))
        case mi.BytesType():
            return bytes(info.min_length or 3)
        case mi.ListType():
            return [sample_of(info.item_type)] * 2
        case mi.VarTupleType():
            return (sample_of(info.item_type),) * 2
        case mi.StructType(cls=cls) if cls is Endpoint:
            return Endpoint("192.0.2.1", 7)
        case mi.StructType(cls=cls) if cls is Sighting:
            return SIGHTING
        case mi.StructType(cls=cls) if cls is Interface:
            return INTERFACE
        case mi.FloatType():
            return 1.0
        case mi.DictType():
            return {sample_of(info.key_type): sample_of(info.value_type)}
        case mi.UnionType():
            return sample_of(next(each for each in info.types if not isinstance(each, mi.NoneType)))
        case mi.StructType():
            return info.cls(**{field.name: sample_of(field.type) for field in info.fields})
        case mi.LiteralType():
            return info.values[0]
        case mi.BoolType():
            return True
        case _:
            return 1


SAMPLES = st.sampled_from(
    [
        (kind, sample)
        for kind in KINDS
        for sample in [sample_of(mi.type_info(kind))]
        if msgspec.to_builtins(sample, builtin_types=(bytes,))  # there is something to change
    ]
)


def test_every_kind_of_thing_that_travels_is_tested_here() -> None:
    tested = set(KINDS)
    for union in UNIONS:
        assert set(get_args(union)) <= tested
    assert len(tested) >= 25


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_what_is_encoded_comes_back_equal(kind: Any, data: st.DataObject) -> None:
    value = data.draw(values(kind))
    encoded = codec.encode(value)
    assert codec.decode(encoded, kind) == value
    unpacked = msgpack.unpackb(encoded, use_list=False)
    assert unpacked == _frozen(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _frozen(value: Any) -> Any:
    """Return it with tuples for lists: on the wire they are the same."""
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "union", UNIONS, ids=["frame", "from-device", "from-server", "path", "session", "punch"]
)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_union_tells_its_members_apart(union: Any, data: st.DataObject) -> None:
    value = data.draw(values(union))
    assert codec.decode(codec.encode(value), union) == value


@given(SAMPLES, st.dictionaries(st.text("xyz", min_size=9, max_size=12), st.integers(), max_size=2))
@settings(max_examples=50, deadline=None)
def test_fields_of_a_newer_version_are_ignored(sample: tuple[Any, Any], newer: dict[str, int]) -> None:
    kind, value = sample
    fields = msgspec.to_builtins(value, builtin_types=(bytes,)) | newer
    assert codec.decode(msgpack.packb(fields, default=str), kind) == value


@given(SAMPLES, st.data())
@settings(max_examples=100, deadline=None)
def test_a_missing_field_is_refused_or_has_its_default(sample: tuple[Any, Any], data: st.DataObject) -> None:
    kind, value = sample
    fields = msgspec.to_builtins(value, builtin_types=(bytes,))
    dropped = data.draw(st.sampled_from(sorted(fields)))
    del fields[dropped]
    try:
        decoded: Any = codec.decode(msgpack.packb(fields), kind)
    except PeerError:
        return
    assert dropped == kind.__struct_config__.tag_field or dropped not in mi_required(kind)
    assert isinstance(decoded, kind)


def mi_required(kind: Any) -> set[str]:
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    return {field.encode_name for field in info.fields if field.required}


# Anything else ---------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def decode_or_refuse(data: bytes, kind: Any) -> Any:
    """Decode; None when it is refused as it should be. Any other exception fails the test."""
    try:
        return codec.decode(data, kind)
    except PeerError:
        return None


@given(kind=st.sampled_from([*KINDS, *UNIONS]), data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(kind: Any, data: bytes) -> None:
    decode_or_refuse(data, kind)


@given(kind=st.sampled_from([*KINDS, *UNIONS]), value=ANYTHING)
@settings(max_examples=150, deadline=None)
def test_well_formed_msgpack_of_anything_is_refused(kind: Any, value: Any) -> None:
    decode_or_refuse(msgpack.packb(value), kind)


@given(SAMPLES, st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_messages_are_valid_or_refused(sample: tuple[Any, Any], data: st.DataObject) -> None:
    kind, value = sample
    encoded = bytearray(codec.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, max(0, len(encoded) - 1)))
        match data.draw(st.sampled_from(["change", "insert", "drop", "cut"])):
            case "change" if encoded:
                encoded[position] = data.draw(st.integers(0, 255))
            case "insert":
                encoded.insert(position, data.draw(st.integers(0, 255)))
            case "drop" if encoded:
                del encoded[position]
            case "cut":
                del encoded[position:]
    decoded = decode_or_refuse(bytes(encoded), kind)
    if decoded is not None:
        assert codec.decode(codec.encode(decoded), kind) == decoded or has_nan(decoded)


def has_nan(value: Any) -> bool:
    return any(isinstance(each, float) and math.isnan(each) for each in msgspec.structs.astuple(value))


@given(SAMPLES, ANYTHING, st.data())
@settings(max_examples=150, deadline=None)
def test_a_field_with_anything_in_it_is_valid_or_refused(
    sample: tuple[Any, Any], anything: Any, data: st.DataObject
) -> None:
    kind, value = sample
    fields = msgspec.to_builtins(value, builtin_types=(bytes,))
    fields[data.draw(st.sampled_from(sorted(fields)))] = anything
    decode_or_refuse(msgpack.packb(fields), kind)


def text(value: str) -> bytes:
    return bytes([0xA0 + len(value)]) + value.encode()


ATTACHED = b"\x82" + text("frame") + text("attached") + text("gone")
EXTRA = b"\x83" + text("frame") + text("attached") + text("gone") + b"\x90" + text("extra")


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 1_000_000,
        b"\x81\xa1a" * 300_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x00",
        b"\xdd\x00\x01\x86\xa0" * 20_000,
        ATTACHED + b"\xdd\xff\xff\xff\xff",
        ATTACHED + b"\xdd\x00\x00\x4e\x20" * 20_000,
        ATTACHED + b"\xdc\x4e\x20" + b"\xc0" * 20_000,
        EXTRA + b"\x91" * 1_000_000,
        EXTRA + b"\xdd\x00\x01\x86\xa0" * 20_000,
        EXTRA + b"\xdf\xff\xff\xff\xff" * 20_000,
        EXTRA + b"\xc6\xff\xff\xff\xff",
    ],
    ids=lambda bomb: bomb[:12].hex(),
)
def test_deep_nesting_and_huge_lengths_are_refused_at_once_and_without_memory(bomb: bytes) -> None:
    decode_or_refuse(b"", frames.AnyFrame)  # so that what is measured is not the first use
    tracemalloc.start()
    try:
        started = time.process_time()
        with pytest.raises(PeerError):
            codec.decode(bomb, frames.AnyFrame)
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * limits.MIB
    assert seconds < 0.5, "half a second is hundreds of times what it takes"


def test_what_is_larger_than_allowed_is_not_even_parsed() -> None:
    with pytest.raises(PeerError, match="exceeds the limit of 10"):
        codec.decode(b"\xc0" * 11, frames.AnyFrame, bytes_max=10)
    with pytest.raises(PeerError, match="exceeds"):
        codec.decode(bytes(limits.FRAME_BYTES_MAX + 1), frames.AnyFrame)


def test_what_we_would_send_too_large_is_our_own_mistake() -> None:
    torrent = requests.Torrent(torrent=bytes(100))
    with pytest.raises(UsageError, match=r"Torrent of \d+ bytes exceeds the limit of 50"):
        codec.encode(torrent, bytes_max=50)
    assert codec.encode(torrent, bytes_max=200)


def attached(**fields: Any) -> dict[str, Any]:
    return {"frame": "attached", "carrier": "a" * 32, "nodes": {}, **fields}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (requests.TorrentRequest, {"info_hash": "0" * 64 + "\n"}),
        (requests.TorrentRequest, {"info_hash": "G" * 64}),
        (requests.Bundle, {"files": {"a.json\n": b""}}),
        (requests.Bundle, {"files": {"../a.json": b""}}),
        (requests.Bundle, {"files": {"a/b.json": b""}}),
        (requests.Bundle, {"files": {".json": b""}}),
        (requests.BundleRequest, {"have": {"root": 0}}),
        (requests.BundleRequest, {"have": {"": 1}}),
        (frames.Attached, attached(nodes={"a" * 32 + "\n": 1})),
        (frames.Attached, attached(nodes={"1" * 32: 1})),
        (frames.Attached, attached(nodes={"a" * 32: 0})),
        (frames.Attached, attached(nodes={"a" * 32: 2**63})),
        (frames.Attached, attached(nodes=["a" * 32])),
        (frames.Attached, attached(carrier="a" * 31)),
        (frames.Attached, attached(frame="sources")),
        (frames.Attached, attached(gone=["a" * 32] * (limits.ATTACHED_MAX + 1))),
        (
            messages.SourceBytes,
            {"node": "a" * 32, "role": "stranger", "received": 0, "sent": 0},
        ),
        (messages.SourceBytes, {"node": "a" * 32, "role": "point", "received": -1, "sent": 0}),
        (messages.SourceBytes, {"node": "a" * 32, "role": "point", "received": 1.5, "sent": 0}),
        (messages.SourceBytes, {"node": "a" * 32, "role": "point", "received": True, "sent": 0}),
        (messages.SourceBytes, {"node": "a" * 32, "role": "point", "received": "1", "sent": 0}),
        (messages.SourceBytes, {"node": "a" * 32, "role": "point", "received": 2**53 + 1, "sent": 0}),
        (messages.Deployment, {"id": "d", "target": "c/p/1/f", "retry": -1}),
        (messages.Deployment, {"id": "d", "target": "c/p/1/f", "retry": limits.RETRIES_MAX + 1}),
        (envelope.Envelope, {}),
        (requests.Torrent, {"torrent": "text, not bytes"}),
        (requests.EnrolRequest, {"sealed": bytes(limits.ENROL_BYTES_MAX + 1)}),
    ],
)
def test_what_breaks_a_types_rules_is_refused(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(PeerError, match=kind.__name__):
        codec.decode(msgpack.packb(fields), kind)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -0.1])
def test_a_duration_is_a_number_that_people_can_read(seconds: float) -> None:
    report = messages.Report(
        id="r", deployment="d", target="c/p/1/f", stage="installed", reason="", finished=1, seconds=seconds
    )
    with pytest.raises(PeerError):
        codec.decode(codec.encode(report), messages.Report)


@pytest.mark.parametrize("exit_code", [2**63, -(2**31) - 1])
def test_an_exit_code_fits_into_a_table(exit_code: int) -> None:
    report = messages.Report(
        id="r", deployment="d", target="c/p/1/f", stage="failed", reason="", finished=1, exit_code=exit_code
    )
    with pytest.raises(PeerError):
        codec.decode(codec.encode(report), messages.Report)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PeerError):
        codec.decode(ATTACHED + b"\x91\xa1\xff", frames.AnyFrame)


def test_bytes_after_the_end_are_refused() -> None:
    encoded = codec.encode(frames.Attached(carrier="a" * 32, nodes={}))
    with pytest.raises(PeerError):
        codec.decode(encoded + b"\xc0", frames.AnyFrame)
