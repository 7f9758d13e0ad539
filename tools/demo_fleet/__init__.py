"""tools/demo: a whole fleet on this machine, on loopback addresses or in a laboratory of networks.

The demonstration is what an operator would do, done by a script: the key ceremony with
``p2pdist-sign``, an admin server, a distribution point per site, devices, a publication, a deployment,
and then four attacks; in a laboratory also what its distribution points do for networks that the admin
server does not see. Every program is a process of its own with its own keys and its own directory
below one temporary directory. Nothing here reaches into a program: what the demonstration knows it has
from their standard output, their log files and the admin server's HTTP API.

=============  =====================================================================================
``options``    the command line
``network``    the machines on which everything runs: all that differs between the next two
``loopback``   loopback addresses
``lab``        a laboratory of networks, with real NAT and a DMZ
``plan``       which node has which machine, directory and configuration file
``agentfile``  the agent as one file
``payload``    the software that is distributed
``programs``   starting, watching and ending processes
``fleet``      the operator's steps, from the ceremony to the deployment
``api``        the admin server's API, as far as it is looked at
``door``       the way into the operator's network, where it is another one than this machine's
``watch``      what the server says while a deployment runs, as a live table
``paths``      how each device is connected
``duties``     what points do besides seeding: the steps, and what they take
``polls``      polls of hidden networks
``newcomers``  machines without an agent: deployed to, resting, woken
``vendor``     a vendor's mirror
``runs``       tasks of nodes, watched until they have ended
``attacks``    the four attacks, each with its legitimate part first
``usurper``    an admin server that has been taken over
``stranger``   a BitTorrent client with a certificate of its own
``steps``      which step comes, and how much time has gone by
``outcome``    what is printed at the end
=============  =====================================================================================
"""
