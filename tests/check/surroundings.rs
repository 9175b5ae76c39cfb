//! Remedies for what surrounds the machines: permissions, mounts, names, controllers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use super::super::support::http::{Identity, Server, openssl};
use super::super::support::{isolated, require_programs, run};
use super::remedies::{assert_found, mend, problem};
use super::{Host, of_status};

/// Puts a copy of /etc in its place, to which the test may write.
fn copy_etc(host: &Host) {
    let etc = host.dir.path().join("etc");
    run(&format!("cp -a /etc {}", etc.display()));
    run(&format!("mount --bind {} /etc", etc.display()));
}

#[test]
fn machines_that_this_host_cannot_use() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let other = host.volume.path().join("other");
        run(&format!(
            "cp -a {} {}",
            host.machine().parent().unwrap().display(),
            other.display()
        ));
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["has one of the same name"]);

        let manifest = host.machine().join("linux-1.0/manifest");
        let good = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, format!("{good}ram-minimum: 262144\n")).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["it needs 262144 kB of memory"]);
        fs::write(&manifest, good.replace("kvm", "nspawn")).unwrap();
        let found = mend(&host, &[], "machine", "", &[]);
        assert_found(&found, &["only machines of type kvm"]);

        // The editor of the test writes what the manual shows.
        let example = host.dir.path().join("example");
        fs::write(&example, &good).unwrap();
        fs::write(&manifest, "nonsense\n").unwrap();
        let editor = format!("cp {} ", example.display());
        let found = mend(&host, &[], "machine", "", &[("editor ", &editor)]);
        assert_found(&found, &["manifest:1:"]);
    });
}

#[test]
fn a_machine_whose_bootstrap_failed_comes_with_the_reason() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let state = host.dir.path().join("state/default-1");
        fs::create_dir_all(&state).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let machine = host.machine();
        let text = format!(
            "{{\"boot\":\"{}\",\"next\":0,\"broken\":[{{\"machine\":\"{}\",\"reported\":\"x\",\
             \"revision\":\"{}\",\"reasons\":[\"no request\"],\"failures\":1,\"retry\":9}}]}}",
            boot.trim(),
            machine.display(),
            machine.join("linux-1.0").display()
        );
        fs::write(state.join("bootstraps"), text).unwrap();
        let (_, report) = host.check(&[&host.spool()]);
        let (found, remedies) = problem(&report, "machine").unwrap();
        assert!(found.contains("its last bootstrap failed"), "{found}");
        assert_eq!(remedies[0], "the reason: no request");
    });
}

#[test]
fn the_first_machine_is_made_by_the_remedies_alone() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let revision = host.machine().join("linux-1.0");
        run(&format!("btrfs subvolume delete {}", revision.display()));
        fs::remove_dir_all(host.machine()).unwrap();
        let (_, report) = host.check(&[&host.spool()]);
        let (found, remedies) = problem(&report, "machines").unwrap();
        assert!(found.starts_with("none in "), "{found}");
        let (_, command) = remedies[0].split_once(": ").unwrap();
        run(&command.replace("<name>", "linux"));
        let image = host.dir.path().join("image");
        fs::write(&image, [0; 4096]).unwrap();
        let image = image.display().to_string();
        mend(&host, &[], "machine", "", &[("<image>", &image)]);
        let (_, report) = host.check(&[&host.spool()]);
        assert_eq!(problem(&report, "machines"), None);
    });
}

#[test]
fn space() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let unused = host.machine().join("unused");
        let volume = statvfs(host.volume.path()).unwrap();
        let available = volume.blocks_available() * volume.fragment_size();
        run(&format!("btrfs subvolume create {}", unused.display()));
        fs::write(unused.join("disk.img"), vec![7; 100 << 20]).unwrap();
        nix::unistd::sync();
        let least = format!("--min-free={}M", (available >> 20) - 60);
        let values = [("<path>", &*unused.display().to_string())];
        let found = mend(&host, &[&least], "free space", "delete", &values);
        assert_found(&found, &["wanted"]);
    });
}

#[test]
fn permissions() {
    isolated(|| {
        let Some(mut host) = Host::new() else { return };
        if !require_programs(&["setpriv", "findmnt"]) {
            return;
        }
        let volume = host.volume.path().display().to_string();
        run(&format!("mount -o remount,ro {volume}"));
        let found = mend(&host, &[], "machines directory", "", &[]);
        assert_found(&found, &["Read-only file system"]);

        let run_dir = host.dir.path().join("read-only");
        fs::create_dir(&run_dir).unwrap();
        run(&format!("mount -t tmpfs -o ro none {}", run_dir.display()));
        let option = format!("--run-dir={}", run_dir.display());
        let values = [("<dir>", &*host.dir.path().join("run").display().to_string())];
        let found = mend(&host, &[&option], "run directory", "--run-dir", &values);
        assert_found(&found, &["unable to write "]);

        host.wrapper = &[
            "setpriv",
            "--bounding-set=-sys_admin",
            "--inh-caps=-sys_admin",
        ];
        let (_, report) = host.check(&[&host.spool()]);
        for subject in ["permissions", "deletion"] {
            let (_, remedies) = problem(&report, subject).unwrap();
            assert_eq!(remedies[0], "run as root: sudo bbot-agent --check");
        }
        let found = mend(&host, &[], "deletion", "mount", &[]);
        assert_found(&found, &["is not permitted"]);
        // Root has every capability.
        host.wrapper = &[];
        let (_, report) = host.check(&[&host.spool()]);
        assert_eq!(problem(&report, "permissions"), None);
    });
}

