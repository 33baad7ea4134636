##! Sends what ids-plugin reads of Zeek: to Kafka where the zeek-kafka plugin is
##! loaded, else into JSON files that are rotated and that
##! ``ids-consumer ship`` follows.
##!
##! Each record says which log it is of (``_path``) and, if configured, which
##! sensor wrote it (``_system_name``), so that all logs can share one topic.

module IDSPlugin;

export {
	## Name of this sensor, the same on all nodes of a cluster. Empty: records
	## carry no name, and ids-plugin's configuration maps their topic to one.
	const sensor = "" &redef;

	## Kafka topic of this package's streams. Empty: ``Kafka::topic_name``.
	const kafka_topic = "" &redef;

	## Without zeek-kafka: whether this package's streams are written as JSON, in
	## place of Zeek's own files of the same name.
	const json_files = T &redef;

	## How often these files are rotated while reading live traffic, unless
	## :zeek:see:`Log::default_rotation_interval` says otherwise.
	const rotation_interval = 1hr &redef;

	## Name of this package's log filters.
	const filter_name = "ids_plugin" &redef;

	## Fields put before a record's own, each with a leading underscore.
	type Extension: record {
		## The log's path.
		path: string &log;
		## The sensor's name.
		system_name: string &log &optional;
	};

	## Records written since Zeek started, by the path of their log.
	global written: table[string] of count &default=0;

	## Sends a stream to Kafka, or writes it as JSON.
	##
	## id: The stream.
	##
	## path: Its path.
	##
	## ours: Whether this package defines the stream. Filters of others that
	##       send such a stream to Kafka are replaced by this package's filter.
	##       Other streams keep their filters and are not sent a second time.
	global send: function(id: Log::ID, path: string, ours: bool);

	## Counts a record. A stream's policy hook calls it after all other hooks,
	## which may veto the record.
	##
	## id: The stream.
	##
	## path: Its path.
	##
	## filter: The filter that the record is about to pass.
	global count_record: function(id: Log::ID, path: string, filter: Log::Filter);
}

# Stream -> the filter by which its records are counted.
global counted: table[Log::ID] of string &default="";

function extension(path: string): Extension
	{
	if ( sensor == "" )
		return Extension($path=path);

	return Extension($path=path, $system_name=sensor);
	}

@ifdef ( Log::WRITER_KAFKAWRITER )

function send(id: Log::ID, path: string, ours: bool)
	{
	local others: set[string] = set();

	for ( name in Log::get_filter_names(id) )
		if ( Log::get_filter(id, name)$writer == Log::WRITER_KAFKAWRITER )
			add others[name];

	for ( other in others )
		{
		if ( ! ours )
			{
			counted[id] = other;
			return;
			}

		Log::remove_filter(id, other);
		}

	local filter = Log::Filter($name=filter_name, $path=path, $ext_func=extension,
	    $writer=Log::WRITER_KAFKAWRITER);

	if ( kafka_topic != "" )
		filter$config = table(["topic_name"] = kafka_topic);

	counted[id] = filter_name;
	Log::add_filter(id, filter);
	}

@else

function send(id: Log::ID, path: string, ours: bool)
	{
	if ( ! json_files )
		{
		counted[id] = "default";
		return;
		}

	local filter = Log::Filter($name=filter_name, $path=path, $ext_func=extension,
	    $writer=Log::WRITER_ASCII, $config=table(["use_json"] = "T"));

	if ( filter$interv == 0sec && ! reading_traces() )
		filter$interv = rotation_interval;

	Log::remove_default_filter(id);
	counted[id] = filter_name;
	Log::add_filter(id, filter);
	}

@endif

function count_record(id: Log::ID, path: string, filter: Log::Filter)
	{
	if ( filter$name == counted[id] )
		written[path] += 1;
	}
