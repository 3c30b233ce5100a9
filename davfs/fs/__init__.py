"""What a mounted share is: inodes, attributes, contents, write-back. Knows neither FUSE nor HTTP."""
