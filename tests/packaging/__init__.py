"""Installing davfs: the Debian package, scripts/install and scripts/uninstall, on a root of their own."""
