//! The files of a machine in its subvolume: its manifest and its disk image.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;

use crate::error::{Context as _, Error, Result, word};
use crate::manifest::MachineManifest;
use crate::sys::file::read_at_most;

/// The maximum size of a machine manifest, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// The first bytes of disk images that are not raw, and `qemu-img`'s name for each.
const IMAGE_FORMATS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"vhdxfile", "vhdx"),
];

/// Reads the manifest of a subvolume.
///
/// # Errors
///
/// Those of open(2) and read(2); more than a megabyte. They name `shown` in its place.
pub fn manifest(subvolume: &Path, shown: &Path) -> Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    // The open of a FIFO would wait for its other end.
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
        .open(subvolume.join("manifest"))
        .and_then(|mut file| read_at_most(&mut file, MAX_MANIFEST_BYTES))
        .context(|| {
            format!(
                "unable to read manifest {}",
                shown.join("manifest").display()
            )
        })
}

/// Reads the manifest of the machine `name` in `subvolume`, which is `revision` or a
/// snapshot of it.
///
/// # Errors
///
/// Those of [`manifest`]; an invalid manifest, or that of another machine. They name
/// the revision.
pub fn machine_manifest(name: &str, subvolume: &Path, revision: &Path) -> Result<MachineManifest> {
    let text = manifest(subvolume, revision)?;
    let file = revision.join("manifest");
    let (path, operand) = (file.display().to_string(), word(&file));
    let manifest = MachineManifest::parse(&text, &path).map_err(|error| {
        Error::new(error.to_string()).hint(format!(
            "correct it (man bbot-agent, MAKING A MACHINE, has an example): editor {operand}"
        ))
    })?;
    if manifest.name() != name {
        let text = format!(
            "unable to use {path}: it is that of a machine {}",
            manifest.name()
        );
        let remedy = format!("correct it: sed -i 's/^name:.*/name: {name}/' {operand}");
        return Err(Error::new(text).hint(remedy));
    }
    Ok(manifest)
}

/// Requires a raw image, unless the machine names disks of its own in `options`.
pub fn require_disk(subvolume: &Path, manifest: &MachineManifest) -> Result<()> {
    if manifest.options().is_some() {
        return Ok(());
    }
    let image = subvolume.join("disk.img");
    let (path, operand) = (image.display(), word(&image));
    let wrong = |what: &str| {
        let remedy = format!("put a raw image there: cp <image> {operand}");
        Error::new(format!("{what} {path}")).hint(remedy)
    };
    // The open of a FIFO would wait for its other end.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let mut file = match options.open(&image) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(wrong("no disk image"));
        }
        file => file.context(|| format!("unable to open {path}"))?,
    };
    let unable = || format!("unable to read {path}");
    let metadata = file.metadata().context(unable)?;
    if !metadata.is_file() {
        return Err(wrong("not a file:"));
    }
    if metadata.len() == 0 {
        return Err(wrong("empty disk image"));
    }
    let mut start = [0; 8];
    let length = file.read(&mut start).context(unable)?;
    let start = &start[..length];
    let format = IMAGE_FORMATS
        .iter()
        .find(|(magic, _)| start.starts_with(magic));
    if let Some((_, format)) = format {
        return Err(
            Error::new(format!("{path} is a {format} image, not a raw one")).hint(format!(
                "convert it: qemu-img convert -O raw {operand} {operand}.raw && \
                 mv {operand}.raw {operand}"
            )),
        );
    }
    Ok(())
}
