"""Limits of polling networks, and of what is found there. See :mod:`p2pdist.limits`."""

from __future__ import annotations

_KIB = 1024
_MIB = 1024 * _KIB

# Discovery --------------------------------------------------------------------------------------------
POLL_RANGES_MAX = 64  # in one poll: the subnets of a large site
POLL_ADDRESSES_MAX = 65_536  # asked by one poll: a /16, five minutes at the default rate
POLL_PER_S_MAX = 1_000  # echo requests: a slow WAN's whole upstream would be 64 KB/s
POLL_ON_SEGMENT_PER_S = 200  # the kernel looks for each for 3 s, and keeps 1,024 neighbours for everybody
POLL_ANSWER_S = 1.5  # for an answer to the last question: a satellite, twice
NEIGHBOURS_MAX = 65_536  # read from the kernel's table; its own limit is 1,024 by default

# Discovered devices -----------------------------------------------------------------------------------
SIGHTING_NAMES_MAX = 16  # of one device, by one method: a host with its aliases
SIGHTING_ADDRESSES_MAX = 16  # a router has as many; more are counted as one device all the same
INTERFACES_MAX = INTERFACE_ADDRESSES_MAX = 8  # that a node tells of: two cards, bonds and VLANs on them
SIGHTING_MACS_MAX = 8  # interfaces that one method tells of
SIGHTING_SERVICES_MAX = 32  # ports or kinds of service; a NAS offers a dozen
SIGHTING_UNIT_CHARS_MAX = 512  # an organisational unit's path: ten levels
SIGHTINGS_AT_ONCE = 128  # in one message, taken in by one transaction
SIGHTINGS_BYTES_MAX = 128 * _KIB  # of them in one message: a quarter of an envelope
SIGHTINGS_KEPT_MAX = 1_000_000  # by the admin server, 1 KB each: 100,000 devices, ten kinds of evidence each
SIGHTING_LIFE_S = 90 * 24 * 3600  # without being seen again: a summer's leave and a repair
SIGHTINGS_RELATED_MAX = 5_000  # looked at to tell whose new sightings are: half a second
IDENTITY_HOLDERS_MAX = 64  # sightings with one identity; one that more have (a router's MAC) names nobody
ADDRESS_TIE_S = 3_600  # two things seen at one address within this time are one device: the shortest leases
PLACEMENT_RULES_MAX = 1_000  # read through for each new device
INVENTORY_ROWS_MAX = 1_000  # devices in one answer
INVENTORY_CONFLICTS_MAX = 1_000  # shown at once; nobody reads more
DISCOVERY_CONNECT_S = 2.0  # for one TCP connection on a network that is next door
DISCOVERY_CONNECTS_AT_ONCE = 256  # file descriptors, and entries in a home router's table
DISCOVERY_PORTS_MAX = 16  # tried at each address
DISCOVERY_PER_S_MAX = 1_000  # questions to a network: 100 KB/s at most
DISCOVERY_ANSWER_S = 2.0  # after the last question, for those who wait so as not to answer all at once
DISCOVERY_ANSWERS_MAX = 10_000  # to questions that go to everybody: a segment has fewer devices
DISCOVERY_ANSWER_BYTES_MAX = 9_000  # one datagram (RFC 6762, section 17)
SERVICE_TYPES_ASKED_MAX = 64  # kinds of service on one segment; a house full of gadgets has 40
REVERSE_AT_ONCE = 32  # names that are asked of a resolver at the same time
REVERSE_ANSWER_S = 3.0  # for one name; a resolver without an answer says so sooner
SEGMENT_PER_S = 100  # questions to everybody: each is work for all who hear it
WSD_RESOLVED_MAX = 256  # devices that are asked where they say more: three seconds
WSD_METADATA_BYTES_MAX = 64 * _KIB  # what one device says of itself; printers write 4 KiB
WSD_METADATA_AT_ONCE = 16  # devices that are asked for it at the same time
LDAP_DIRECTORIES_MAX = 64  # that one node asks; an organisation has one for each of its forests
LDAP_AUTHORITY_BYTES_MAX = 16 * _KIB  # certificates of who vouches for a directory; one has 2
LDAP_PAGE_ENTRIES_MAX = 1_000  # Active Directory's own limit
LDAP_ENTRIES_MAX = 200_000  # computers of one directory
LDAP_BYTES_MAX = 256 * _MIB  # read from one directory, 1 KB an entry
LDAP_PAGE_BYTES_MAX = 4 * _MIB  # of one page: 4 KB an entry; a directory that does not page is cut off here
LDAP_PAGE_S = 60.0  # for one page, and for TLS and the password before; a slow WAN needs 5
LDAP_ANSWER_S = 15  # for the next bytes of a page
