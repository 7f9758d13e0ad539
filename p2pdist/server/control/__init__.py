"""The admin server's control plane: the links of the fleet and what is said on them.

plane    accepts links, passes frames on
callees  the points that are dialled from here, because they dial nobody
reach    over which link each node is reached, and who carries it
swarms   who takes part in which swarm, and who hears of whom
devices  what is known of each device that is attached, and what it should have
desk     opens envelopes, takes messages in, answers them once they are on the disk
supply   metadata and torrents, for whoever asks
clones   two machines with one identity key
admit    enrolment, renewal, certificates
answers  what nodes ask in envelopes: certificates, secrets of runs, whether a device has come

Invariants: a report is acknowledged only after it was committed; a revoked node has no link, no answer
and no certificate; what a node is (point or device) follows from signed grants, never from its claim.
"""
