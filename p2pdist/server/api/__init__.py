"""The admin server's HTTP API: Starlette on anycorn, HTTPS only, JSON under ``/api/v1``.

table     what a route is: path, body, answer, who may use it
routes    every route, in one table
app       the Starlette application made from the table: tokens, bodies, problems
openapi   the OpenAPI 3.1 description made from the same table
listener  TLS with a certificate of the fleet's CA, and anycorn
context   what handlers work with, and the rows of several of them
fleet, content, rollout, overview
          the handlers, by subject

Invariants: nothing but ``/health`` and ``/openapi.json`` answers without a token; what changes something
writes the audit log in the same transaction; every error is a problem document with a next step.
"""
