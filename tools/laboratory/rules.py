"""What a router's NAT and firewall do, as nftables' rules. Pure: text out of values.

The devices are ``wan`` (towards the internet) and ``lan``. A NAT's mapping of UDP is arithmetic: the
outside port is the inside port with some of its low bits turned, other bits for each inside host
(:class:`Inside`), so it is endpoint-independent by construction, and no two inside hosts collide. Only a
symmetric NAT leaves the choice to the kernel. TCP is the kernel's usual masquerade.

Conntrack lets answers in, which is filtering by address and port. Where more is let in, or hairpinning is
wanted, two tables are kept from the packets that go out: ``mappings`` (outside port: inside endpoint), by
which unsolicited packets find their way in, and ``permitted`` (who has been sent to, from which outside
port), by which they are let through. Both forget when conntrack does. Whatever is dropped is dropped before
conntrack confirms an entry for it: one that stayed would take the tuple that the host's own packet to the
same peer needs a moment later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from laboratory.kinds import Filtering, Nat, Outgoing

TURNED_BITS = range(1, 1024)
"""What may be turned in a port: low bits only, so that no port below 1024 comes out."""

TABLE_ENTRIES_MAX = 65_536

_OUTGOING = {
    Outgoing.EVERYTHING: "accept",
    Outgoing.NO_UDP: "meta l4proto != udp accept",
    Outgoing.ONLY_TCP_443: "tcp dport 443 accept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Permitted:
    """How the table of the permitted is kept, in nftables' words, looked at after NAT."""

    entry: str
    added_going_out: str
    added_hairpinned: str
    needed_coming_in: str


_PERMITTED = {
    Filtering.ADDRESS_DEPENDENT: _Permitted(
        entry="ipv4_addr . inet_service",
        added_going_out="ip daddr . udp sport",
        added_hairpinned="ip saddr . udp sport",  # the source is the NAT's own address now, as the goal was
        needed_coming_in="ip saddr . ct original proto-dst",
    ),
    Filtering.ADDRESS_AND_PORT_DEPENDENT: _Permitted(
        entry="ipv4_addr . inet_service . inet_service",
        added_going_out="ip daddr . udp dport . udp sport",
        added_hairpinned="ip saddr . ct original proto-dst . udp sport",
        needed_coming_in="ip saddr . udp sport . ct original proto-dst",
    ),
}


@dataclass(frozen=True, slots=True)
class Inside:
    """A host (or another NAT) behind a NAT, and what is turned in its ports."""

    address: str
    turned_bits: int


def nat_rules(nat: Nat, outside: str, inside: Sequence[Inside]) -> str:
    """Return the rules of a NAT with the address *outside*; they take the place of earlier ones."""
    body = _symmetric(outside) if nat.symmetric else _cone(nat, outside, inside)
    return _replaced("ip nat", body)


def _symmetric(outside: str) -> str:
    return f"""
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname wan ip saddr != {outside} meta l4proto udp masquerade to :1024-65535 random,fully-random
        oifname wan ip saddr != {outside} masquerade
    }}"""


def _cone(nat: Nat, outside: str, inside: Sequence[Inside]) -> str:
    entrance = f"ip daddr {outside}" if nat.hairpin else f"iifname wan ip daddr {outside}"
    leaving = "{ wan, lan }" if nat.hairpin else "wan"
    mapped = "\n        ".join(
        f"oifname {leaving} ip saddr {host.address} meta l4proto udp"
        f" snat ip to {outside} : udp sport ^ {host.turned_bits}"
        for host in inside
    )
    return f"""
    map mappings {{
        type inet_service : ipv4_addr . inet_service
        flags dynamic, timeout
        timeout {nat.udp_timeout_s}s
        size {TABLE_ENTRIES_MAX}
    }}
    {_permitted_set(nat)}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        {entrance} dnat ip to udp dport map @mappings
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        {mapped}
        oifname wan ip saddr != {outside} masquerade
    }}
    chain after_nat {{
        type filter hook postrouting priority srcnat + 10
        meta l4proto != udp accept
        oifname wan ct direction original \\
            update @mappings {{ udp sport : ct original ip saddr . ct original proto-src }}
        oifname wan ct direction reply \\
            update @mappings {{ udp sport : ct reply ip saddr . ct reply proto-src }}
        {_filter(nat, outside)}
    }}"""


def _permitted_set(nat: Nat) -> str:
    permitted = _PERMITTED.get(nat.filtering)
    if permitted is None:
        return ""
    return f"""set permitted {{
        type {permitted.entry}
        flags dynamic, timeout
        timeout {nat.udp_timeout_s}s
        size {TABLE_ENTRIES_MAX}
    }}"""


def _filter(nat: Nat, outside: str) -> str:
    hairpinned = f"oifname lan meta l4proto udp ip saddr {outside} ct direction original update"
    permitted = _PERMITTED.get(nat.filtering)
    lines = []
    if nat.hairpin:
        mapping = "udp sport : ct original ip saddr . ct original proto-src"
        lines.append(f"{hairpinned} @mappings {{ {mapping} }}")
    if nat.hairpin and permitted is not None:
        lines.append(f"{hairpinned} @permitted {{ {permitted.added_hairpinned} }}")
    if permitted is not None:
        stranger = f"meta l4proto udp ct status dnat ct state new {permitted.needed_coming_in} != @permitted"
        lines.append(f"oifname wan update @permitted {{ {permitted.added_going_out} }}")
        lines.append(f"oifname lan {stranger} drop")
    return "\n        ".join(lines)


def firewall_rules(outgoing: Outgoing) -> str:
    """Return the rules of a router's stateful firewall, for both families; they take the place of earlier
    ones."""
    return _replaced(
        "inet firewall",
        f"""{_INPUT}
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established, related accept
        ct status dnat accept
        iifname lan {_OUTGOING[outgoing]}
    }}""",
    )


def dmz_rules() -> str:
    """Return the rules of a firewall that lets everybody dial into ``dmz``, and nobody out of anywhere."""
    return _replaced(
        "inet firewall",
        f"""{_INPUT}
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established, related accept
        iifname {{ wan, lan }} oifname dmz accept
    }}""",
    )


def weather_rules(cut: Sequence[str], losses: Sequence[tuple[str, int]]) -> str:
    """Return the core's rules: devices that are cut off, and ones that lose so many in a hundred each way."""
    lines = [f"{way} {device} drop" for device in cut for way in ("iifname", "oifname")]
    lines += [
        f"{way} {device} numgen random mod 100 < {percent} drop"
        for device, percent in losses
        for way in ("iifname", "oifname")
    ]
    body = "\n        ".join(("type filter hook forward priority filter", *lines))
    return _replaced("inet weather", f"\n    chain forward {{\n        {body}\n    }}")


_INPUT = """
    chain input {
        type filter hook input priority filter; policy drop
        ct state established, related accept
        meta l4proto { icmp, ipv6-icmp } accept
    }"""


def _replaced(table: str, body: str) -> str:
    """Return a ruleset that has the table anew, whether or not there was one."""
    return f"table {table} {{}}\ndelete table {table}\ntable {table} {{{body}\n}}\n"
