"""What a distribution point does besides seeding: work that the admin server assigns it, where it stands.

Vocabulary: a *duty* is what a signed grant allows a node. A *task* is what an operator makes. A *run* is one
execution of it, numbered from 1. An *assignment* is a run as one node gets it, and its *work* says what is
to be done. An *item* is one thing that the work is about, with what came of it: a host, an artifact.

Life cycle: an assignment stands in the node's desired state until the admin server has its result. The
:class:`~p2pdist.duties.runner.Runner` begins what is assigned, ends what is not any more, tells progress at
most once a second, and repeats items and results until they are confirmed. A run that was begun goes on
without the admin server; after a restart of the node it is begun again. Its first result counts.

Invariants: a node does nothing without the duty in its own verified grant; the admin server, whose word this
is, needs none for itself. A kind of work is imported when it is first done: it costs an idle node nothing.
"""
