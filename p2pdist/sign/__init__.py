"""``p2pdist-sign``: the admin signing tool. It needs no server and no network.

Everything that a fleet installs starts here, in a *repository*: a directory with drafts of signed
metadata, the content they name, and key files. The way of a release::

    add ──► draft ──► diff ──► sign (each person, each machine) ──► publish ──► admin server
                        ▲         │
                 export/import ◄──┘  over an air gap

options      what every command takes: the repository, the output, passphrases
groups       how the commands are grouped in the help
keyring      finding keys by name, opening them with passphrases
packages     from a file or a directory to a release: what it is called, how it is installed
ceremony     init, channel, rotate, revoke key
keyfiles     key new, public, list, passphrase
adding       add
deltas       what is made of a new release and an older one
content      list, revoke, rollback, grant
looking      status, diff
signing      sign
drafts       export, import, renew, discard
publishing   publish, verify
main         the program

Wiring only: what a change means and what a signature is worth is decided in :mod:`p2pdist.trust`.
"""
