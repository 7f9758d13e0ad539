"""The admin server's control plane: the links of the fleet and what is said on them.

plane    accepts links, keeps who is reached how, tracks the swarms, passes frames on
devices  what is known of each device that is attached, and what it should have
desk     opens envelopes, takes messages in, answers them once they are on the disk
library  metadata and torrents, for whoever asks
admit    enrolment, renewal, certificates

Invariants: a report is acknowledged only after it was committed; a revoked node has no link, no answer
and no certificate; what a node is (point or device) follows from signed grants, never from its claim.
"""
