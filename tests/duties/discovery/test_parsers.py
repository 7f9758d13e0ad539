"""What strangers answer: real answers are understood, and nothing that anybody can send does harm."""

from __future__ import annotations

import dns.message
import dns.name
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.duties.discovery import directory, mdns, netbios, reverse, wsd, wsdmessages
from p2pdist.duties.discovery.ldapreader import Entry
from p2pdist.duties.discovery.xmltexts import read_texts
from p2pdist.errors import PeerError
from p2pdist.wire import codec
from p2pdist.wire.discovery import Sighting

SOURCE = "10.9.0.2"


def valid(sighting: Sighting) -> Sighting:
    """Check a sighting as who receives it does; codec refuses what is not valid."""
    return codec.decode(codec.encode(sighting), Sighting)


def altered(good: bytes) -> st.SearchStrategy[bytes]:
    """Anything, and *good* with a byte changed, and *good* cut off."""
    changed = st.builds(
        lambda place, byte: good[:place] + bytes([byte]) + good[place + 1 :],
        st.integers(0, len(good) - 1),
        st.integers(0, 255),
    )
    cut = st.integers(0, len(good)).map(lambda length: good[:length])
    return st.one_of(st.binary(max_size=400), changed, cut)


# NetBIOS ---------------------------------------------------------------------------------------------


def node_status(*names: tuple[bytes, int, int], mac: bytes = bytes(6)) -> bytes:
    entries = b"".join(name.ljust(15) + bytes([use]) + flags.to_bytes(2, "big") for name, use, flags in names)
    body = bytes([len(names)]) + entries + mac + bytes(40)
    header = bytes.fromhex("000784000000000100000000")
    start = header + netbios.question(7)[12:46] + bytes.fromhex("0021000100000000")
    return start + len(body).to_bytes(2, "big") + body


STATUS = node_status(
    (b"OFFICE-PC4", 0x00, 0x0400),
    (b"BRANCH", 0x00, 0x8400),
    (b"OFFICE-PC4", 0x20, 0x0400),
    mac=bytes.fromhex("001b21000007"),
)


def test_a_netbios_node_says_its_name_its_service_and_its_card() -> None:
    assert netbios.read_answer(STATUS, SOURCE) == Sighting(
        method="netbios",
        addresses=[SOURCE],
        names=["OFFICE-PC4"],
        services=["smb"],
        macs=["00:1b:21:00:00:07"],
    )


def test_samba_says_a_card_of_zeros_which_is_none() -> None:
    assert netbios.read_answer(node_status((b"A", 0, 0x0400)), SOURCE).macs == []


def test_a_netbios_name_with_control_characters_is_shown_without_them() -> None:
    assert netbios.read_answer(node_status((b"A\x1b[2J\x00B", 0, 0)), SOURCE).names == ["A [2J B"]


@given(altered(STATUS))
def test_any_netbios_answer_is_a_valid_sighting_or_refused(data: bytes) -> None:
    try:
        valid(netbios.read_answer(data, SOURCE))
    except PeerError as error:
        assert SOURCE in str(error)


# Multicast DNS ---------------------------------------------------------------------------------------


def dns_answer(*records: tuple[str, str, str]) -> bytes:
    message = dns.message.make_response(dns.message.make_query("x.local", "PTR"))
    message.answer = [dns.rrset.from_text(name, 10, "IN", kind, text) for name, kind, text in records]
    return message.to_wire()


PRINTER = dns_answer(
    ("_services._dns-sd._udp.local.", "PTR", "_ipp._tcp.local."),
    ("_ipp._tcp.local.", "PTR", r"Laser\0327._ipp._tcp.local."),
    (r"Laser\0327._ipp._tcp.local.", "SRV", "0 0 631 printer7.local."),
    ("printer7.local.", "A", SOURCE),
    ("printer7.local.", "AAAA", "fe80::7"),
    ("_workstation._tcp.local.", "PTR", r"printer7\032[00:1b:21:00:00:07]._workstation._tcp.local."),
)


def heard(data: bytes, source: str = SOURCE) -> list[Sighting]:
    said = mdns.Said()
    mdns.read_answer(data, said)
    return [valid(sighting) for sighting in mdns.sightings_of(said, source)]


def test_a_zeroconf_host_says_its_name_its_services_and_its_card() -> None:
    assert heard(PRINTER) == [
        Sighting(
            method="mdns",
            addresses=[SOURCE],
            names=["printer7.local"],
            services=["_ipp._tcp"],
            macs=["00:1b:21:00:00:07"],
        )
    ]


def test_a_host_of_which_another_one_speaks_has_not_that_ones_address() -> None:
    (sighting,) = heard(PRINTER, "10.9.0.66")
    assert sighting.names == ["printer7.local"] and sighting.addresses == []


def test_a_responder_that_names_no_host_is_there_all_the_same() -> None:
    (sighting,) = heard(dns_answer(("_services._dns-sd._udp.local.", "PTR", "_ssh._tcp.local.")))
    assert (sighting.addresses, sighting.names, sighting.services) == ([SOURCE], [], ["_ssh._tcp"])


def test_dns_names_with_control_characters_are_shown_without_them() -> None:
    (sighting,) = heard(dns_answer((r"x._ssh._tcp.local.", "SRV", r"0 0 22 a\027[2Jb\010.local.")))
    assert sighting.names == ["a [2jb.local"]


