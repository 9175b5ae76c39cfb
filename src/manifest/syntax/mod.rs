//! The manifest format: [`Parser`] and [`Serializer`], names and values without
//! a schema.
//!
//! Both agree with build2's own (libbutl) to the character, errors and their
//! positions included: `tests/data/manifest-cases.json` and
//! `manifest-serialize-cases.json` hold what libbutl does. A result manifest is
//! megabytes of log, so the parser borrows its input where it can and counts
//! lines only for an error.

mod chars;
mod error;
mod parser;
mod scan;
mod serializer;
mod values;

pub(crate) use chars::first_special;
pub use chars::{CharClass, class, is_allowed};
pub use error::{ParseError, Position};
pub use parser::{Pair, ParseLimits, Parser};
pub use serializer::{SerializeError, Serializer, Style};
