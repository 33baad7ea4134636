# @TEST-DOC: JSON files are rotated, and nothing is lost between them.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS Log::default_rotation_interval=3min
# @TEST-EXEC: test "$(ls conn.2*.log | wc -l)" -ge 2
# @TEST-EXEC: test "$(cat conn.2*.log | grep -c '^{"_path":"conn"')" -eq 4
