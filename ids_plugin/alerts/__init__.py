"""Alerts: Scores + Evidence + policy → alert groups → alert documents. Event time only; no I/O.

```python
grouper = AlertGrouper(sensor, BundleFacts(id, family, version), allow_list)
for flows, scores in batches:
    plan = grouper.plan(flows, scores)
    outcome = grouper.commit(plan, {row: explain(row) for row in plan.rows.tolist()})
outcome = grouper.finish()
```
"""

from ids_plugin.alerts.allow_list import AllowList, Entry, parse, read_allow_list
from ids_plugin.alerts.document import BundleFacts
from ids_plugin.alerts.grouping import AlertGrouper, Outcome, Plan

__all__ = [
    "AlertGrouper",
    "AllowList",
    "BundleFacts",
    "Entry",
    "Outcome",
    "Plan",
    "parse",
    "read_allow_list",
]
