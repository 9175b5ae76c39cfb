//! btrfs subvolumes by ioctl.
