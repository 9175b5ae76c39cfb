//! Tap devices and bridge ports by ioctl.
