//! Manifests: the text format of all structured files, HTTP bodies and TFTP
//! payloads.
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
//! [`syntax`] turns such a text into pairs of name and value, and back; it knows
//! no name. The other modules have one type for each kind of manifest. All kinds
//! are read by the same rules:
//!
//! - An unknown value is kept in its place and written back, so that the values of
//!   newer peers pass through an older agent.
//! - A known name occurs once, unless its type says otherwise, and its value is
//!   checked.
//!
//! The module does no I/O, prints nothing and reads no clock.

mod auxiliary;
mod bootstrap;
mod checksum;
mod environment;
mod fit;
mod machine;
mod messages;
mod normalize;
mod result;
pub mod reuse;
mod sanitize;
mod shorten;
pub mod syntax;
mod task;
mod template;
pub mod value;
mod values;

pub use auxiliary::{AuxiliaryNeed, check_auxiliary_name};
pub use bootstrap::{BootstrapManifest, BootstrappedMachine, ToolchainManifest};
pub use checksum::{accept_checksums, agent_checksum, hex};
pub use environment::{AuxiliaryEnvironment, MAX_ENVIRONMENT_BYTES};
pub use fit::{Cut, fit};
pub use machine::{MachineHeader, MachineKind, MachineManifest, Role};
pub use messages::{ResultRequest, TaskRequest, TaskResponse};
pub use normalize::{ResultRules, failure_result, normalize};
pub use result::{OperationResult, ResultManifest, ResultStatus};
pub use sanitize::sanitize;
pub use shorten::Shortener;
pub use syntax::{Pair, ParseError, ParseLimits, Parser, SerializeError, Serializer, Style};
pub use task::{InteractiveMode, TaskManifest};
pub use template::{TemplateContents, TemplateManifest, WaitingGuest};
pub use values::Values;
