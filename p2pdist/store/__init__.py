"""The admin server's state: one SQL database, SQLite by default, any that SQLAlchemy reaches by URL.

tables       the schema, as SQLAlchemy tables
records      the rows that leave this room, as frozen types
engines      what databases differ in
sql          what is said in the same way to all of them
fleetstore   :class:`~p2pdist.store.fleetstore.FleetStore`: engine, migrations, transactions
migrations   Alembic revisions, shipped in the package and run on start

Queries are plain functions that take a connection first, one module for each subject::

    groups       the tree of administration groups
    tokens       enrolment tokens and API tokens; only hashes are stored
    devices      enrolled nodes, their certificates, clones and revocation
    deployments  what is ordered, and how far each device is
    content      artifacts, where their bytes came from, and every source that was considered
    inventory    what discovery has seen, and whose it is
    placement    rules that say which group a discovered device belongs into
    incidents    refusals and the audit log
    mailroom     envelope counters and replay windows

A caller runs one or several of them in one transaction::

    device = await store.read(devices.find_device, node)
    await store.write(groups.move_group, old, new)

Invariants: what a method has returned from is on the disk; a transaction is all or nothing; a full disk
raises :class:`~p2pdist.errors.Unavailable` and leaves the database readable. Times are Unix seconds and
come in as arguments.
"""
