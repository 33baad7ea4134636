##! Connections that have ended.

@load base/protocols/conn
@load ./main

module IDSPlugin;

hook Conn::log_policy(rec: Conn::Info, id: Log::ID, filter: Log::Filter)
    &priority=-100
	{
	count_record(id, "conn", filter);
	}

# After zeek-kafka's own filters, which it adds at -10.
event zeek_init() &priority=-20
	{
	written["conn"] = 0;
	send(Conn::LOG, "conn", F);
	}
