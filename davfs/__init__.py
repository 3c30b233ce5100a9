"""davfs: mount a WebDAV share as a local drive."""

__version__ = "0.1.0"
