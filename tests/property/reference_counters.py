"""Named counters written for reading: every number is counted from the start."""

from __future__ import annotations

from ids_plugin.windows.named_counters import SECOND_US, Counter, CounterFacts

Key = tuple[int, ...]


def count(counter: Counter, facts: CounterFacts, horizon_s: int, visible: int) -> list[int]:
    """What the counter reads at every flow."""
    keys = _joined(facts, counter.key)
    read = _joined(facts, counter.read) if counter.read else keys
    events = _events(counter, facts, keys)
    clock = facts.clock.tolist()
    numbers = []
    for row in range(len(clock)):
        past = [event for event in events if event <= row][-visible:]
        near = [event for event in past if clock[row] - clock[event] < horizon_s * SECOND_US]
        own = [event for event in near if keys[event] == read[row]]
        numbers.append(sum(_latest(counter, facts, own).values()))
    return numbers


def _events(counter: Counter, facts: CounterFacts, keys: list[Key]) -> list[int]:
    """Rows that count, and later records of growing connections where every flow counts."""
    rows = range(len(keys))
    replaces = facts.masks.get("replaces")
    return [
        row
        for row in rows
        if facts.masks[counter.where][row]
        or (not counter.thing and replaces is not None and replaces[row])
    ]


def _latest(counter: Counter, facts: CounterFacts, events: list[int]) -> dict[Key, int]:
    """What the latest event of each thing adds."""
    amounts: dict[Key, int] = {}
    growing = facts.masks.get("growing")
    for event in events:
        if counter.thing:
            thing: Key = tuple(int(facts.keys[name][event]) for name in counter.thing)
        elif growing is not None and growing[event]:
            thing = (int(facts.keys["connection"][event]),)
        else:
            thing = (event, -1)
        amount = int(facts.values[counter.value][event]) if counter.value else 1
        amounts[thing] = amount if facts.masks[counter.where][event] else 0
    return amounts


def _joined(facts: CounterFacts, names: tuple[str, ...]) -> list[Key]:
    return list(zip(*(facts.keys[name].tolist() for name in names), strict=True))
