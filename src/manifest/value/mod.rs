//! What values look like: versions, names, locations, lists.
//!
//! An agent carries most values without looking at them. These are for the few
//! it does look at, and for tests of what others wrote.

mod encoding;
mod location;
mod name;
mod quoted;
mod standard;
mod version;

pub use encoding::{decode_base64, encode_base64, merge_comment, split_comment};
pub use location::{RepositoryLocation, RepositoryType};
pub use name::{check_fingerprint, check_mac, check_package_name, check_sha256, target_triplet};
pub use quoted::quoted_list;
pub use standard::StandardVersion;
pub use version::PackageVersion;
