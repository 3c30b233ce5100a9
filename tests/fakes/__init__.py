"""Verified fakes: real behaviour in memory, held to the same checks as the real servers."""
