"""Alembic's environment and the schema's revisions, run by :mod:`p2pdist.store.fleetstore` on start."""
