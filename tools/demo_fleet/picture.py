"""The picture in the README: the table halfway through, and the closing summary, as an SVG."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from demo_fleet.outcome import Outcome, show
from demo_fleet.watch import Progress, draw

_COLUMNS = 108
_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def save_picture(path: Path, progress: Progress, outcome: Outcome) -> None:
    """Draw what the demonstration showed. Fonts are the viewer's own: nothing is loaded from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    states = progress.halfway or progress.states
    console.print(draw(progress, states, "Halfway through", len(progress.devices)))
    console.print()
    show(outcome, console)
    svg = console.export_svg(title="tools/demo", unique_id="demo")
    path.write_text(_FONT_FACE.sub("", svg).replace("Fira Code", "ui-monospace"))
