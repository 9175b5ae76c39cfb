//! Commands that mend what is wrong with volumes and machines.

use std::fs;
use std::path::Path;

use super::tree::{self, MachineDir};
use crate::error::word;

/// The remedy for a volume that is not on btrfs: mounts the file system that /etc/fstab
/// has for it, or an image beside the machines directory.
pub fn mount(root: &Path, volume: &Path) -> String {
    let fstab = fs::read_to_string("/etc/fstab").unwrap_or_default();
    let mut lines = fstab.lines().map(str::split_whitespace);
    let volume_word = word(volume);
    // Blanks are written as \040 there.
    let point = volume.to_string_lossy().replace(' ', "\\040");
    if lines.any(|mut fields| {
        !fields.next().is_none_or(|f| f.starts_with('#')) && fields.next() == Some(&*point)
    }) {
        return format!("mount it: mount {volume_word}");
    }
    let mut image = root.as_os_str().to_owned();
    image.push(".img");
    let image = Path::new(&image);
    let image_word = word(image);
    let mount = format!("mount -o loop {image_word} {volume_word}");
    match image.exists() {
        true => format!("mount the image: {mount}"),
        false => {
            format!("mount one: truncate -s 50G {image_word} && mkfs.btrfs {image_word} && {mount}")
        }
    }
}

/// The remedy for a link that is missing or dangling: to an existing revision, or a new
/// one at `target`.
pub fn link(machine: &MachineDir, target: Option<&Path>) -> String {
    let beginning = format!("{}-{}.", machine.name, tree::PROTOCOL);
    let entries = fs::read_dir(machine.dir()).into_iter().flatten().flatten();
    let latest = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&beginning))
        .max_by_key(|name| (name.len(), name.clone()));
    match (latest, target) {
        (Some(name), _) => format!(
            "name the revision to use: ln -sfn {} {}",
            word(Path::new(&name)),
            word(&machine.link())
        ),
        (None, Some(target)) => format!("make it: btrfs subvolume create {}", word(target)),
        (None, None) => {
            let path = machine.dir().join(format!("{beginning}0"));
            format!("make a revision: btrfs subvolume create {}", word(&path))
        }
    }
}
