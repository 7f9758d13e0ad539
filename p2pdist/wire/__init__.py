"""Messages and their bytes. No I/O, no clock, no randomness.

Three kinds of things cross a link, and each has one type and one codec here:

frames (:mod:`~p2pdist.wire.frames`)
    What two neighbours on one link say to each other: presence in swarms, peers, metadata versions,
    and envelopes for somebody further on. A neighbour reads and acts on them itself.
messages (:mod:`~p2pdist.wire.messages`)
    What a device and the admin server say to each other, sealed in an envelope that the nodes on the
    way cannot open.
requests (:mod:`~p2pdist.wire.requests`)
    A question with one answer, on a stream of its own: enrolment, metadata bundles, torrents.

All of these are frozen ``msgspec`` structures, packed by ``msgpack`` and validated completely by
:mod:`~p2pdist.wire.codec` on arrival: types, sizes, ranges. A decoder either returns a valid value
or raises :class:`~p2pdist.errors.PeerError`; nothing else escapes it. STUN
(:mod:`~p2pdist.wire.stun`) crosses the network beside links, in datagrams of its own format; what a
device learns with it (:mod:`~p2pdist.wire.nat`) is made to travel in messages.
"""
