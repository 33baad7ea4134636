"""Capture files → packets as columns: framing, link layers, tunnels, IP reassembly, checksums."""
