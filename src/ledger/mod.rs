//! The ledger of a host: who has which part of its memory and processors.
//!
//! Agents share a host without a daemon. An agent that runs a guest has the file `claim`
//! in its run directory, which appears by rename. A claim is valid while the lock of its
//! agent is held, so that the claim of a killed agent ends with it. Claims are decided
//! and written under `<run-dir>/host.lock`, so that two agents do not get the same
//! memory. Readers need no lock.
//!
//! The decision ([`admit`]) is pure: the capacity, the claims of the others, and what is
//! wanted.

mod admission;
mod capacity;
mod claim;
mod host;
mod show;

pub use admission::{Admission, HostView, Method, Victim, admit};
pub use capacity::{Capacity, Shortage, Wanted, require_room};
pub use claim::{ClaimState, HostClaim, Work};
pub use host::{ClaimGuard, HostLedger, claims, default_ram_kb, release, set_state};
pub use show::use_of_host;