def test_one_responder_cannot_speak_for_a_thousand_hosts() -> None:
    records = [(f"x{n}._ssh._tcp.local.", "SRV", f"0 0 22 host{n}.local.") for n in range(300)]
    assert len(heard(dns_answer(*records))) == 64


@given(altered(PRINTER))
def test_any_multicast_dns_answer_is_valid_sightings_or_refused(data: bytes) -> None:
    try:
        heard(data)
    except PeerError as error:
        assert "cannot be read" in str(error)


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3))
def test_a_host_of_any_labels_is_a_valid_sighting(labels: list[bytes]) -> None:
    said = mdns.Said()
    said.services[mdns._text(dns.name.Name([*labels, b"local", b""]))].add("_ssh._tcp")
    for sighting in mdns.sightings_of(said, SOURCE):
        if sighting.names != [""]:
            valid(sighting)


@given(st.lists(st.lists(st.binary(min_size=1, max_size=63), max_size=3), max_size=20))
def test_names_for_addresses_are_plain_or_left_out(targets: list[list[bytes]]) -> None:
    names = reverse.names_in(dns.name.Name([*labels, b""]) for labels in targets)
    if names:
        valid(Sighting(method="reverse", names=names))


# WS-Discovery ----------------------------------------------------------------------------------------

MATCH = f"""<?xml version="1.0" encoding="utf-8"?>
<soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope"
 xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:wsd="http://schemas.xmlsoap.org/ws/2005/04/discovery"
 xmlns:wsdp="http://schemas.xmlsoap.org/ws/2006/02/devprof"><soap:Body><wsd:ProbeMatches><wsd:ProbeMatch>
<wsa:EndpointReference><wsa:Address>urn:uuid:01234567-0123-4123-8123-0123456789ab</wsa:Address>
</wsa:EndpointReference><wsd:Types>wsdp:Device pub:Computer</wsd:Types>
<wsd:XAddrs>http://10.66.6.6:80/evil http://{SOURCE}:5357/abc</wsd:XAddrs>
</wsd:ProbeMatch></wsd:ProbeMatches></soap:Body></soap:Envelope>""".encode()

BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa">%s]><x>&z;</x>""" % b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(25)
)


def test_a_match_is_asked_for_more_only_at_the_address_that_it_came_from() -> None:
    match = wsdmessages.read_match(MATCH, SOURCE)
    assert (match.source, match.port, match.path) == (SOURCE, 5357, "/abc")
    assert match.types == ("Computer", "Device")
    assert wsdmessages.read_match(MATCH, "10.9.0.3").port is None


@pytest.mark.parametrize(
    "xml",
    [
        BOMB,
        b'<!DOCTYPE x SYSTEM "http://10.66.6.6/x.dtd"><x/>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b"<x>" * 100_000,
        b"<x>" * 40 + b"</x>" * 40,
        b"<x>" + b"<w/>" * 1_000 + b"</x>",
        b'<?xml version="1.0" encoding="no-such-code"?><x/>',
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_xml_that_is_made_to_do_harm_is_refused(xml: bytes) -> None:
    with pytest.raises(PeerError):
        read_texts(xml, ("w",), bytes_max=64_000)


def test_the_name_of_a_computer_stands_before_its_workgroup() -> None:
    said = (
        b'<x xmlns:pub="http://schemas.microsoft.com/windows/pub/2005/07">'
        b"<pub:Computer>PC-9/Workgroup:OFFICE</pub:Computer></x>"
    )
    assert wsdmessages.read_metadata(said) == ["PC-9"]


@given(altered(MATCH))
def test_any_answer_to_a_probe_is_a_valid_sighting_or_refused(data: bytes) -> None:
    try:
        match = wsdmessages.read_match(data, SOURCE)
        names = wsdmessages.read_metadata(data)
    except PeerError:
        return
    valid(wsd.sighting_of(match, names))


# Directories -----------------------------------------------------------------------------------------


def entry(dn: str, **attributes: bytes) -> Entry:
    return Entry(name=dn, attributes={name: [value] for name, value in attributes.items()})


def test_a_computer_of_active_directory_keeps_its_number_its_unit_and_its_system() -> None:
    found = directory.sighting_of(
        entry(
            r"CN=PC7,OU=Sales\, East,OU=Berlin,DC=corp,DC=example",
            cn=b"PC7",
            dNSHostName=b"pc7.corp.example",
            objectGUID=bytes.fromhex("33221100554477668899aabbccddeeff"),
            operatingSystem=b"Windows 11 Pro",
            operatingSystemVersion=b"10.0 (26100)",
        ),
        "DC=corp,DC=example",
    )
    assert found == Sighting(
        method="directory",
        names=["pc7.corp.example", "PC7"],
        guid="00112233-4455-6677-8899-aabbccddeeff",
        unit=r"OU=Sales\, East,OU=Berlin,DC=corp,DC=example",
        platform="Windows 11 Pro 10.0 (26100)",
    )


@given(
    st.text(max_size=60),
    st.dictionaries(
        st.sampled_from(["cn", "dNSHostName", "objectGUID", "entryUUID", "operatingSystem"]),
        st.one_of(st.binary(max_size=600), st.just(b"00000000-0000-4000-8000-000000000001")),
    ),
)
def test_any_entry_of_a_directory_is_a_valid_sighting_or_none(dn: str, attributes: dict[str, bytes]) -> None:
    found = directory.sighting_of(entry(dn, **attributes), "dc=x")
    if found is not None:
        valid(found)
