@load ./main
@load ./conn
@load ./open_conn
@load ./ids_counts
@load ./community_id
