"""The sentences of SEMANTICS.md, through Filesystem and through a real mount."""
