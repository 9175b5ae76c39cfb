//! The version of QEMU.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Class, Error, Result, reason};
use crate::machine::program::installation;
use crate::watch::Watch;

/// The oldest QEMU that works, as major and minor number. `-action` decides, and
/// `pvpanic-pci` is as old; every other option of the agent is older (`set-action` and
/// `pvpanic-pci` among the capabilities that libvirt has recorded of QEMU 6.0.0).
const OLDEST: (u32, u32) = (6, 0);

/// The time limit for a program that is asked about itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of the answer of a program, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The version of the program `qemu`, as it prints it. The answer takes some 50 ms.
///
/// # Errors
///
/// Of class [`Class::Config`], with the remedy: if there is no such program, it is not
/// QEMU, or a version before 6.0.
pub fn require(qemu: &Path, watch: &Watch) -> Result<String> {
    let name = qemu.display();
    let unusable = |text: String| Error::new(text).with_class(Class::Config);
    let another = "name another: --qemu <path>";
    let text = match answer(qemu, &["--version"], watch) {
        Ok(text) => text,
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = unusable(format!("unable to run {name}: {}", reason(&error)));
            return Err(match missing {
                true => error.hint(installation(qemu)).hint(another),
                false => error.hint(another),
            });
        }
    };
    let line = text.lines().next().unwrap_or_default();
    let Some(version) = line.strip_prefix("QEMU emulator version ") else {
        let text = format!("{name} is not QEMU: it says '{line}'");
        return Err(unusable(text).hint(another));
    };
    if numbers(version).is_some_and(|numbers| numbers < OLDEST) {
        let (major, minor) = OLDEST;
        let text =
            format!("QEMU {version} is too old ({name}): the agent needs {major}.{minor} or later");
        return Err(unusable(text)
            .hint("install a later one: Debian 12 has 7.2")
            .hint(another));
    }
    Ok(version.to_owned())
}

/// The standard output of a program that succeeds. A signal ends the wait for it.
pub fn answer(program: &Path, arguments: &[&str], watch: &Watch) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = watch.run(command, b"", MAX_ANSWER_BYTES, TIMEOUT)?;
    if !output.status.success() {
        return Err(io::Error::other(output.status.to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Major and minor number of `7.2.22 (Debian 1:7.2+dfsg-7)`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}