#[test]
fn the_system() {
    isolated(|| {
        let Some(mut host) = Host::new() else { return };
        run("mount --bind /dev/null /proc/meminfo");
        let found = mend(&host, &[], "memory", "", &[]);
        assert_found(&found, &["/proc/meminfo"]);

        let values = [("<name>", "br1")];
        let found = mend(&host, &["--bridge=lo"], "bridge", "", &values);
        assert_found(&found, &["lo is not a bridge"]);

        if !require_programs(&["hostname"]) {
            return;
        }
        copy_etc(&host);
        unshare(CloneFlags::CLONE_NEWUTS).unwrap();
        run("hostname localhost");
        host.name = None;
        let values = [("<name>", "host-of-the-test")];
        let found = mend(&host, &[], "agent name", "name the host", &values);
        assert_found(&found, &["'localhost' does not identify this host"]);
    });
}

#[test]
fn controllers_out_of_reach() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        copy_etc(&host);
        // It may be a link to a file of the machine.
        fs::remove_file("/etc/resolv.conf").unwrap_or_default();
        let servers = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        fs::write("/etc/resolv.conf", servers).unwrap();
        let server = Server::answering("400 Bad Request", "no manifest");
        let url = format!("http://brep.example:{}/?build-task", server.port());
        let values = [("<address>", "127.0.0.1"), ("<host>", "brep.example")];
        let found = mend(&host, &[&url], "controller", "/etc/hosts", &values);
        assert_eq!(found.len(), 1);

        if !require_programs(&["openssl"]) {
            return;
        }
        let dir = host.dir.path();
        let authority = Identity::authority(dir, "ca");
        drop(Identity::authority(dir, "other"));
        let identity = authority.sign(dir, "server", Some("subjectAltName=IP:127.0.0.1"));
        let server = Server::start_tls(&identity, |mut connection| {
            if connection.request().is_ok() {
                connection.answer("400 Bad Request", "no manifest");
            }
        });
        let url = server.url("/");
        let other = format!("--ca-file={}", dir.join("other.crt").display());
        let values = [("<file>", &*dir.join("ca.crt").display().to_string())];
        let found = mend(&host, &[&other, &url], "controller", "--ca-file", &values);
        assert_found(&found, &["not signed by a trusted authority"]);
    });
}

#[test]
fn keys_of_other_kinds() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["openssl"]) {
            return;
        }
        let dir = host.dir.path();
        let key = dir.join("key.pem");
        let path = key.display().to_string();
        let option = format!("--auth-key={path}");
        for (command, found) in [
            (
                "ecparam -name prime256v1 -genkey -noout -out key.pem",
                "not an RSA key",
            ),
            ("genpkey -algorithm ed25519 -out key.pem", ""),
        ] {
            openssl(dir, command);
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            let texts = mend(&host, &[&option], "key", "genrsa", &[("<file>", &path)]);
            assert_found(&texts, &[found]);
        }
        openssl(dir, "genrsa -aes256 -passout pass:secret -out key.pem 2048");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        // The operator types the password.
        let old = format!("{path} -passin pass:secret");
        let values = [("<old>", &*old), ("<new>", &*path)];
        let found = mend(&host, &[&option], "key", "", &values);
        assert_found(&found, &["it is encrypted"]);

        let words = ["--openssl=/nowhere/openssl", &option];
        let values = [("<path>", "openssl")];
        let found = mend(&host, &words, "key", "--openssl", &values);
        assert_eq!(found.len(), 1);
    });
}

#[test]
fn machines_of_several_toolchain_versions() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let copy = |name: &str, version: &str| {
            let machine = host.volume.path().join("default").join(name);
            let copy = machine.join(format!("{name}-default"));
            fs::create_dir_all(&copy).unwrap();
            let text = format!(
                ": 1\n:\nid: {name}-1.0\nname: {name}\nsummary: s\ntype: kvm\n\
                 mac: 52:54:00:00:00:01\n:\nid: bogus\n:\nbbot-version: {version}\n"
            );
            fs::write(copy.join("manifest"), text).unwrap();
        };
        copy("linux", "1");
        let values = [("<version>", "0.17.0")];
        let found = mend(&host, &[], "toolchain version", "", &values);
        assert_found(&found, &["no machine reports a standard version"]);
        copy("linux", "0.9.0");
        copy("windows", "0.17.0-a.1");
        let found = mend(&host, &[], "toolchain version", "", &[]);
        assert_found(
            &found,
            &["not offered: linux, without the bbot 0.17.0-a.1 "],
        );
    });
}

