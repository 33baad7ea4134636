"""How bad an alert is, and in which order alerts are shown.

**Severity** is that of the class (classes.toml, or the bundle's own), lowered by a step or more
where the detector says that it is less sure (`Findings.doubt`). A group has the severity of its
surest flow so far, so its closing document may stand higher than the one that opened it. Who is
less sure:

- `contacts`: one step where benign traffic shows such a contact more often than once in 10 days
- `counters`: two steps for files by FTP and for a host that does nothing but upload: backups do so

**Risk** (`event.risk_score`) is the place of the score within the band of its severity: low 0–21,
medium 21–47, high 47–73, critical 73–99. Whoever sorts by it sorts by severity, then by the
calibrated score.
"""

from __future__ import annotations

from ids_plugin.schema.alert import SEVERITIES

_LEVELS = tuple(SEVERITIES)
_RISK_DIGITS = 1


def lowered(severity: str, doubt: int) -> str:
    """The severity `doubt` steps below; `low` at the lowest."""
    return _LEVELS[max(0, _LEVELS.index(severity) - doubt)]


def risk(severity: str, score: float) -> float:
    """event.risk_score, 0–99: higher severity first, then the higher score (0–1)."""
    level = _LEVELS.index(severity)
    floor = SEVERITIES[_LEVELS[level - 1]] if level else 0
    return round(floor + (SEVERITIES[severity] - floor) * score, _RISK_DIGITS)
