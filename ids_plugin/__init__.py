"""Learned network intrusion detection for Zeek and Suricata pipelines that says why."""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# ONNX Runtime's Linux wheels report to their maker unless this is set before they are loaded
# (https://github.com/microsoft/onnxruntime/pull/27379): what looks at people's traffic talks to nobody by itself.
