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
    ("iotid20", "random_forest"): "92.8 / .918",
    ("iotid20", "svm_rbf"): "91.3 / .902",
    ("iotid20", "cnn"): "96.9 / .964",
    ("iotid20", "lstm"): "96.5 / .960",
    ("iotid20", "cnn_lstm"): "97.9 / .974",
    ("cicids2017", "l_tcn"): "98.92 / .988",
    ("cicids2017", "lstm"): "98.60 / .982",
}
"""(section, family) → accuracy in % and F1 on the complete set of that name"""

COST = {
    "cnn_lstm": "4.8 MB → 1.4 MB, 12.4 → 5.2 ms/flow (Pi 4), 61 → 24 MB",
    "l_tcn": "8.8 MB → 3.5 MB, 24.5 → 12.8 ms per 1,000 flows",
    "ae_lstm": "75 ms",
}
"""family → uncompressed and compressed, as its authors measured"""
