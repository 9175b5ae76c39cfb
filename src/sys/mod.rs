//! System calls behind safe functions: the only unsafe code of the program.
//!
//! Functions take `BorrowedFd` and return `io::Result` with the bare `errno`;
//! the caller knows the noun and adds it. Nothing here prints, allocates
//! without need, or reads a clock.

#![allow(unsafe_code)]

pub mod btrfs;
pub mod cgroup;
pub mod extents;
pub mod file;
pub mod flock;
pub mod inbox;
pub mod net;
pub mod netlink;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod signal;
pub mod start;
pub mod tap;
pub mod terminal;
pub mod tree;
pub mod udp;
pub mod unix;
