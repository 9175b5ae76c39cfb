//! Manifests: the text format in which everything structured travels, be it a
//! file, an HTTP body or a TFTP payload.
//!
//! ```text
//! : 1
//! # A manifest starts with its format version, under an empty name.
//! name: libfoo
//! summary: A value that is longer than a line is continued behind a backslas\
//! h, anywhere.
//! description:
//! \
//! A value of several lines is enclosed
//! by lines that hold a lone backslash.
//! \
//! :
//! name: the second manifest of the same stream
//! ```
//!
//! [`syntax`] turns such a text into pairs of name and value, and back, and
//! knows no name. The other modules give the pairs a meaning, one type to each
//! kind of manifest. They are all read in the same manner:
//!
//! - A name that is not known is kept, in its place, and written back: a newer
//!   peer's value must not be lost on its way through an older agent.
//! - A name that is known must be there once, unless said otherwise, and its
//!   value must make sense.
//!
//! Nothing here does I/O, prints, or reads a clock.

mod bootstrap;
mod checksum;
mod fit;
mod machine;
mod messages;
mod normalize;
mod result;
mod sanitize;
pub mod syntax;
mod task;
pub mod value;
mod values;

pub use bootstrap::{BootstrapManifest, BootstrappedMachine, ToolchainManifest};
pub use checksum::{accept_checksums, agent_checksum, hex};
pub use fit::{Cut, fit};
pub use machine::{MachineHeader, MachineKind, MachineManifest, Role};
pub use messages::{ResultRequest, TaskRequest, TaskResponse};
pub use normalize::{ResultRules, failure_result, normalize};
pub use result::{OperationResult, ResultManifest, ResultStatus};
pub use sanitize::sanitize;
pub use syntax::{Limits, Pair, ParseError, Parser, SerializeError, Serializer, Style};
pub use task::TaskManifest;
pub use values::Values;
