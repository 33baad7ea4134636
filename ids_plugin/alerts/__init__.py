"""Alerts: Scores + Evidence + policy → folds → alert documents. Event time only; no I/O.

```python
folder = Folder(sensor, BundleFacts(id, family, version), allow_list)
for flows, scores in batches:
    plan = folder.plan(flows, scores)
    outcome = folder.commit(plan, {row: explain(row) for row in plan.rows.tolist()})
outcome = folder.finish()
```
"""

from ids_plugin.alerts._allow import AllowList, Entry, parse
from ids_plugin.alerts._document import BundleFacts
from ids_plugin.alerts._folds import Folder, Outcome, Plan

__all__ = ["AllowList", "BundleFacts", "Entry", "Folder", "Outcome", "Plan", "parse"]
