//! The program qemu.

use std::io;
use std::path::Path;

use crate::error::{Class, Context as _, Result};
use crate::sys::process::Process;

/// How Debian's package is installed.
pub const INSTALL: &str = "apt-get install --no-install-recommends qemu-system-x86";

/// Adds a remedy to the error of a missing program.
pub(super) fn executed(started: io::Result<Process>, qemu: &Path) -> Result<Process> {
    let missing = matches!(&started, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let started = started.context(|| format!("unable to execute {}", qemu.display()));
    if !missing {
        return started;
    }
    started.map_err(|error| {
        error
            .with_class(Class::Config)
            .hint(format!("install it: {INSTALL}"))
            .hint("name another: --qemu <path>")
    })
}
