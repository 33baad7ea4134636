"""What `ship` follows: log files and Elasticsearch indices, and how far each has been sent."""
