"""STUN Binding messages (RFC 8489) with what NAT behaviour discovery adds (RFC 5780), and their bytes.

A message is a header of 20 bytes and attributes, each padded to a multiple of four (RFC 8489, 5 and 14)::

    0 0 | type (14 bits) | length of the attributes (16) | cookie (32) | transaction (96)
    attribute type (16)  | length of the value (16)      | value, zero to three bytes of padding

Only what a gateway and a device say to each other without credentials is here: requests, answers, errors.
Attributes that a receiver may ignore are ignored; those that it must understand and does not are named in
:attr:`BindingRequest.unknown`, for the error 420 that they deserve (section 6.3.1).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError

COOKIE: Final = 0x2112A442
TRANSACTION_BYTES: Final = 12
UNKNOWN_ATTRIBUTE: Final = 420  # the error code of an attribute that must be understood and is not

_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")

_REQUEST: Final = 0x0001  # method Binding in each class
_INDICATION: Final = 0x0011
_SUCCESS: Final = 0x0101
_ERROR: Final = 0x0111

CHANGE_REQUEST: Final = 0x0003  # the attribute that an error for it names
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_XOR_MAPPED_ADDRESS: Final = 0x0020
_PADDING: Final = 0x0026
_SOFTWARE: Final = 0x8022
_RESPONSE_ORIGIN: Final = 0x802B
_OTHER_ADDRESS: Final = 0x802C

_OPTIONAL: Final = 0x8000  # attribute types from here on may be ignored
_CHANGE_ADDRESS: Final = 0x4
_CHANGE_PORT: Final = 0x2
_FAMILIES: Final = {1: 4, 2: 16}  # address family to bytes of an address
_FILLER: Final = b"p2pdist, padded so that no answer is larger than its request. "


class Endpoint(msgspec.Struct, frozen=True, array_like=True):
    """An IP address without a zone, and a UDP port. Compare those that came from this module's functions.

    Raises:
        UsageError: the address is none.
    """

    host: Annotated[str, Meta(max_length=45)]
    port: Annotated[int, Meta(ge=0, le=65535)]

    def __post_init__(self) -> None:
        if "%" in self.host or _canonical(self.host) is None:
            raise UsageError(f"{self.host[:60]!r} is not an IP address")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """What sockets take."""
        return self.host, self.port

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address, for questions about it."""
        return ipaddress.ip_address(self.host)


class BindingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """*Which address do you see me at?*

    Attributes:
        transaction: 12 random bytes; the answer carries them too.
        change_address: The answer shall come from the responder's other address (RFC 5780 section 7.2).
        change_port: The answer shall come from its other port.
        unknown: Types of attributes that must be understood and are not.
    """

    transaction: bytes
    change_address: bool = False
    change_port: bool = False
    unknown: tuple[int, ...] = ()


class BindingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """*I see you at ...*

    Attributes:
        transaction: Of the request.
        mapped: XOR-MAPPED-ADDRESS, the endpoint that the request came from.
        origin: RESPONSE-ORIGIN, where the responder says that the answer was sent from.
        other: OTHER-ADDRESS, where answers come from that were asked to change address and port.
    """

    transaction: bytes
    mapped: Endpoint
    origin: Endpoint | None = None
    other: Endpoint | None = None


class BindingError(msgspec.Struct, frozen=True, kw_only=True):
    """*I will not answer that.* The reason in words, which a stranger wrote, is left out."""

    transaction: bytes
    code: int
    unknown: tuple[int, ...] = ()


StunMessage: TypeAlias = BindingRequest | BindingAnswer | BindingError


def endpoint_of(host: str, port: int) -> Endpoint:
    """Make an endpoint of what a socket or a person says: any way to write an address, perhaps with a zone.

    Raises:
        UsageError: *host* is not an IP address.
    """
    canonical = _canonical(host)
    if canonical is None:
        raise UsageError(f"{host[:60]!r} is not an IP address")
    return Endpoint(canonical, port)


