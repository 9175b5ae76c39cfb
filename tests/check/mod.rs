//! `--check` on hosts that lack one thing each, and on a good one, which it does not
//! change.

mod frames;
mod remedies;
mod surroundings;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bbot_agent::json::Value;

use super::support::btrfs::Volume;
use super::support::http::{Identity, Server, closed_port, openssl};
use super::support::{Process, TempDir, isolated, netns, require_programs, run};

/// A host on which everything is as it should be.
struct Host {
    volume: Volume,
    dir: TempDir,
    /// The program that starts the agent, with its arguments, if any.
    wrapper: &'static [&'static str],
    /// The name of the agent.
    name: Option<&'static str>,
    dhcp: Process,
}

impl Host {
    fn new() -> Option<Host> {
        if !require_programs(&["qemu-system-x86_64", "btrfs", "ip", "dnsmasq"]) {
            return None;
        }
        let volume = Volume::new(256)?;
        let dir = TempDir::new();
        netns::bridge("br1");
        let mut dhcp = Command::new("dnsmasq");
        dhcp.args("--keep-in-foreground --port=0 --interface=br1 --bind-dynamic".split(' '))
            .args("--user=root --pid-file= --conf-file=/dev/null --no-ping".split(' '))
            .arg("--dhcp-range=192.168.123.10,192.168.123.250")
            .arg(format!(
                "--dhcp-leasefile={}",
                dir.path().join("leases").display()
            ))
            .stderr(Stdio::null());
        let host = Host {
            volume,
            dir,
            wrapper: &[],
            name: Some("a"),
            dhcp: Process(dhcp.spawn().unwrap()),
        };
        fs::create_dir_all(host.volume.path().join("default/linux")).unwrap();
        for dir in ["tftp/toolchains/default", "spool/tasks", "spool/results"] {
            fs::create_dir_all(host.dir.path().join(dir)).unwrap();
        }
        fs::write(host.dir.path().join("tftp/toolchains/default/x"), "").unwrap();
        let current = host.machine().join("linux-1.0");
        run(&format!("btrfs subvolume create {}", current.display()));
        let manifest = ": 1\nid: linux-1.0\nname: linux\nsummary: Linux\ntype: kvm\n";
        fs::write(current.join("manifest"), manifest).unwrap();
        fs::write(current.join("disk.img"), [0; 4096]).unwrap();
        symlink("linux-1.0", host.machine().join("linux-1")).unwrap();
        Some(host)
    }

    fn machine(&self) -> PathBuf {
        self.volume.path().join("default/linux")
    }

    fn spool(&self) -> String {
        self.dir.path().join("spool").display().to_string()
    }

    /// Runs `--check`; `more` options take precedence.
    fn check(&self, more: &[&str]) -> (Option<i32>, Value) {
        let dir = self.dir.path();
        let agent = [env!("CARGO_BIN_EXE_bbot-agent")];
        let words: Vec<&str> = self.wrapper.iter().chain(&agent).copied().collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .args(["--check=json", "--min-free=1M"])
            .args(self.name.map(|name| format!("--agent-name={name}")))
            .arg("--machines")
            .arg(self.volume.path())
            .arg("--tftp")
            .arg(dir.join("tftp"))
            .arg("--run-dir")
            .arg(dir.join("run"))
            .arg("--state")
            .arg(dir.join("state"))
            .args(["--accel=tcg", "--ram=128M"])
            .args(more)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let report = Value::parse(text.trim_end());
        let report = report.unwrap_or_else(|e| panic!("{e:?}: {text}{error}"));
        (output.status.code(), report)
    }

    /// The one failure, and that the exit status says so.
    fn failure(&self, more: &[&str]) -> (String, String) {
        let (code, report) = self.check(more);
        let failures = of_status(&report, "failure");
        assert_eq!(failures.len(), 1, "{report}");
        assert_eq!(code, Some(78));
        let (subject, found, remedies) = failures.into_iter().next().unwrap();
        assert!(!remedies.is_empty(), "nothing to type: {subject}: {found}");
        (subject, found)
    }
}

fn of_status(report: &Value, status: &str) -> Vec<(String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report.get("checks").unwrap().as_array().unwrap();
    checks
        .iter()
        .filter(|check| check.get("status").unwrap().as_str() == Some(status))
        .map(|check| {
            let remedies = check.get("remedies").unwrap().as_array().unwrap();
            (
                text(check.get("subject").unwrap()),
                text(check.get("found").unwrap()),
                remedies.iter().map(text).collect(),
            )
        })
        .collect()
}

/// Everything in a directory, with its contents.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            found.push((path.clone(), Vec::new()));
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

