"""Decisions without I/O: the same inputs always give the same outputs, with a reason for people.

scope       which distribution points serve which group
groups      the tree of administration groups, and what is deployed where
sources     who fetches from whom
tracker     who takes part in which artifact's swarm, and what each should hear about the others
deployment  one device's way from a deployment to an installed release
mailbox     which envelopes wait on a gateway, and who is next
outbox      what was said to each node and not opened by it yet
receipts    who answers for an envelope while it crosses a link
routes      the way to every node below a gateway, and to the admin server above
storage     what a distribution point keeps on its disk
nat         what the NATs between a device and its gateway do
stun        what a gateway answers to STUN requests; buckets: how often

Time comes in as Unix seconds or as a monotonic time, named accordingly; nothing here reads a clock.
"""
