# @TEST-DOC: A connection of 1,000 s is told of at 300, 600 and 900 s; a shorter one never, nor one that only took over
# @TEST-DOC: the addresses and ports of another. What conn.log says in the end is what it says without us.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS IDSPlugin::open_interval=300sec
# @TEST-EXEC: test "$(grep -c '^{"_path":"open_conn","ts":1700000000' open_conn.log)" -eq 3
# @TEST-EXEC: test "$(grep -c '"id.orig_p":40000,.*"conn_state":"S1"' open_conn.log)" -eq 3
# @TEST-EXEC: test "$(grep -o '"uid":"[^"]*"' open_conn.log | sort -u | wc -l)" -eq 1
# @TEST-EXEC: grep -q "$(grep -o '"uid":"[^"]*"' open_conn.log | head -1)" conn.log
# @TEST-EXEC: grep -o '"id.orig_h".*' conn.log | sed 's/,"community_id[^,}]*//' | sort > with
# @TEST-EXEC: rm conn.log
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap LogAscii::use_json=T
# @TEST-EXEC: grep -o '"id.orig_h".*' conn.log | sort > without
# @TEST-EXEC: cmp with without
