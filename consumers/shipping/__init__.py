"""What `ship` needs: log files followed through rotation, an index followed as it grows, and their offsets."""
