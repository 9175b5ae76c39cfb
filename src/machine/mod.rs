//! A virtual machine under QEMU.
