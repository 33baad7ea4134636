"""Learned network intrusion detection for Zeek and Suricata pipelines that says why.

    import ids_plugin

    result = ids_plugin.scan("capture.pcap")
    print(result.alerts)

What `__all__` lists is the public interface; every other module may change between versions.
Nothing heavy is loaded before a name is used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# ONNX Runtime's Linux wheels report to their maker unless this is set before they are loaded
# (https://github.com/microsoft/onnxruntime/pull/27379): what looks at people's traffic talks to
# nobody by itself.

if TYPE_CHECKING:
    from ids_plugin.alerts import AllowList
    from ids_plugin.api import (
        InputOptions,
        RunningScan,
        ScanBatch,
        ScanResult,
        calibrate,
        compress,
        evaluate,
        iter_scan,
        load_allow_list,
        load_bundle,
        read_flows,
        scan,
        train,
    )
    from ids_plugin.bundle import Bundle
    from ids_plugin.errors import (
        BundleError,
        ConfigError,
        DialectError,
        IdsPluginError,
        InputError,
        LedgerError,
        MissingExtraError,
        ServiceError,
        UsageError,
    )
    from ids_plugin.pipeline import Pipeline
    from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
    from ids_plugin.schema.flow import SCHEMA as FLOW_SCHEMA
    from ids_plugin.schema.ledger import Ledger
    from ids_plugin.schema.reject import Reject
    from ids_plugin.schema.score import CLASSES, Scores
    from ids_plugin.sources import ReadOptions

_HOMES = {
    "ids_plugin.alerts": ("AllowList",),
    "ids_plugin.api": (
        "InputOptions",
        "RunningScan",
        "ScanBatch",
        "ScanResult",
        "calibrate",
        "compress",
        "evaluate",
        "iter_scan",
        "load_allow_list",
        "load_bundle",
        "read_flows",
        "scan",
        "train",
    ),
    "ids_plugin.bundle": ("Bundle",),
    "ids_plugin.errors": (
        "BundleError",
        "ConfigError",
        "DialectError",
        "IdsPluginError",
        "InputError",
        "LedgerError",
        "MissingExtraError",
        "ServiceError",
        "UsageError",
    ),
    "ids_plugin.pipeline": ("Pipeline",),
    "ids_plugin.schema.evidence": ("Evidence", "EvidenceFeature", "EvidenceFlow"),
    "ids_plugin.schema.flow": ("FLOW_SCHEMA",),
    "ids_plugin.schema.ledger": ("Ledger",),
    "ids_plugin.schema.reject": ("Reject",),
    "ids_plugin.schema.score": ("CLASSES", "Scores"),
    "ids_plugin.sources": ("ReadOptions",),
}
"""module → the public names it defines, loaded at their first use"""
_RENAMED = {"FLOW_SCHEMA": "SCHEMA"}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CLASSES",
    "FLOW_SCHEMA",
    "AllowList",
    "Bundle",
    "BundleError",
    "ConfigError",
    "DialectError",
    "Evidence",
    "EvidenceFeature",
    "EvidenceFlow",
    "IdsPluginError",
    "InputError",
    "InputOptions",
    "Ledger",
    "LedgerError",
    "MissingExtraError",
    "Pipeline",
    "ReadOptions",
    "Reject",
    "RunningScan",
    "ScanBatch",
    "ScanResult",
    "Scores",
    "ServiceError",
    "UsageError",
    "calibrate",
    "compress",
    "evaluate",
    "iter_scan",
    "load_allow_list",
    "load_bundle",
    "read_flows",
    "scan",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), _RENAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
