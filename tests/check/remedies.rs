//! Each remedy that `--check` prints: a host is broken, the remedy typed, and the host
//! is as it should be.
//!
//! Not typed: remedies that install packages, load drivers, reboot, or change the clock,
//! and those that name a controller's administrator.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use bbot_agent::json::Value;

use super::super::support::http::{Server, openssl};
use super::super::support::{isolated, netns, require_programs, run};
use super::{Host, of_status};

/// A finding that is not `ok`, with its remedies.
pub type Problem = (String, Vec<String>);

pub fn problem(report: &Value, subject: &str) -> Option<Problem> {
    ["failure", "warning"]
        .iter()
        .flat_map(|status| of_status(report, status))
        .find(|(known, ..)| known == subject)
        .map(|(_, found, remedies)| (found, remedies))
}

/// Types the remedies for `subject`, one after the other, until there is none to type.
/// `which` chooses among the remedies of a finding by a word in it, `values` replace
/// what stands in angle brackets. Returns what was found on the way.
#[track_caller]
pub fn mend(
    host: &Host,
    options: &[&str],
    subject: &str,
    which: &str,
    values: &[(&str, &str)],
) -> Vec<String> {
    let spool = host.spool();
    let mut options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    options.push(spool);
    let mut found = Vec::new();
    for _ in 0..6 {
        let words: Vec<&str> = options.iter().map(String::as_str).collect();
        let (_, report) = host.check(&words);
        let Some((text, remedies)) = problem(&report, subject) else {
            assert!(!found.is_empty(), "{subject}: nothing was wrong: {report}");
            return found;
        };
        let remedy = remedies.iter().find(|remedy| remedy.contains(which));
        let remedy = remedy.unwrap_or_else(|| panic!("no remedy: {subject}: {text}"));
        let (_, command) = remedy
            .split_once(": ")
            .unwrap_or_else(|| panic!("{remedy}"));
        let command = values
            .iter()
            .fold(command.to_owned(), |command, (name, value)| {
                command.replace(name, value)
            });
        assert!(
            !command.contains('<') || command.contains("<<"),
            "{command}"
        );
        found.push(text);
        if command.starts_with("--") {
            options.extend(command.split_whitespace().map(str::to_owned));
        } else {
            type_line(&command);
        }
    }
    panic!("not mended: {subject}: {found:?}");
}

fn type_line(line: &str) {
    let output = Command::new("sh")
        .args(["-ec", line])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
}

#[track_caller]
pub fn assert_found(found: &[String], texts: &[&str]) {
    assert_eq!(found.len(), texts.len(), "{found:?}");
    for (found, text) in found.iter().zip(texts) {
        assert!(found.contains(text), "{found}: not {text}");
    }
}

#[test]
fn links_of_machines() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let link = host.machine().join("linux-1");
        fs::remove_file(&link).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["linux: no link "]);

        fs::remove_file(&link).unwrap();
        symlink("linux-1.7", &link).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["linux-1.7, which does not exist"]);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("linux-1.0"));

        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["unable to read subvolume link"]);
    });
}

#[test]
fn a_machine_is_made_by_the_remedies_alone() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let image = host.dir.path().join("image");
        fs::write(&image, [0; 4096]).unwrap();
        let image = image.display().to_string();
        run(&format!(
            "btrfs subvolume delete {}",
            host.machine().join("linux-1.0").display()
        ));
        let found = mend(&host, &[], "machine", "", &[("<image>", &image)]);
        assert_found(
            &found,
            &[
                "linux-1.0, which does not exist",
                "no manifest ",
                "no disk image",
            ],
        );
        // The same without a link.
        run(&format!(
            "btrfs subvolume delete {}",
            host.machine().join("linux-1.0").display()
        ));
        fs::remove_file(host.machine().join("linux-1")).unwrap();
        let found = mend(&host, &[], "machine", "", &[("<image>", &image)]);
        assert_eq!(found.len(), 4, "{found:?}");
    });
}

