"""Broken wires, broken servers, killed daemons."""
