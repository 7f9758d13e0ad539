"""Every pair of places, for sessions and for content, with the real programs: ``tools/natlab matrix``.

One laboratory has two places of each kind, *here* and *there*, and in the open the admin server and a
gateway, all on lines with a rate and a delay. Each pair is then one session, or one artifact::

    left    the first host here: the operator's command line runs on it; its device holds artifacts
    right   the host there: its device answers sessions, and wants artifacts
    beside  the second host here, for pairs of neighbours: as right, in the same place as left

What must come out is said by :mod:`laboratory.theory`, which knows nothing of the product.

pairs       which pairs there are, what is expected of each, and whether what was found is right: pure
grounds     the laboratory: places, hosts, lines
console     a program beside the admin server: the operator's API calls, one a line
forward     a port forward into a demilitarised zone, dialled from outside, for the operator in there
programs    commands and programs on hosts, and their logs
fleet       the fleet, by the commands that its owner would type
sessions,   one pair each: how it went
  content
table       the table for people, for programs, and for the documentation
command     the command line, progress, the order of everything
"""
