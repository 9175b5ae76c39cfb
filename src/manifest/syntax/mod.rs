//! The manifest format: [`Parser`] and [`Serializer`], names and values without
//! a schema.
//!
//! Both agree with build2's own (libbutl) to the character, errors and their
//! positions included; `tests/data/manifest-cases.json` and
//! `manifest-serialize-cases.json` hold what that one does. They are fast as
//! well: a result manifest is mostly log, megabytes of it, so the parser looks
//! at 8 bytes at a time, borrows what it can, and does not count lines unless
//! somebody asks for a position.

mod chars;
mod error;
mod parser;
mod scan;
mod serializer;
mod values;

pub(crate) use chars::calm_until;
pub use chars::{Class, class, is_allowed, validate};
pub use error::{ParseError, Position};
pub use parser::{Limits, Pair, Parser};
pub use serializer::{SerializeError, Serializer, Style};
