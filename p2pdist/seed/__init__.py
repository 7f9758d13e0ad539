"""The seed node: an agent with duties. What turns a device into a distribution point.

above     what the neighbours above may do with a point in a DMZ, which they dial
members   the links of the devices that this point carries, and what passes between them and upwards
callees   the gateways in a DMZ below, which this point dials
supply    what the devices may ask for
post      envelopes on their way through this point, which keeps them on its disk until they are taken
gateway   where the nodes below are, and where this point stands itself
stock     what the point holds on its disk for its scope
seed      an agent and the two above, wired
main      the program ``p2pdist-seed``
"""
