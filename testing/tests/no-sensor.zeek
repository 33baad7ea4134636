# @TEST-DOC: A sensor without a name leaves it out.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS
# @TEST-EXEC: test "$(grep -c '^{"_path":"conn","ts":' conn.log)" -eq 4
