//! The formats of values: versions, MAC addresses, base64, lists.
//!
//! The agent carries most values without reading them. These are for the few that
//! it reads.

mod base64;
mod mac;
mod quoted;
mod standard;
mod version;

pub use base64::encode_base64;
pub use mac::check_mac;
pub use quoted::quoted_list;
pub use standard::StandardVersion;
pub use version::PackageVersion;
