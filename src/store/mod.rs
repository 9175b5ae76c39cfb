//! What must survive a crash: results that wait to be sent, and which task is
//! under way.
//!
//! ```text
//! <state>/journal                what became of each task
//! <state>/journal.bad-<n>        one that was damaged
//! <state>/results/<id>           a result that waits to be sent
//! <state>/artifacts/<id>/        what goes before it
//! <state>/aside/<id>/            one that nobody will take, and the reason
//! <state>/reserve                space for the day when the disk is full
//! ```
//!
//! One agent uses a state directory at a time; its lock is the agent's.

mod boot;
mod envelope;
mod event;
mod journal;
mod reserve;
mod results;

pub use boot::{Boot, uptime};
pub use envelope::{Artifact, Envelope, Stored, StoredArtifact};
pub use event::{Accepted, Stage, Unfinished};
pub use journal::Journal;
pub use reserve::Reserve;
pub use results::{Results, Waiting};
