"""A model bundle: the models that score together, all that is needed to use them, and proof that
nobody changed it."""

from ids_plugin.bundle.files import (
    FORMAT,
    LARGEST,
    MANIFEST,
    SUFFIX,
    Bundle,
    describe,
    difference,
    find,
    pack,
    read,
    read_key,
    require_place,
    seal,
    shipped,
    sign,
    write,
)
from ids_plugin.bundle.manifest import (
    Combination,
    Judgement,
    Manifest,
    MemberEntry,
    PrefilterEntry,
    TrainingRecord,
)

__all__ = [
    "FORMAT",
    "LARGEST",
    "MANIFEST",
    "SUFFIX",
    "Bundle",
    "Combination",
    "Judgement",
    "Manifest",
    "MemberEntry",
    "PrefilterEntry",
    "TrainingRecord",
    "describe",
    "difference",
    "find",
    "pack",
    "read",
    "read_key",
    "require_place",
    "seal",
    "shipped",
    "sign",
    "write",
]
