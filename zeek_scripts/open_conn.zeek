##! Connections that have not ended, written repeatedly while they last: conn.log
##! has them only after their end. A record is what conn.log would have if the
##! connection ended now; a later record of a uid replaces the earlier ones.

@load base/protocols/conn
@load ./main

module Conn;

export {
	## The record that conn.log would have of a connection if it ended now.
	##
	## c: The connection; it is not changed.
	##
	## Returns: The record.
	global ids_plugin_so_far: function(c: connection): Conn::Info;
}

function ids_plugin_so_far(c: connection): Conn::Info
	{
	if ( ! c?$conn )
		set_conn(c, F);

	local kept = c$conn;
	c$conn = copy(kept);
	set_conn(c, T);
	local so_far = c$conn;
	c$conn = kept;
	return so_far;
	}

module IDSPlugin;

export {
	redef enum Log::ID += { OPEN_LOG };

	## A connection that lasts longer is written, and written again after each
	## further interval. 0: never.
	option open_interval = 5min;

	## Policy hook of the stream.
	global open_log_policy: Log::PolicyHook;

	## Raised for each record of the stream.
	global log_open_conn: event(rec: Conn::Info);
}

event IDSPlugin::still_open(uid: string, id: conn_id)
	{
	if ( zeek_is_terminating() || ! connection_exists(id) )
		return;

	local c = lookup_connection(id);

	# Another connection may use the same addresses and ports by now.
	if ( c$uid != uid )
		return;

	Log::write(OPEN_LOG, Conn::ids_plugin_so_far(c));

	if ( open_interval > 0sec )
		schedule open_interval { IDSPlugin::still_open(uid, id) };
	}

event new_connection(c: connection) &priority=-5
	{
	if ( open_interval > 0sec )
		schedule open_interval { IDSPlugin::still_open(c$uid, c$id) };
	}

hook open_log_policy(rec: Conn::Info, id: Log::ID, filter: Log::Filter)
    &priority=-100
	{
	count_record(id, "open_conn", filter);
	}

event zeek_init() &priority=5
	{
	Log::create_stream(OPEN_LOG, Log::Stream($columns=Conn::Info,
	    $ev=log_open_conn, $path="open_conn", $policy=open_log_policy));
	}

event zeek_init() &priority=-20
	{
	written["open_conn"] = 0;
	send(OPEN_LOG, "open_conn", T);
	}
