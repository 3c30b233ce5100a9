"""The wire layer: pure parsers against captured answers, the client against scripts and a real server."""
