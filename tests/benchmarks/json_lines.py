"""JSON lines that benchmarks print, one per figure."""

import json
import platform
from pathlib import Path


def print_line(
    bench: str,
    metric: str,
    value: float,
    unit: str,
    *,
    peer: str = "",
    peer_value: float | None = None,
    **facts: object,
) -> None:
    """Print one JSON line. `ratio` is above 1 where ours is better: the higher rate, or the lower cost."""
    line = {
        "bench": bench,
        "metric": metric,
        "value": rounded(value),
        "unit": unit,
        "peer": peer,
        "peer_value": rounded(peer_value) if peer_value is not None else None,
        "ratio": round(_advantage(value, peer_value, unit), 2) if peer_value else None,
        "machine": machine(),
    }
    print(json.dumps({**line, **facts}), flush=True)


def machine() -> str:
    """Describe this machine: architecture, processor and cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()}, {names[0] if names else 'unknown CPU'}, {len(names) or '?'} cores"


def rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def _advantage(value: float, peer_value: float, unit: str) -> float:
    return value / peer_value if unit.endswith("/s") else peer_value / value
