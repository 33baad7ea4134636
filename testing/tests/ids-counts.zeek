# @TEST-DOC: The counts of all periods add up to the records that are there.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS IDSPlugin::open_interval=300sec IDSPlugin::count_interval=100sec
# @TEST-EXEC: sum() { grep "\"stream\":\"$1\"" ids_counts.log | grep -o '"written":[0-9]*' | awk -F : '{ sum += $2 } END { print sum }'; }; test "$(sum conn) $(sum open_conn)" = "4 3"
# @TEST-EXEC: test "$(grep -c '"stream":"conn"' ids_counts.log)" -ge 9
# @TEST-EXEC: grep -q '"written_total":4,' ids_counts.log