def encode(message: StunMessage, *, bytes_min: int = 0) -> bytes:
    """Return the bytes of a message.

    Args:
        message: What to say.
        bytes_min: Fill up to at least so many bytes, with SOFTWARE, which any receiver ignores
            (RFC 8489 section 14.14), and at most 763 bytes of it.
    """
    match message:
        case BindingRequest():
            flags = _CHANGE_ADDRESS * message.change_address | _CHANGE_PORT * message.change_port
            body = _attribute(CHANGE_REQUEST, flags.to_bytes(4, "big")) if flags else b""
            kind = _REQUEST
        case BindingAnswer():
            body = _attribute(_XOR_MAPPED_ADDRESS, _xored(_address(message.mapped), message.transaction))
            for type_, endpoint in ((_RESPONSE_ORIGIN, message.origin), (_OTHER_ADDRESS, message.other)):
                body += b"" if endpoint is None else _attribute(type_, _address(endpoint))
            kind = _SUCCESS
        case BindingError():
            body = _attribute(_ERROR_CODE, bytes((0, 0, *divmod(message.code, 100))))
            if message.unknown:
                types = struct.pack(f"!{len(message.unknown)}H", *message.unknown)
                body += _attribute(_UNKNOWN_ATTRIBUTES, types)
            kind = _ERROR
    missing = bytes_min - _HEADER.size - len(body)
    if missing > 0:
        filler = max(missing - _ATTRIBUTE.size, 1)
        body += _attribute(_SOFTWARE, (_FILLER * (filler // len(_FILLER) + 1))[:filler])
    return _HEADER.pack(kind, len(body), COOKIE, message.transaction) + body


def decode(data: bytes) -> StunMessage:
    """Read one datagram.

    Raises:
        PeerError: it is no STUN message, is malformed or too large, or is neither a Binding request nor
            an answer to one. No other error leaves here.
    """
    if not _HEADER.size <= len(data) <= limits.STUN_BYTES_MAX:
        raise PeerError(f"a STUN message cannot have {len(data)} bytes")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != COOKIE or length % 4 or length != len(data) - _HEADER.size:
        raise PeerError("a datagram is not STUN")
    attributes: dict[int, bytes] = {}
    for type_, value in _split(data):
        attributes.setdefault(type_, value)  # of several of one type the first counts (section 14)
    if kind == _REQUEST:
        return _request(transaction, attributes)
    if kind == _SUCCESS:
        return _answer(transaction, attributes)
    if kind == _ERROR:
        return _error(transaction, attributes)
    raise PeerError("a STUN indication wants no answer" if kind == _INDICATION else f"STUN type {kind:#06x}")


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = _HEADER.size
    while at < len(data):
        type_, length = _ATTRIBUTE.unpack_from(data, at)  # whole: the rest is a multiple of its size
        at += _ATTRIBUTE.size
        if length > len(data) - at:
            raise PeerError(f"STUN attribute {type_:#06x} ends behind its message")
        yield type_, data[at : at + length]
        at += length + -length % 4


def _request(transaction: bytes, attributes: dict[int, bytes]) -> BindingRequest:
    flags = int.from_bytes(_sized(attributes.get(CHANGE_REQUEST, bytes(4)), 4), "big")
    return BindingRequest(
        transaction=transaction,
        change_address=bool(flags & _CHANGE_ADDRESS),
        change_port=bool(flags & _CHANGE_PORT),
        unknown=_unknown(attributes, CHANGE_REQUEST, _PADDING),
    )


def _answer(transaction: bytes, attributes: dict[int, bytes]) -> BindingAnswer:
    if _XOR_MAPPED_ADDRESS not in attributes:
        raise PeerError("a STUN answer names no address")
    if _unknown(attributes, 0x0001, _XOR_MAPPED_ADDRESS, _PADDING):  # MAPPED-ADDRESS says the same
        raise PeerError("a STUN answer has attributes that must be understood and are not")
    return BindingAnswer(
        transaction=transaction,
        mapped=_endpoint(_xored(attributes[_XOR_MAPPED_ADDRESS], transaction)),
        origin=_endpoint(attributes[_RESPONSE_ORIGIN]) if _RESPONSE_ORIGIN in attributes else None,
        other=_endpoint(attributes[_OTHER_ADDRESS]) if _OTHER_ADDRESS in attributes else None,
    )


def _error(transaction: bytes, attributes: dict[int, bytes]) -> BindingError:
    code = attributes.get(_ERROR_CODE, b"")
    if len(code) < 4 or not 3 <= code[2] <= 6 or code[3] > 99:
        raise PeerError("a STUN error has no valid code")
    types = attributes.get(_UNKNOWN_ATTRIBUTES, b"")
    if len(types) % 2:
        raise PeerError("a STUN error names half an attribute")
    return BindingError(
        transaction=transaction,
        code=code[2] * 100 + code[3],
        unknown=struct.unpack(f"!{len(types) // 2}H", types),
    )


def _unknown(attributes: dict[int, bytes], *known: int) -> tuple[int, ...]:
    return tuple(type_ for type_ in attributes if type_ < _OPTIONAL and type_ not in known)


def _attribute(type_: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(type_, len(value)) + value + bytes(-len(value) % 4)


def _address(endpoint: Endpoint) -> bytes:
    packed = endpoint.ip.packed
    family = 1 if len(packed) == 4 else 2
    return struct.pack("!BBH", 0, family, endpoint.port) + packed


def _endpoint(value: bytes) -> Endpoint:
    size = _FAMILIES.get(value[1] if len(value) > 1 else 0)
    if size is None:
        raise PeerError("a STUN address is of no known family")
    _, _, port = struct.unpack("!BBH", _sized(value, 4 + size)[:4])
    return Endpoint(str(ipaddress.ip_address(value[4:])), port)


def _xored(value: bytes, transaction: bytes) -> bytes:
    """Change between an address and its XOR form (section 14.2): its port and address, byte by byte."""
    cookie = COOKIE.to_bytes(4, "big")
    key = bytes(2) + cookie[:2] + cookie + transaction
    return bytes(byte ^ mask for byte, mask in zip(value, key, strict=False)) + value[len(key) :]


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise PeerError(f"a STUN attribute has {len(value)} bytes instead of {size}")
    return value


def _canonical(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None
