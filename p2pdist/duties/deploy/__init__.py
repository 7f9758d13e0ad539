"""Initial deployment: the agent onto machines that have none, over SSH.

task        the work as a task has it: secrets, the agent's file, what is told; the room's door
installing  drives :mod:`p2pdist.core.installation`
worker      a program of its own, as long as one run: it holds the credentials and the connections
protocol    what the two say to each other, on the worker's standard input and output
login       a connection: the address, the host's key, the credentials, and how to become root
target      the steps on the machine itself, each looked at before it is done
service     the agent as a service, for systemd and for machines without it
knownhosts  files of known hosts, for the command line

What is secret comes to the worker on its standard input and goes to the machine on that of a command: it
never stands in an argument, a log or a file. The worker ends with the run, or with who started it, whatever
happens to them; and with it what it knew. A machine that is left in the middle is as it was, or a step
further: what is not whole is not in place.
"""
