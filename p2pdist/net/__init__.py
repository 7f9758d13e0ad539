"""Links: authenticated connections between two neighbours of the fleet.

A link is one TCP connection with TLS 1.3, on which both sides have shown a certificate of the fleet's
CA, multiplexed by HTTP/2 (RFC 9113). The dialler is the HTTP/2 client. One long-lived stream,
``/control``, carries frames both ways; every other stream is a request with one answer or a byte stream,
and after the handshake it makes no difference who dialled. Use it through :mod:`~p2pdist.net.link`.

endpoints                 ``host:port`` in words people write
tls, secure               what a node shows and demands; a TLS connection as a trio stream
events, http2, headers,   HTTP/2 and frames without I/O: streams, flow control, limits
  h2settings, framing
opening                   whether both sides want the link
control, frameflow        frames
exchanges, asking,        requests that we make and that we answer; byte streams, how they come to be
  answering, streaming,   and what they are
  bytestream
flushing                  one task that sends what many links have queued
splicing                  two byte streams made one
pacing                    how many frames one neighbour may have handled
netlink                   changes of this machine's network
broadcast                 one frame to many links
silence                   when to ask for a sign of life, and when to give the neighbour up
carrier, established      the trio adapter: reading, writing, the end; and the link itself
exchange, mailbox         envelopes over links, kept until somebody answers for them: in memory at the ends
  maildisk, mailfile      of their way, on the disk of the gateways in between
dialling, racing,         how links come to be
  listening, admitting,   on this side: who has dialled, and who has its turn
  accepting
calling                   links with neighbours that dial nobody
rtc                       the punched path of a session: WebRTC data channels on an asyncio island
sessions, conversations,  one stream over changing paths, what is said in it, and the attempts at better
  punching                paths beside it
multiplex                 many streams in that one
memory                    two ends of a link without a network, for tests

Beside the links, over UDP: :mod:`~p2pdist.net.stun` tells devices their outside endpoints, and
:mod:`~p2pdist.net.natprobe` finds out what the NATs on the way to a gateway do;
:mod:`~p2pdist.net.stundesk` runs the one, and tells neighbours where.

Invariants: nothing is acted on that comes from a peer without a certificate, except requests whose
handler admits strangers; every buffer is bounded by flow control; whoever shows no sign of life is gone
after :data:`p2pdist.limits.LINK_DEAD_AFTER_S`, or within seconds while somebody waits for it; what one
connection does never reaches another.
"""
