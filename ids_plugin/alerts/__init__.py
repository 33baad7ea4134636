"""Alerts: Scores + Evidence + policy → folds → alert documents. Event time only; no I/O.

```python
folder = Folder(sensor, BundleFacts(id, family, version), allow_list)
for flows, scores in batches:
    plan = folder.plan(flows, scores)
    outcome = folder.commit(plan, {row: explain(row) for row in plan.rows.tolist()})
outcome = folder.finish()
```
"""

from ids_plugin.alerts.allow_list import AllowList, Entry, parse, read_allow_list
from ids_plugin.alerts.document import BundleFacts
from ids_plugin.alerts.grouping import Folder, Outcome, Plan

__all__ = [
    "AllowList",
    "BundleFacts",
    "Entry",
    "Folder",
    "Outcome",
    "Plan",
    "parse",
    "read_allow_list",
]