#[test]
fn contents_of_machines() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["qemu-img"]) {
            return;
        }
        let dir = host.machine();
        let revision = dir.join("linux-1.0");
        let other = host.dir.path().join("image");
        fs::write(&other, [0; 4096]).unwrap();
        let other = other.display().to_string();

        let disk = revision.join("disk.img");
        fs::write(&disk, "").unwrap();
        let found = mend(&host, &[], "machine", "", &[("<image>", &other)]);
        assert_found(&found, &["empty disk image"]);

        run(&format!(
            "qemu-img create -q -f qcow2 {} 1M",
            disk.display()
        ));
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["is a qcow2 image"]);
        assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);

        let manifest = revision.join("manifest");
        let good = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, good.replace("name: linux", "name: other")).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["it is that of a machine other"]);

        // A plain directory, with all that belongs into the subvolume.
        let plain = dir.join("plain");
        run(&format!("cp -a {} {}", revision.display(), plain.display()));
        run(&format!("btrfs subvolume delete {}", revision.display()));
        fs::rename(&plain, &revision).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["is not a subvolume"]);
        assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);
    });
}

#[test]
fn directories() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let dir = host.dir.path();
        let at = |name: &str| dir.join(name).display().to_string();

        let machines = format!("--machines={}", at("new/machines"));
        let found = mend(&host, &[&machines], "machines directory", "", &[]);
        assert_found(&found[..1], &["unable to iterate over"]);
        assert_found(&found[1..], &["no volume in", "is not on btrfs"]);
        let found = mend(
            &host,
            &["--machines=/nowhere"],
            "machines directory",
            "--machines",
            &[("<dir>", &host.volume.path().display().to_string())],
        );
        assert_eq!(found.len(), 1);

        let tftp = format!("--tftp={}", at("new/tftp"));
        mend(&host, &[&tftp], "tftp directory", "make it", &[]);
        let files = at("spool");
        let values = [("<files>", files.as_str())];
        let found = mend(&host, &[&tftp], "toolchain", "", &values);
        assert_found(&found, &["no toolchain directory"]);
        fs::remove_dir_all(dir.join("new/tftp/toolchain/default")).unwrap();
        fs::create_dir_all(dir.join("new/tftp/toolchains/default")).unwrap();
        let found = mend(&host, &[&tftp], "toolchain", "", &values);
        assert_found(&found, &["no files in"]);
        let found = mend(
            &host,
            &["--tftp=/nowhere"],
            "tftp directory",
            "--tftp",
            &[("<dir>", &at("tftp"))],
        );
        assert_eq!(found.len(), 1);

        let metrics = format!("--metrics={}", at("new/metrics/a.prom"));
        mend(&host, &[&metrics], "metrics", "make it", &[]);
        let values = [("<file>", &*at("a.prom"))];
        let found = mend(&host, &["--metrics=/dev/null"], "metrics", "", &values);
        assert_found(&found, &["/dev/null is not a regular file"]);

        let values = [("<dir>", &*at("run"))];
        mend(
            &host,
            &["--run-dir=/dev/null/x"],
            "run directory",
            "",
            &values,
        );
        mend(
            &host,
            &["--state=/dev/null/x"],
            "state directory",
            "",
            &values,
        );

        let controller = at("new/controller");
        mend(&host, &[&controller], "controller", "", &[]);
    });
}

#[test]
fn amounts() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let found = mend(&host, &["--min-free=1T"], "free space", "--min-free", &[]);
        assert_found(&found, &["1.0 TiB wanted"]);
        let found = mend(&host, &["--ram=900000G"], "memory", "", &[]);
        assert_found(&found, &["the guests of a task never fit: "]);
        let values = [("<name>", "a")];
        let found = mend(
            &host,
            &["--agent-name=localhost"],
            "agent name",
            "--agent-name",
            &values,
        );
        assert_found(&found, &["'localhost' does not identify this host"]);
    });
}

