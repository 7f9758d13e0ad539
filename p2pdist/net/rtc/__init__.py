"""The punched path of a session: a trio stream between two nodes over a WebRTC data channel (RFC 8831).

Two nodes that cannot dial each other tell each other over the relayed path, in a *description*, at which
addresses they might be reached, and then both call at once: ICE (RFC 8445) finds a pair of addresses that
works through the NATs, DTLS encrypts it, SCTP makes it reliable and ordered. All of that is ``aiortc`` and
``aioice``, which want asyncio: they live on an *island*, a thread of their own.

    async with open_island() as island:
        stream = await open_punched(island, exchange, controlling=True, stun_servers=[gateway])

punch                     open_punched: gather, exchange descriptions, connect, within a time limit
report                    what was tried, how long each phase took, and why it failed
description               what the two sides tell each other, validated on arrival
stream                    the trio stream: credits, the end, who is to blame for it
credit                    frames and flow control without I/O
island                    the asyncio loop in its thread; events out, orders in, both bounded
path, events              one path on the island: its phases, its heartbeat, its end; what it says and hears
ice, sctp                 aioice and aiortc with what hostile or broken peers must not do taken out
addresses                 which of this machine's addresses may be reachable
transports                aiortc's transports without its media half

Life cycle: gathering → exchanging → ICE → DTLS → SCTP → open → ended. Whatever happens on the way, an
error, the time limit or a cancellation, ends in the same place: the path says goodbye, closes its sockets,
and only then the caller goes on. A new attempt has new sockets and so new mappings in the NATs.

Who the other side is: the description carries the fingerprint of the DTLS certificate, made for this one
path, and the path is open only to the holder of that certificate's key (RFC 8122). So this room binds the
path to the signalling and to nothing else. The signalling is sealed end to end between the two nodes, and
the session's own TLS runs inside the stream; each of them alone keeps a stranger out.

Invariants: no asyncio, aioice or aiortc type leaves the room; aiortc is imported with the first path, not
before; a slow reader makes neither side keep more than :data:`p2pdist.limits.PUNCH_WINDOW_BYTES`; a path
of which nothing is heard for :data:`p2pdist.limits.PUNCH_DEAD_AFTER_S` has ended; whoever has not shown the
description's secrets gets no answer and no attention. There is no TURN: relaying is the session's own.
"""
