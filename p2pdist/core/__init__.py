"""Decisions without I/O: the same inputs always give the same outputs, with a reason for people.

scope       which distribution points serve which group
groups      the tree of administration groups, and what is deployed where
sources     who fetches from whom
tracker     who takes part in which artifact's swarm, and what each should hear about the others
deployment  one device's way from a deployment to an installed release
storage     what a distribution point keeps on its disk
nat         what the NATs between a device and its gateway do
stun        what a gateway answers to STUN requests; buckets: how often

Time comes in as Unix seconds or as a monotonic time, named accordingly; nothing here reads a clock.
"""
