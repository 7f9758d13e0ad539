"""Finding the devices of a network: the work :class:`~p2pdist.wire.polling.Poll`.

Each method says what it has found as items of the run, whose subjects are addresses. Nothing that is found is
believed to be more than it is: whoever is on a network can answer as he likes.
"""
