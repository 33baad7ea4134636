# @TEST-DOC: Zeek's own files stay as they are if one wants them so, and are counted all the same.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS IDSPlugin::json_files=F
# @TEST-EXEC: test "$(head -c 10 conn.log)" = "#separator"
# @TEST-EXEC: test "$(grep -vc '^#' conn.log)" -eq 4
# @TEST-EXEC: grep -v '^#' ids_counts.log | awk -F '\t' '$3 == "conn" { written += $5 } END { exit written != 4 }'
