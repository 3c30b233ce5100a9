"""The tools tier uses the fixtures of the mount tier."""

from tests.mount.conftest import (
    kernel,
    kernel_apache,
    mount_of,
    pytest_configure,
    shared_mounts,
)

__all__ = ["kernel", "kernel_apache", "mount_of", "pytest_configure", "shared_mounts"]
