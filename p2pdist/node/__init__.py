"""What every member of the fleet runs: identity, uplink, metadata, content. Agents and seeds build on it.

home      the node's directory: identity key, certificate, enrolment, state
enrol     becoming a member
mail      sealed messages to and from the admin server
post      their envelopes on the way, kept until a neighbour answers for them
uplink    the link to the neighbour that carries this node, with failover
vigil     notices a neighbour that has gone without a word
diligence  and one that is there and does not do its work
roaming   has the link looked at when the machine's network changes
metadata  signed metadata: asked for, verified, kept, let go in time
rates     how fast the swarm may be now
clock     the wall clock, which may be set
content   artifacts: wanted, fetched in the swarm, served
detour    content through the link, where nothing else is let through
member    the runtime that wires them and speaks the control protocol
program   what the programs of a node share: enrolment, exit codes, readiness
commandline  and their command line
introductions  for whoever carries others, the admin server too: brings devices behind NATs together

Life cycle: ``Home.open`` → ``open_member`` → its tasks run in the caller's nursery until it is
cancelled. All state that must survive is on the disk before anything that depends on it is said to a
neighbour. The node goes on with what it knows while the admin server, its distribution point or both
are away.
"""
