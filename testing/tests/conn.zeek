# @TEST-DOC: Without zeek-kafka conn.log is JSON that says what it is, with community ids.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS %INPUT
# @TEST-EXEC: test "$(grep -c '^{"_path":"conn","_system_name":"edge","ts":' conn.log)" -eq 4
# @TEST-EXEC: test "$(grep -c '"community_id":"1:' conn.log)" -eq 4

redef IDSPlugin::sensor = "edge";
