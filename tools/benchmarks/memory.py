"""What memory connections cost: the process's own, and the kernel's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Memory:
    """In bytes. ``kernel`` is all of the machine's kernel objects and TCP buffers."""

    rss: int
    pss: int
    kernel: int

    def per(self, count: int, before: Memory) -> dict[str, int]:
        """Return what each of *count* connections has added."""
        return {
            "rss": round((self.rss - before.rss) / count),
            "pss": round((self.pss - before.pss) / count),
            "kernel_both_ends": round((self.kernel - before.kernel) / count),
        }


def memory_of(*pids: int) -> Memory:
    """Read what processes have resident now."""
    rss = pss = 0
    for pid in pids:
        fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
        rss += fields["Rss"]
        pss += fields["Pss"]
    machine = _fields(Path("/proc/meminfo").read_text())
    pages = int(Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split("\n")[0].split()[-1])
    return Memory(rss=rss, pss=pss, kernel=machine["Slab"] + pages * 4096)


def _fields(text: str) -> dict[str, int]:
    """Read lines like ``Rss: 12 kB``, in bytes."""
    fields = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            fields[name] = int(words[0]) * 1024
    return fields
