"""Content straight from the vendor's mirrors: read by HTTPS ranges, checked, and fed into the swarm.

:mod:`~p2pdist.duties.mirrors.http`
    one request to one mirror, with limits on everything that it could do wrong. The only one that
    imports an HTTP client, which costs a node 6 MB: import it when there is something to be read.
:mod:`~p2pdist.duties.mirrors.reader`
    reads one artifact, as :mod:`p2pdist.core.reading` decides, into the swarm.
:mod:`~p2pdist.duties.mirrors.task`
    the work: releases one after the other, and what is said of them.

Invariants: a byte from a mirror is worth nothing until its piece has the signed hash; every byte that counts
is in the account of the mirror that sent it; what a mirror does wrong costs its own part, and is named.
"""
