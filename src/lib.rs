//! The agent of build2's build bot.
//!
//! One process, one thread, one loop ([`agent`]). A turn of the loop
//!
//! 1. removes what a killed agent left behind;
//! 2. lists the machines and bootstraps those without a current copy;
//! 3. asks the controllers for a task;
//! 4. builds it in a scratch snapshot of the machine;
//! 5. stores the result and sends it;
//! 6. waits, if there was nothing to do.
//!
//! # Map
//!
//! A module names only modules of lower layers (`tests/tidy.rs` reads this table).
//!
//! | layer | module | purpose |
//! |---|---|---|
//! | 0 | [`backoff`] | pauses that double after failures |
//! | 0 | [`error`] | errors: operation, cause, remedies, exit status |
//! | 0 | [`json`] | JSON reader and writer |
//! | 0 | [`licenses`] | licenses of the linked crates |
//! | 0 | [`manifest`] | the manifest format and its types; pure |
//! | 0 | [`platform`] | what follows from the architecture of a guest |
//! | 0 | [`priority`] | priorities of controllers, `[F]DCBA`; pure |
//! | 0 | [`settings`] | choices of the operator that several modules share |
//! | 0 | [`sys`] | system calls; all unsafe code |
//! | 0 | [`units`] | systemd units |
//! | 1 | [`breaker`] | stops requests for work after failures of the host in a row |
//! | 1 | [`cli`] | options: one table for parser, help, manual and completions |
//! | 1 | [`diag`] | diagnostics of levels 0 to 6, and the progress line |
//! | 1 | [`durable`] | files that survive a power cut |
//! | 1 | [`lock`] | the lock of an agent on its run directory |
//! | 1 | [`lz4`] | decoder of compressed results |
//! | 1 | [`tar`] | list of an archive of artifacts |
//! | 1 | [`user`] | the user of QEMU (`--vm-user`) |
//! | 2 | [`cgroup`] | cgroups of guests, where one is delegated |
//! | 2 | [`control`] | requests among agents to pause or interrupt a task |
//! | 2 | [`evidence`] | what is kept of failed guests |
//! | 2 | [`interactive`] | the display of the guests of interactive builds |
//! | 2 | [`network`] | bridge, taps, and the redirect of the guests' requests |
//! | 2 | [`snapshot`] | btrfs subvolumes and scratch snapshots |
//! | 2 | [`status`] | the agent's state for `--status`, systemd and metrics |
//! | 2 | [`tftp`] | TFTP server: pure transfers, and a loop that drives them |
//! | 3 | [`ledger`] | which guest may start: memory and processors that agents share |
//! | 3 | [`machine`] | QEMU: command line, start, monitor |
//! | 3 | [`watch`] | signals, waits, and reports during them |
//! | 4 | [`auth`] | the agent's key and signatures, by openssl |
//! | 4 | [`console`] | follows the console of a guest that runs (`--console`) |
//! | 4 | [`controller`] | HTTP and directory controllers |
//! | 4 | [`guest`] | a running machine: boot, requests, uploads, power off |
//! | 4 | [`qemu_version`] | the version of QEMU, which may be too old |
//! | 5 | [`bootstrap`] | makes the copy of a machine |
//! | 5 | [`delivery`] | journal of tasks, queue of results, and when they are sent |
//! | 5 | [`warm`] | templates of guests that wait for a task |
//! | 6 | [`machines`] | lists machines and decides which need a bootstrap |
//! | 6 | [`perform`] | builds a task in a guest |
//! | 7 | [`check`] | examines the host (`--check`) |
//! | 7 | [`sweep`] | removes what a killed agent left behind |
//! | 8 | [`host_status`] | the agents of a host and their claims (`--status`) |
//! | 8 | [`agent`] | the loop |
//! | 9 | [`program`] | command line to exit status |
//!
//! # Invariants
//!
//! - Unsafe code is in [`sys`] only.
//! - Pure code ([`manifest`], TFTP transfers, back-off, the breaker) gets the time as
//!   an argument and does no I/O.
//! - Every wait polls the signals and has a deadline by the monotonic clock.
//! - An idle turn starts no process, and writes only the agent's status.
//! - Input from guests, controllers and disk is bounded before it is read.
//! - No input causes a panic.
//!
//! # Resources
//!
//! | resource | owner | freed after `kill -9` by |
//! |---|---|---|
//! | QEMU process | [`machine`] | the kernel: it gets SIGKILL with the agent, and all that it started with it |
//! | cgroup of a guest | [`machine`] | systemd, which ends the unit, or the agent's next start |
//! | tap | QEMU, which has its only descriptor | the kernel |
//! | redirect rules | [`network`]: their table belongs to a netlink socket | the kernel |
//! | locks of agents and machines | [`lock`], [`snapshot`] | the kernel |
//! | scratch snapshot | [`snapshot`], by a lock on its directory | the next [`sweep`] |
//! | run and TFTP directories | [`lock`] | the next [`sweep`] |
//! | state of a failed guest | [`evidence`] that leads to it, and until then a lock | the next [`sweep`] |
//! | evidence that is incomplete | [`evidence`], by the agent's lock | the next [`sweep`] |
//! | accepted task | [`delivery`]: a journal entry | the next start, which gives it back |
//! | stored result | [`delivery`]: a file in the queue | the next start, which sends it |
//!
//! # Glossary
//!
//! - *turn*: one pass of the loop. *Task*: what a controller asks for. *Build*: the
//!   work on a task.
//! - *volume*: a directory of machines, usually a btrfs file system. *Machine*: a
//!   directory of a volume. *Revision*: a subvolume `<name>-<P>.<R>` of a machine.
//!   *Copy*: the bootstrapped subvolume `<name>-<toolchain>`. *Scratch*: a throw-away
//!   snapshot.
//! - *guest*: a running machine. *Offer*: the machines of a request for a task.
//!   *Session*: a controller's name for a task it has handed out.
//! - *hold*: keeping a failed guest for inspection. *Breaker*: see [`breaker`].
//!   *Drain*: finish the task, then exit. *Evidence*: see [`evidence`].
//!   *State*: disk and memory of a failed guest (`--keep-state`).
//! - *host fault*: a failure of the host and not of the package.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod auth;
pub mod backoff;
pub mod bootstrap;
pub mod breaker;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod console;
pub mod control;
pub mod controller;
pub mod delivery;
pub mod diag;
pub mod durable;
pub mod error;
pub mod evidence;
pub mod guest;
pub mod host_status;
pub mod interactive;
pub mod json;
pub mod ledger;
pub mod licenses;
pub mod lock;
pub mod lz4;
pub mod machine;
pub mod machines;
pub mod manifest;
pub mod network;
pub mod perform;
pub mod platform;
pub mod priority;
pub mod program;
pub mod qemu_version;
pub mod settings;
pub mod snapshot;
pub mod status;
pub mod sweep;
pub mod sys;
pub mod tar;
pub mod tftp;
pub mod units;
pub mod user;
pub mod warm;
pub mod watch;
