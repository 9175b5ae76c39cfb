//! The agent of build2's build bot.
//!
//! The loop, in ten lines (`agent`):
//!
//! 1. sweep what a dead predecessor left behind;
//! 2. enumerate the machines, bootstrapping those whose copy for our toolchain
//!    is missing or stale;
//! 3. ask the controllers, in order, for a task;
//! 4. perform it in a throw-away snapshot of the machine;
//! 5. store the result, then upload it;
//! 6. start over, after a pause if there was nothing to do.
//!
//! Layers only point down, and `tests/tidy.rs` holds them to it. Unsafe code is
//! in [`sys`] and nowhere else.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod backoff;
pub mod bootstrap;
pub mod breaker;
pub mod diag;
pub mod error;
pub mod sys;
pub mod watch;

pub mod auth;
pub mod check;
pub mod cli;
pub mod controller;
pub mod guest;
pub mod json;
pub mod licenses;
pub mod lock;
pub mod lz4;
pub mod machine;
pub mod machines;
pub mod manifest;
pub mod network;
pub mod outbox;
pub mod perform;
pub mod program;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod sweep;
pub mod tar;
pub mod tftp;
pub mod units;
pub mod user;
