"""Files and folders on any fsspec URL: access, URL rules, shards, commit records."""
