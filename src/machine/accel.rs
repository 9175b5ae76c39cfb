//! Who executes the guest's instructions: KVM, or QEMU's emulation.
//!
//! That `/dev/kvm` opens proves nothing: there are hosts (often virtual
//! machines themselves) where it does and guests abort or hang in their first
//! second. So KVM counts as usable only when a guest has run.

use std::fmt;

/// The accelerators that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator; some ten times slower, and everywhere.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// KVM, or an error.
    #[default]
    Kvm,
    /// Emulation.
    Tcg,
    /// KVM where a guest runs under it, else emulation.
    Auto,
}
