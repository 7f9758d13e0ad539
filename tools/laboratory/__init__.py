"""Networks with real NAT on one machine, out of Linux namespaces, as root or without.

::

    server --- core --- place: router (NAT, firewall) --- host, host
    (two IPv4      \\--- place: carrier's NAT --- home's NAT --- host
     addresses,     \\-- place: switch --- host with a public address
     IPv6)

The *core* is the internet: it routes between the public addresses, and loses or stops packets where a test
wants it. A *place* is a network of one *kind* with hosts in it. ::

    with Laboratory() as laboratory:
        office = laboratory.add("symmetric", hosts=2)
        branch = laboratory.add("port-restricted")
        subprocess.run(office.hosts[0].command("my-program", "--server", laboratory.server.ipv4[0]))
        branch.partition(); branch.heal(); branch.rebind(); branch.lose(5)

kinds        what kinds of places there are: how each is built, and what it claims to do in RFC 4787's words
namespaces   namespaces that end with their builder, however that ends
rules        NAT and firewalls as nftables' rules: text only
places       a place out of namespaces, links and rules
core, line   the internet with its weather and rates; a program that makes a link long
network      the core, the server and their places: the entrance to all of this
responder,   two small programs with plain sockets: one on the server, one in a host; they find out what
  probe        the network between them does
measure      runs them, and compares what they found with what a kind claims
theory       which pairs of places can have a direct path: pure, from the claims alone

Invariants: nothing here imports the product; nothing touches the machine's own network; when the builder is
gone, so is everything in its network, programs too. Private addresses are the same in every home, as they
are outside. Public addresses are ones that no rule takes for private, each place's of a network of its own
(26.0.0.0/16 answers to nobody on the real internet, 2d00::/16 is unassigned).
"""
