# @TEST-DOC: A stream that zeek-kafka already sends isn't sent a second time; its records are counted.
# @TEST-REQUIRES: zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS %INPUT > output
# @TEST-EXEC: grep -q '^conn kafka-Conn::LOG$' output
# @TEST-EXEC: grep -q '^open_conn ids_plugin$' output
# @TEST-EXEC: grep -q '^written 4$' output

@load Seiso/Kafka

redef Kafka::mock = T;
redef Kafka::logs_to_send = set(Conn::LOG, IDSPlugin::OPEN_LOG);

function kafka_filters(id: Log::ID): string
	{
	local found = "";

	for ( name in Log::get_filter_names(id) )
		if ( Log::get_filter(id, name)$writer == Log::WRITER_KAFKAWRITER )
			found += name;

	return found;
	}

event zeek_init() &priority=-100
	{
	print fmt("conn %s", kafka_filters(Conn::LOG));
	print fmt("open_conn %s", kafka_filters(IDSPlugin::OPEN_LOG));
	}

event zeek_done()
	{
	print fmt("written %d", IDSPlugin::written["conn"]);
	}
