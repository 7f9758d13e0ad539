"""What holds for every test: how long hypothesis may look for examples.

No example is timed: how long one takes depends on what else this machine does.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15, database=None)
settings.load_profile("whole")
