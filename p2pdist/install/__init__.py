"""Putting a release on this machine, and taking it back when it does not work.

archive      a directory tree <-> one deterministic ``.tar.zst``
platform     what this machine is, and which releases fit it
processes    one program with a deadline: its exit code and the tail of its output
tree, deb, command, file, agent
             one installer each, all with the same life cycle
trial        what the agent and the guard that starts it agree on, as files
installers   chooses among them; the room's door

Life cycle: :func:`~p2pdist.install.installers.check_installable` before a byte is fetched, then
:func:`~p2pdist.install.installers.install` with an artifact whose hash has just been checked.

What holds for every installer, also when the power goes or ``kill -9`` comes at any instruction:
calling ``install`` again with the same release ends in the same state as one undisturbed call; a
release is never half visible; a failed one leaves the machine as it was before. What cannot be made
so (a command without a ``check``) is not run a second time but reported.
"""
