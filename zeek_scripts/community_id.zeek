##! The community id of connections, by which other tools know them.

@load policy/protocols/conn/community-id-logging
