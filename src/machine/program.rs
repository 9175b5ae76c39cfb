//! The program qemu.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Class, Context as _, Result};
use crate::platform::Architecture;
use crate::sys::process::Process;

/// How Debian's package of a program is installed.
#[must_use]
pub fn installation(qemu: &Path) -> String {
    let architecture = Architecture::of_qemu(qemu);
    let package = architecture.qemu_package();
    format!("install it: apt-get install --no-install-recommends {package}")
}

/// Where execvp(3) of musl looks for programs if `$PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// The file of a program: a path is one, and a name is looked up in `PATH`.
#[must_use]
pub fn find(program: &Path) -> Option<PathBuf> {
    let is_executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return is_executable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| is_executable(path))
}

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
            .hint(installation(qemu))
            .hint("name another: --qemu <path>")
    })
}
