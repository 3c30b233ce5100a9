"""What the wire says: WebDAV as a typed client. Knows nothing of inodes, caches or the kernel."""
