# @TEST-DOC: An interval of 0 turns records of open connections off.
# @TEST-EXEC: zeek -C -r $TRACES/long.pcap $SCRIPTS %INPUT
# @TEST-EXEC: test ! -e open_conn.log

redef IDSPlugin::open_interval = 0sec;

@ifdef ( Kafka::mock )
redef Kafka::mock = T;
@endif
