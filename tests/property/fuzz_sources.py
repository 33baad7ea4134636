"""Fuzzing the readers by hand: no crash, no hang, every record counted.

`python -m tests.property.fuzz_sources [--records N] [--seed S]` mutates good logs of every kind at
random. `python -m tests.property.fuzz_sources --atheris SECONDS` lets coverage guide the mutations
(needs `atheris`). Prints what was read; exits with 1 and writes the input to `fuzz-failure.bin`
when a reader breaks its promise.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ids_plugin import registry
from ids_plugin.errors import InputError
from ids_plugin.sources import Input
from tests.support.logs import Got, conn, document, eve, jsonl, tsv

MAKERS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "zeek json": ("zeek", lambda n: jsonl(conn(i) for i in range(n))),
    "zeek tagged": ("zeek", lambda n: jsonl({"conn": conn(i), "x": 1} for i in range(n))),
    "zeek in beats": (
        "zeek",
        lambda n: b"".join(jsonl([{"message": jsonl([conn(i)]).decode()}]) for i in range(n)),
    ),
    "zeek tsv": ("zeek", lambda n: tsv(conn(i) for i in range(n))),
    "suricata": ("suricata", lambda n: jsonl(eve(i) for i in range(n))),
    "ecs": ("ecs", lambda n: jsonl(document(i) for i in range(n))),
}
TOKENS = (
    *(
        b'null true false -1 65536 1e999 99999999999999999999 NaN [] {} \\ud800 \\u0000 {"conn": #fields #path'.split(  # noqa: E501
            b" "
        )
    ),
    *(
        b"\t",
        b"\n",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b'"',
        b",",
        b"\n#fields\tts\tuid\n",
        b"\n#separator \\x2c\n",
    ),
)
SLOWEST = 20.0
"""Seconds a reader may take for one input of some 100 kB on a busy machine."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few bytes changed, pieces cut out, repeated or put elsewhere, tokens put in."""
    out = bytearray(data)
    for _ in range(chance.choice((0, 1, 3, 10, 100))):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice((1, 5, 50, 500)))
        kind = chance.randrange(5)
        if kind == 0:
            out[at:end] = chance.randbytes(end - at)
        elif kind == 1:
            del out[at:end]
        elif kind == 2:
            out[at:at] = out[at:end]
        elif kind == 3:
            to = chance.randrange(len(out) + 1)
            out[to:to] = out[at:end]
        else:
            out[at:at] = chance.choice(TOKENS)
    return bytes(out)


def check(data: bytes, kind: str, rows: int) -> Got | None:
    """Reads `data`; None if the source refused it. `Got` checks that the counts balance."""
    source = Input("x", io.BytesIO(data), data[:65536], "default")
    plugin = registry.load("sources", kind)
    assert 0 <= plugin.sniff(source.head) <= 1
    try:
        return Got(plugin.read(source, rows))
    except InputError:
        return None


def at_random(records: int, seed: int) -> Counter[str]:
    """Mutates until at least `records` records were read."""
    chance, seen = random.Random(seed), Counter[str]()
    while seen["records"] < records:
        name = chance.choice(list(MAKERS))
        kind, make = MAKERS[name]
        data = mutated(make(chance.choice((1, 7, 60, 300))), chance)
        begun = time.perf_counter()
        got = guarded(
            data,
            chance.choice((kind, kind, kind, *{kind for kind, _ in MAKERS.values()})),
            chance.choice((1, 8192)),
        )
        assert time.perf_counter() - begun < SLOWEST
        seen["inputs"] += 1
        if got is None:
            seen["refused"] += 1
            continue
        seen["flows"] += got.flows.height
        seen["rejects"] += len(got.rejects)
        seen["out of scope"] += got.out_of_scope.total()
        seen["records"] += sum(step.read for step in got.steps)
    return seen


def guarded(data: bytes, kind: str, rows: int) -> Got | None:
    """`check`, keeping the input that breaks it."""
    try:
        return check(data, kind, rows)
    except BaseException:
        Path("fuzz-failure.bin").write_bytes(data)
        print(f"broken by fuzz-failure.bin as {kind} in steps of {rows}", file=sys.stderr)
        raise


def guided(seconds: int) -> None:
    """Lets atheris choose the bytes."""
    import atheris

    kinds = sorted({kind for kind, _ in MAKERS.values()})

    def one(data: bytes) -> None:
        if data:
            guarded(data[1:], kinds[data[0] % len(kinds)], 8192)

    for module in ("_ndjson", "_lines", "_draft", "_zeek_tsv", "zeek", "suricata", "ecs"):
        for function in vars(sys.modules[f"ids_plugin.sources.{module}"]).values():
            if (
                callable(function)
                and getattr(function, "__module__", "").endswith(module)
                and hasattr(function, "__code__")
            ):
                atheris.instrument_func(function)
    corpus = Path("fuzz-corpus")
    corpus.mkdir(exist_ok=True)
    for name, (kind, make) in MAKERS.items():
        (corpus / name.replace(" ", "-")).write_bytes(bytes([kinds.index(kind)]) + make(3))
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", str(corpus)],
        one,
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", type=int, metavar="SECONDS")
    arguments = parser.parse_args()
    registry.load_all("sources")
    if arguments.atheris:
        guided(arguments.atheris)
        return
    begun = time.perf_counter()
    seen = at_random(arguments.records, arguments.seed)
    print({**seen, "seconds": round(time.perf_counter() - begun, 1)})


if __name__ == "__main__":
    main()
