# @TEST-DOC: What a policy hook keeps out of the log is not counted as written.
# @TEST-REQUIRES: ! zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS %INPUT
# @TEST-EXEC: test "$(wc -l < conn.log)" -eq 3
# @TEST-EXEC: tail -2 ids_counts.log | grep '"stream":"conn"' | grep -q '"written_total":3,'

hook Conn::log_policy(rec: Conn::Info, id: Log::ID, filter: Log::Filter)
	{
	if ( rec$proto == udp )
		break;
	}
