"""One contract suite against every real server that can be started here."""