#[test]
fn the_network() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let found = mend(&host, &["--bridge=br7"], "bridge", "make it", &[]);
        assert_found(&found, &["no bridge br7"]);
        run("ip link set br7 down");
        let found = mend(&host, &["--bridge=br7"], "bridge", "", &[]);
        assert_found(&found, &["bridge br7 is down"]);
        run("ip addr flush dev br7");
        let found = mend(&host, &["--bridge=br7"], "bridge", "", &[]);
        assert_found(&found, &["bridge br7 has no IPv4 address"]);
        let values = [("<name>", "br1")];
        let found = mend(&host, &["--bridge=br8"], "bridge", "--bridge", &values);
        assert_found(&found, &["no bridge br8"]);
        let found = mend(&host, &["--redirect=none"], "redirect", "", &[]);
        assert_eq!(found.len(), 1);
        netns::bridge("br9");
    });
}

#[test]
fn qemu_and_its_user() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let values = [("<path>", "qemu-system-x86_64")];
        for program in ["/nowhere/qemu", "/bin/true"] {
            let option = format!("--qemu={program}");
            let found = mend(&host, &[&option], "qemu", "--qemu", &values);
            assert_found(&found, &[program]);
        }
        let old = host.dir.path().join("qemu-5.2");
        fs::write(
            &old,
            "#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian)'\n",
        )
        .unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        let option = format!("--qemu={}", old.display());
        let found = mend(&host, &[&option], "qemu", "--qemu", &values);
        assert_found(&found, &["is too old"]);
        if Path::new("/dev/kvm").exists() {
            // A file that is no device, whatever the host has.
            run("mount --bind /dev/null /dev/kvm");
        }
        let found = mend(&host, &["--accel=kvm"], "acceleration", "--accel", &[]);
        assert_found(&found, &["kvm: "]);

        // useradd writes these files: in this test, to copies of them.
        let etc = host.dir.path().join("etc");
        run(&format!("cp -a /etc {}", etc.display()));
        run(&format!("mount --bind {} /etc", etc.display()));
        run("groupadd --system --force kvm");
        let found = mend(&host, &["--vm-user=guests"], "user of guests", "", &[]);
        assert_found(&found, &["no user guests"]);
    });
}

#[test]
fn keys_and_controllers() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["openssl"]) {
            return;
        }
        let key = host.dir.path().join("key.pem");
        openssl(host.dir.path(), "genrsa -out key.pem 2048");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let option = format!("--auth-key={}", key.display());
        let found = mend(&host, &[&option], "key", "", &[]);
        assert_found(&found, &["it can be read by others"]);

        // As the key, so the password of displays; and an address of another host.
        let password = host.dir.path().join("vnc password");
        let option = format!("--vnc-password={}", password.display());
        let words = ["--interactive=both", "--interactive-vnc=192.0.2.1", &option];
        let values = [
            ("<password>", "secret"),
            ("<address>", "127.0.0.1"),
            ("<port>", "5900"),
        ];
        let found = mend(&host, &words, "interactive builds", "", &values);
        let causes = ["Address not available", "No such file or directory"];
        assert_found(&found, &causes);
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        let words = ["--interactive=both", "--interactive-vnc=127.0.0.1", &option];
        let found = mend(&host, &words, "interactive builds", "", &[]);
        assert_found(&found, &["others can read it"]);
        let long = host.dir.path().join("x".repeat(108));
        let long = format!("--run-dir={}", long.display());
        let short = host.dir.path().join("short").display().to_string();
        let words = ["--interactive=both", &long];
        let found = mend(
            &host,
            &words,
            "interactive builds",
            "",
            &[("<dir>", &short)],
        );
        assert_found(&found, &["clients cannot connect to a path this long"]);

        let server = Server::start(|mut connection| {
            if let Ok(request) = connection.request() {
                let status = match request.target.contains("/?build-task") {
                    true => "400 Bad Request",
                    false => "404 Not Found",
                };
                connection.answer(status, "");
            }
        });
        let (_, report) = host.check(&[&server.url("/wrong")]);
        let (_, remedies) = problem(&report, "controller").unwrap();
        let (_, path) = remedies[0].split_once(": ").unwrap();
        let (code, report) = host.check(&[&server.url(path)]);
        assert_eq!(code, Some(0), "{report}");

        let (_, report) = host.check(&[]);
        let (_, remedies) = problem(&report, "controller").unwrap();
        assert!(
            remedies[0].contains("bbot-agent --check [options] <url>..."),
            "{remedies:?}"
        );
    });
}
