"""The page over HTTP: files, one stream of changes for all browsers, and answers about single findings."""
