//! Network interfaces by ioctl.
