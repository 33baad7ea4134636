"""The figures that the families' authors give, for the column beside ours."""

from __future__ import annotations

OWN = {
    "cnn_lstm": "F1 .982 TON_IoT, .974 IoTID20",
    "random_forest": "F1 .931 TON_IoT, .918 IoTID20",
    "svm_rbf": "F1 .914 TON_IoT, .902 IoTID20",
    "cnn": "F1 .973 TON_IoT, .964 IoTID20",
    "lstm": "F1 .969 TON_IoT, .960 IoTID20",
    "l_tcn": "F1 .988 CICIDS2017, .994 BoT-IoT",
    "anomaly_net": "F1 normal .955, attack .984",
    "ae_lstm": "F1 .960, FPR 1.9 %",
}
"""family → on the data its authors had, rows at random"""

ON = {
    ("iotid20", "random_forest"): (0.928, 0.918),
    ("iotid20", "svm_rbf"): (0.913, 0.902),
    ("iotid20", "cnn"): (0.969, 0.964),
    ("iotid20", "lstm"): (0.965, 0.960),
    ("iotid20", "cnn_lstm"): (0.979, 0.974),
    ("cicids2017", "l_tcn"): (0.9892, 0.9875),
    ("cicids2017", "lstm"): (0.9860, 0.9818),
}
"""(section, family) → accuracy and F1 on the complete set of that name"""

COST = {
    "cnn_lstm": "4.8 MB → 1.4 MB, 12.4 → 5.2 ms/flow (Pi 4), 61 → 24 MB",
    "l_tcn": "8.8 MB → 3.5 MB, 24.5 → 12.8 ms per 1,000 flows",
    "ae_lstm": "75 ms",
}
"""family → uncompressed and compressed, as its authors measured"""
