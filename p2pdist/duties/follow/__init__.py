"""Following a vendor's repository: which versions it offers, and what that is worth.

Life cycle: a task says what is followed and whose signatures count. Each run reads the indexes anew, and says
the newest version of everything that is wanted, as offers in one message. The admin server makes proposals of
those that it did not know. ``p2pdist proposal fetch`` brings one to an operator, who has it signed.

Invariants: nothing is installed or served because of an offer. Nothing of an ``apt`` repository is believed
that one of the task's OpenPGP keys has not signed; no index that is older than the newest that was seen.
What is read is bounded before it is read, and unpacked while it comes.
"""
