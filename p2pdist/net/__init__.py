"""Links: authenticated connections between two neighbours of the fleet.

A link is one TCP connection with TLS 1.3, on which both sides have shown a certificate of the fleet's
CA, multiplexed by HTTP/2 (RFC 9113). The dialler is the HTTP/2 client. One long-lived stream,
``/control``, carries frames both ways; every other stream is a request with one answer.

tls        what a node shows, and the contexts made from it
endpoints  ``host:port`` in words people write
http2      HTTP/2 without I/O: streams, flow control, limits
link       the trio adapter: dialling, accepting, frames, requests, keepalive

Invariants: nothing is read from a peer that was not verified, except one request for which the handler
admits strangers; every buffer is bounded by flow control; whoever does not answer for
:data:`p2pdist.limits.LINK_DEAD_AFTER_S` is gone.
"""
