# @TEST-DOC: With zeek-kafka our streams go to the topic that is configured, and Zeek's own files stay.
# @TEST-REQUIRES: zeek -N | grep -q Seiso::Kafka
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS %INPUT > output
# @TEST-EXEC: test "$(grep '^topic' output | sort -u)" = "topic, flows"
# @TEST-EXEC: test "$(head -c 10 conn.log)" = "#separator"

redef Kafka::mock = T;
redef IDSPlugin::kafka_topic = "flows";
redef IDSPlugin::open_interval = 300sec;

event kafka_topic_resolved_event(topic: string)
	{
	print "topic", topic;
	}
