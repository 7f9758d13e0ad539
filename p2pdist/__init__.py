"""Peer-to-peer update distribution for managed fleets.

Floors, each importing only those before it:

    errors, ids, limits, omitted, files    what everything shares
    wire                    messages and their bytes
    trust                   signed metadata, keys, grants, certificates
    core                    decisions: scope, sources, deployments
    net swarm store install adapters to sockets, libtorrent, SQL, the device's software
    node                    what every member of the fleet runs: uplink, metadata, content
    duties                  what a distribution point does besides seeding: polling networks
    server seed agent sign cli    the programs: wiring only
"""

__version__ = "0.1.0"
