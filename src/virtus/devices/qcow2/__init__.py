"""Disk images of QEMU's format qcow2, versions 2 and 3. Source: qemu.git docs/interop/qcow2.txt."""
