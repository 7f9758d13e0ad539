"""stub"""

PEERS = {}


def measure_peer(*a): ...
