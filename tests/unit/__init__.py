"""Pure modules: no sockets, no files, no clock. Under five seconds together."""
