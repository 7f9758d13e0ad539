"""What the one file runs: the agent, as its entry point does."""

from __future__ import annotations

import os

from p2pdist.agent.main import main
from p2pdist.node.supervisor import answer_for_parent

# The file has unpacked libraries of its own, and points the loader at them: programs of this machine that the
# agent runs (dpkg, journalctl) have to find the machine's.
before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
if before is None:
    os.environ.pop("LD_LIBRARY_PATH", None)
else:
    os.environ["LD_LIBRARY_PATH"] = before

answer_for_parent()
main()