#[test]
fn names_with_blanks_and_files_that_are_no_tasks() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let spool = host.dir.path().join("a controller");
        let words = [spool.to_str().unwrap()];
        let found = mend(&host, &words, "controller", "", &[]);
        assert_found(&found, &["No such file or directory"]);
        fs::write(spool.join("tasks/lib foo"), "").unwrap();
        let found = mend(&host, &words, "controller", "", &[]);
        assert_found(&found, &["is no task"]);
        assert!(spool.join("tasks/lib foo.manifest").exists());
    });
}

#[test]
fn a_volume_whose_file_system_is_not_mounted() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        copy_etc(&host);
        let root = host.dir.path().join("my machines");
        let volume = root.join("default");
        fs::create_dir_all(&volume).unwrap();
        let image = host.dir.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(128 << 20)
            .unwrap();
        run(&format!("mkfs.btrfs -q {}", image.display()));
        let point = volume.display().to_string().replace(' ', "\\040");
        let line = format!("{} {point} btrfs loop 0 0\n", image.display());
        fs::write("/etc/fstab", line).unwrap();
        let option = format!("--machines={}", root.display());
        let found = mend(&host, &[&option], "machines directory", "mount", &[]);
        assert_found(&found, &["is not on btrfs"]);

        // Without a line for it, the image beside the directory.
        let unmounted = Command::new("umount").arg(&volume).status().unwrap();
        assert!(unmounted.success());
        fs::write("/etc/fstab", "").unwrap();
        let image_of_root = format!("{}.img", root.display());
        fs::rename(&image, image_of_root).unwrap();
        let found = mend(&host, &[&option], "machines directory", "the image", &[]);
        assert_found(&found, &["is not on btrfs"]);
    });
}

#[test]
fn directories_on_read_only_file_systems() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["findmnt"]) {
            return;
        }
        for (option, subject) in [("--tftp", "tftp directory"), ("--state", "state directory")] {
            let dir = host.dir.path().join(format!("read-only{option}"));
            fs::create_dir(&dir).unwrap();
            run(&format!("mount -t tmpfs -o ro none {}", dir.display()));
            let option = format!("{option}={}", dir.display());
            let found = mend(&host, &[&option], subject, "remount", &[]);
            assert_found(&found, &["Read-only file system"]);
        }
    });
}

#[test]
fn a_state_directory_where_nothing_can_be_created() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let values = [(
            "<dir>",
            &*host.dir.path().join("state").display().to_string(),
        )];
        let found = mend(
            &host,
            &["--state=/proc/x"],
            "state directory",
            "--state",
            &values,
        );
        assert_found(&found, &["unable to create a directory in /proc: "]);
    });
}

#[test]
fn more_processors_than_the_host_has() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let found = mend(&host, &["--cpu=1024"], "processors", "", &[]);
        assert_found(&found, &["1024 for a guest"]);
    });
}

#[test]
fn a_machine_that_cannot_start_warm() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let copy = host.machine().join("linux-default");
        fs::create_dir(&copy).unwrap();
        let template = host.machine().join("linux-default-@warm.1");
        run(&format!("btrfs -q subvolume create {}", template.display()));
        let text = ": 1\nmade: 1\nunable: State blocked by device nvme\n";
        fs::write(template.join("warm.manifest"), text).unwrap();
        let found = |words: &[&str]| {
            let all = of_status(&host.check(&[&["--warm"], words].concat()).1, "warning");
            let mut found = all.into_iter().map(|(subject, text, _)| (subject, text));
            let found = found.find(|(subject, _)| subject == "warm start");
            found.map(|(_, text)| text).unwrap_or_default()
        };
        assert_eq!(
            found(&[]),
            "linux starts cold: State blocked by device nvme"
        );

        run(&format!("btrfs -q subvolume delete {}", template.display()));
        let small = found(&["--min-free=99%"]);
        let (before, after) = (
            "linux starts cold: less than ",
            " are free (--min-free and --ram)",
        );
        assert!(
            small.starts_with(before) && small.ends_with(after),
            "{small}"
        );
    });
}

#[test]
fn states_of_failed_guests_need_evidence() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let found = |words: &[&str], grade: &str| {
            let all = of_status(&host.check(words).1, grade);
            let mut found = all
                .into_iter()
                .filter(|(subject, ..)| subject == "failed guests");
            found.next().map(|(_, found, _)| found)
        };
        let kept = found(&["--keep-state=1G"], "ok");
        assert_eq!(
            kept.as_deref(),
            Some("0 with their state, which takes 0 B of 1.0 GiB")
        );
        let none = found(&["--keep-state", "--keep-failures=0"], "warning");
        assert_eq!(
            none.as_deref(),
            Some("--keep-state keeps nothing without evidence")
        );
        assert_eq!(found(&[], "ok"), None);
    });
}
