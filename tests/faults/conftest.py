"""The faults tier uses the fixtures of the mount tier."""

from tests.mount.conftest import (
    kernel,
    kernel_apache,
    mount_of,
    shared_mounts,
)

__all__ = ["kernel", "kernel_apache", "mount_of", "shared_mounts"]
