"""Ways to find out what is on a network: one module each, all with the same outcome.

Each module offers ``poll(…)``: an asynchronous context manager around a channel of
:class:`~p2pdist.wire.discovery.Sighting`, which ends when the method is through::

    async with mdns.poll() as sightings:
        async for sighting in sightings: ...

polling    the work :class:`~p2pdist.wire.polling.Poll`: ICMP, the table of neighbours, the methods below
found      what a poll has found so far, as items for people and sightings for the inventory
connects   TCP connects to chosen ports of chosen addresses
reverse    the names that the resolver has for addresses
netbios    node status of chosen addresses: Windows and Samba (RFC 1002)
mdns       everybody on the node's own segments who offers services by Zeroconf (RFC 6762, 6763)
wsd        everybody on the segments who speaks WS-Discovery: Windows, printers, scanners
directory  the computers in a directory by LDAP (Active Directory, Samba, OpenLDAP)

segments asks everybody on the node's segments, for mdns and wsd; pace spreads questions over time; xmltexts
reads XML that strangers wrote.

Invariants: a method asks at most as fast as it is told and holds a bounded number of sockets, answers and
bytes. What comes back was written by strangers: what cannot be read is passed over, what can is cut to what
a sighting may have, and nobody makes the node ask a third party. A poll that is cancelled leaves nothing
open.
"""
