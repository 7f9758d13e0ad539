"""Alembic's entry point. The connection, with its transaction, comes from the caller."""

from __future__ import annotations

from alembic import context

from p2pdist.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
