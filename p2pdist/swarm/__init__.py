"""The swarm: the one place that touches libtorrent.

An artifact is one file, and its torrent is BitTorrent v2 (BEP 52), private, and named after the swarm
of its channel: libtorrent lets a peer in only when the peer's certificate is signed by the fleet's CA
and carries that name. There is no DHT, no exchange of peers, no discovery on the local network, no
tracker: whom a node connects to is told to it with ``set_sources``, and nobody else learns that the
swarm exists.

:mod:`~p2pdist.swarm.torrents`
    makes and checks torrents; no session needed.
:mod:`~p2pdist.swarm.session`
    ``async with open_swarm(settings) as swarm``: one libtorrent session. Artifacts are added with
    :meth:`~p2pdist.swarm.session.Swarm.add`, which takes an empty, a partial or a complete file and
    checks what is there; what happens comes out of :meth:`~p2pdist.swarm.session.Swarm.events`, how
    far it is out of :meth:`~p2pdist.swarm.session.Swarm.statistics`.

Invariants: a piece counts only after its hash was checked against the signed torrent; every byte
received is attributed to the node that sent it; a peer that sent bytes which do not match is banned
and named.
"""
