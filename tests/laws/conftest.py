"""Lets the laws import their helper by its name, as pytest's importlib mode wants it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
