//! The whole agent on a host in miniature: real btrfs, bridge, taps and guests.

mod auxiliary;
mod brep;
mod by_hand;
mod collections;
mod controllers;
mod disks;
mod failures;
mod faults;
mod firmware;
mod held;
mod instances;
mod interactive;
mod keep_state;
mod machines;
mod patient;
mod priorities;
mod resume;
mod shell;
mod tpm;
pub mod turns;
mod warm;
