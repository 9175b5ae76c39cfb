//! The integration tests, in one binary.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr
)]

mod agent;
mod auth;
mod check;
mod cli;
mod controller;
mod delivery;
mod guest;
mod history;
mod hostile;
mod lz4;
mod machine;
mod manifest;
mod network;
mod operations;

mod probe;
mod scenario;
mod snapshot;
mod soak;
mod stopped;

mod support;
mod sweep;
mod tar;
mod tftp;
mod tidy;
mod torture;
mod units;
