##! What this node wrote and lost: records by log, packets seen and dropped.
##! ids-plugin compares it with what arrived, so that records which zeek-kafka
##! could not send don't go unnoticed.

@load base/frameworks/cluster
@load ./main

module IDSPlugin;

export {
	redef enum Log::ID += { COUNTS_LOG };

	## Time between two records of the same log.
	option count_interval = 1min;

	## What a node wrote of one log in one period.
	type Counts: record {
		## End of the period.
		ts: time &log;
		## The node of a cluster.
		node: string &log;
		## Path of the log.
		stream: string &log;
		## Length of the period.
		period: interval &log;
		## Records written in the period.
		written: count &log;
		## Records written since Zeek started.
		written_total: count &log;
		## Packets that Zeek looked at in the period; not by log.
		packets: count &log;
		## Packets that the kernel had to drop in the period, if it says.
		packets_dropped: count &log &optional;
	};

	## Policy hook of the stream.
	global counts_log_policy: Log::PolicyHook;

	## Raised for each record of the stream.
	global log_ids_counts: event(rec: IDSPlugin::Counts);
}

global last_write_time = double_to_time(0.0);
global last_stats: NetStats;
global last_written: table[string] of count &default=0;

function write_counts()
	{
	local now = network_time();
	local stats = get_net_stats();

	for ( stream, total in written )
		{
		local counts = Counts($ts=now, $node=peer_description, $stream=stream,
		    $period=now - last_write_time,
		    $written=total - last_written[stream], $written_total=total,
		    $packets=stats$pkts_recvd - last_stats$pkts_recvd);

		if ( reading_live_traffic() )
			counts$packets_dropped = stats$pkts_dropped - last_stats$pkts_dropped;

		Log::write(COUNTS_LOG, counts);
		last_written[stream] = total;
		}

	last_write_time = now;
	last_stats = stats;
	}

event IDSPlugin::write_counts_again()
	{
	if ( zeek_is_terminating() )
		return;

	write_counts();
	schedule count_interval { IDSPlugin::write_counts_again() };
	}

# Managers, loggers and proxies see no packets and write no connections.
function is_counting_node(): bool
	{
	return ! Cluster::is_enabled()
	    || Cluster::local_node_type() == Cluster::WORKER;
	}

event network_time_init()
	{
	if ( ! is_counting_node() )
		return;

	last_write_time = network_time();
	last_stats = get_net_stats();
	schedule count_interval { IDSPlugin::write_counts_again() };
	}

# Runs after the events of the last connections, which end before.
event zeek_done() &priority=-10
	{
	if ( is_counting_node() && last_write_time > double_to_time(0.0) )
		write_counts();
	}

event zeek_init() &priority=5
	{
	Log::create_stream(COUNTS_LOG, Log::Stream($columns=Counts, $ev=log_ids_counts,
	    $path="ids_counts", $policy=counts_log_policy));
	}

event zeek_init() &priority=-20
	{
	send(COUNTS_LOG, "ids_counts", T);
	}