#[test]
fn a_good_host_passes_and_nothing_is_changed() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let state = || {
            // Names only: a bridge that has had a port shows another state.
            let links: Vec<String> = run("ip -o link")
                .lines()
                .filter_map(|line| line.split(':').nth(1).map(str::to_owned))
                .collect();
            (
                tree(host.volume.path()),
                tree(host.dir.path()),
                links,
                run("nft list ruleset"),
            )
        };
        let before = state();
        let (code, report) = host.check(&[&host.spool()]);
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report.get("ok").unwrap().as_bool(), Some(true));
        assert!(of_status(&report, "warning").is_empty(), "{report}");
        let subjects: Vec<String> = of_status(&report, "ok")
            .into_iter()
            .map(|(subject, ..)| subject)
            .collect();
        for subject in [
            "machines directory",
            "deletion",
            "free space",
            "machine",
            "bridge",
            "tap",
            "redirect",
            "qemu",
            "acceleration",
            "tftp directory",
            "toolchain",
            "controller",
        ] {
            assert!(subjects.iter().any(|known| known == subject), "{subject}");
        }
        assert_eq!(before, state(), "--check changed the host");
    });
}

#[test]
fn each_thing_that_is_missing_is_the_one_failure() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let spool = host.spool();

        let (subject, found) = host.failure(&["--min-free=1T", &spool]);
        assert_eq!(subject, "free space");
        assert!(found.contains("1.0 TiB wanted"), "{found}");

        let nowhere = host.dir.path().join("nowhere").display().to_string();
        let (subject, found) = host.failure(&["--qemu", &nowhere, &spool]);
        assert_eq!(subject, "qemu");
        assert!(found.ends_with("No such file or directory"), "{found}");
        let (subject, found) = host.failure(&["--qemu", "/bin/true", &spool]);
        assert_eq!(subject, "qemu");
        assert!(found.starts_with("/bin/true is not QEMU"), "{found}");

        let (subject, found) = host.failure(&["--bridge=br2", &spool]);
        assert_eq!(
            (subject.as_str(), found.as_str()),
            ("bridge", "no bridge br2")
        );

        let (subject, _) = host.failure(&["--redirect=none", &spool]);
        assert_eq!(subject, "redirect");

        let (subject, _) = host.failure(&["--tftp", &nowhere, &spool]);
        assert_eq!(subject, "tftp directory");

        let (subject, _) = host.failure(&["--vm-user=nobody-of-this-name", &spool]);
        assert_eq!(subject, "user of guests");

        let (subject, found) = host.failure(&[&nowhere]);
        assert_eq!(subject, "controller");
        assert!(found.contains("/tasks"), "{found}");

        let url = format!("http://127.0.0.1:{}/", closed_port());
        let (subject, found) = host.failure(&[&url]);
        assert_eq!(subject, "controller");
        assert!(found.contains("connection refused"), "{found}");

        let manifest = host.machine().join("linux-1.0/manifest");
        fs::write(&manifest, "nonsense\n").unwrap();
        let (code, report) = host.check(&[&spool]);
        assert_eq!(code, Some(78));
        let failures = of_status(&report, "failure");
        let place = format!("{}:1:", manifest.display());
        assert!(failures[0].1.contains(&place), "{report}");
    });
}

#[test]
fn a_controller_that_answers_is_reached_and_its_certificate_verified() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["openssl"]) {
            return;
        }
        let server = Server::answering("400 Bad Request", "no manifest");
        let (code, report) = host.check(&[&server.url("/?build-task")]);
        assert_eq!(code, Some(0), "{report}");
        let request = &server.requests()[0];
        assert!(request.text().is_empty(), "nothing is asked for");

        let dir = host.dir.path();
        let authority = Identity::authority(dir, "ca");
        let identity = authority.sign(dir, "server", Some("subjectAltName=IP:127.0.0.1"));
        let server = Server::start_tls(&identity, |mut connection| {
            if connection.request().is_ok() {
                connection.answer("400 Bad Request", "no manifest");
            }
        });
        let url = server.url("/");
        let ca = dir.join("ca.crt").display().to_string();
        let (code, report) = host.check(&["--ca-file", &ca, &url]);
        assert_eq!(code, Some(0), "{report}");
        let good = of_status(&report, "ok");
        assert!(
            good.iter()
                .any(|(_, found, _)| found.contains("certificate verified")),
            "{report}"
        );
        let other = Identity::authority(dir, "other");
        drop(other);
        let ca = dir.join("other.crt").display().to_string();
        let (subject, _) = host.failure(&["--ca-file", &ca, &url]);
        assert_eq!(subject, "controller");
    });
}

#[test]
fn the_key_is_tried() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["openssl"]) {
            return;
        }
        let spool = host.spool();
        let key = host.dir.path().join("key.pem");
        openssl(host.dir.path(), "genrsa -out key.pem 2048");
        let path = key.display().to_string();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let (code, report) = host.check(&["--auth-key", &path, &spool]);
        assert_eq!(code, Some(0), "{report}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let (subject, _) = host.failure(&["--auth-key", &path, &spool]);
        assert_eq!(subject, "key");
    });
}
