//! The worker of a machine of Debian (`debian/worker`), run as it is, with the
//! agent's TFTP server as its host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bbot_agent::manifest::{BootstrapManifest, ResultManifest, ResultStatus};

use crate::support::tftp::{Scratch, Server};
use crate::support::{TempDir, require_programs, run};

/// Name and text of each file of a package.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A guest without its kernel: the worker's disk, and a host that serves it.
struct Guest {
    disk: TempDir,
    host: Scratch,
    server: Server,
}

impl Guest {
    /// A guest whose toolchain directory has `files`, archived as x-1.0.
    fn new(files: Files) -> Option<Guest> {
        if !require_programs(&["curl", "make", "git", "iconv", "setpriv", "timeout"]) {
            return None;
        }
        let disk = TempDir::new();
        let host = Scratch::new();
        let server = Server::start(&host);
        let guest = Guest { disk, host, server };
        write_package(&guest.disk.path().join("x-1.0"), files);
        let get = guest.host.get().display().to_string();
        let from = guest.disk.path().display();
        run(&format!("tar -cf {get}/x-1.0.tar -C {from} x-1.0"));
        let sum = run(&format!("sha256sum {get}/x-1.0.tar"));
        let line = format!("{}  x-1.0.tar\n", sum.split(' ').next().unwrap());
        guest.host.file("checksums", line.as_bytes());
        Some(guest)
    }

    /// A boot: the worker from its start to its end.
    fn boot(&self) -> String {
        let tools = self.disk.path().join("bin");
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("timeout")
            .arg("300")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/guest/debian/worker"
            ))
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("BBOT_WORKER_SERVER", self.server.address.to_string())
            .env("BBOT_WORKER_STATE", self.disk.path())
            .env("BBOT_WORKER_LIMIT", "20")
            // Of the make(1) that runs the tests.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("worker:"), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A program of the guest that a test plays.
    fn tool(&self, name: &str, script: &str) {
        let path = self.disk.path().join("bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The result of a task with further lines.
    fn build(&self, more: &str) -> ResultManifest {
        let task =
            format!(": 1\nname: x\nversion: 1.0\nmachine: m\ntarget: x86_64-linux-gnu\n{more}");
        self.host.file("task.manifest", task.as_bytes());
        let _ = fs::remove_file(self.host.put().join("result.manifest"));
        self.boot();
        let text = self.host.uploaded("result.manifest").unwrap();
        ResultManifest::parse(&text, "result").unwrap()
    }
}

fn write_package(directory: &Path, files: Files) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
}

/// The result of a package after its bootstrap.
fn build(files: Files) -> Option<ResultManifest> {
    let guest = Guest::new(files)?;
    guest.boot();
    Some(guest.build(""))
}

/// Name and status of each operation.
fn operations(result: &ResultManifest) -> Vec<String> {
    let all = result.results.iter();
    all.map(|o| format!("{} {}", o.operation, o.status.word()))
        .collect()
}

/// The log of the operation at `index`.
fn log(result: &ResultManifest, index: usize) -> &str {
    &result.results[index].log
}

#[test]
fn the_first_boot_bootstraps_and_later_ones_build() {
    let makefile = "all:\n\t@echo compiled\ncheck:\n\t@echo tested\n";
    let Some(guest) = Guest::new(&[("Makefile", makefile)]) else {
        return;
    };
    assert!(guest.boot().ends_with("guest: bootstrapped\n"));
    let text = guest.host.uploaded("bootstrap.manifest").unwrap();
    let manifest = BootstrapManifest::parse(&text, "bootstrap").unwrap();
    assert_eq!(manifest.version("bbot"), Some("0.17.0"));
    assert_eq!(guest.host.names(), ["bootstrap.manifest"]);

    for _ in 0..2 {
        let result = guest.build("");
        assert_eq!((&*result.name, &*result.version), ("x", "1.0"));
        assert_eq!(result.status, ResultStatus::Success);
        assert_eq!(
            operations(&result),
            ["configure success", "update success", "test success"]
        );
        assert!(log(&result, 1).ends_with("\ncompiled"), "{result:?}");
        assert_eq!(log(&result, 2), "make check\ntested");
    }
}

#[test]
fn a_toolchain_that_differs_from_its_checksums_is_not_kept() {
    let Some(guest) = Guest::new(&[]) else { return };
    guest.host.file("x-1.0.tar", b"damaged");
    assert!(guest.boot().ends_with("guest: the toolchain is damaged\n"));
    assert!(guest.host.names().is_empty());
    assert!(!guest.disk.path().join("toolchain").exists());
}

#[test]
fn exit_status_and_output_make_the_status() {
    for (recipe, status) in [
        ("true", "success"),
        ("@echo 'x.c:1:2: warning: unused'", "warning"),
        ("@echo 'warnings: 0'", "success"),
        ("false", "error"),
        // A make that fails says so, whatever its command's status was.
        ("exit 127", "error"),
    ] {
        let makefile = format!("all:\n\t{recipe}\n");
        let Some(result) = build(&[("Makefile", &makefile)]) else {
            return;
        };
        assert_eq!(
            operations(&result)[1],
            format!("update {status}"),
            "{recipe}"
        );
        assert_eq!(result.status.word(), status, "{recipe}");
        let all = if status == "error" { 2 } else { 3 };
        assert_eq!(result.results.len(), all, "{recipe}");
    }
    for (script, status) in [
        ("exit 127", "abnormal"),
        ("exit 1", "error"),
        ("exit 124", "abort"),
        ("kill -9 $$", "abort"),
    ] {
        let Some(guest) = Guest::new(&[("meson.build", "")]) else {
            return;
        };
        guest.tool("meson", script);
        guest.boot();
        let result = guest.build("");
        assert_eq!(
            operations(&result),
            [format!("configure {status}")],
            "{script}"
        );
        assert_eq!(result.status.word(), status, "{script}");
    }
}

#[test]
fn each_build_system_has_its_commands() {
    let configure = "echo 'all:' >Makefile; echo configured";
    let all: &[(Files, [&str; 3])] = &[
        (
            &[("CMakeLists.txt", "")],
            ["cmake -S .", "cmake --build", "ctest --test-dir"],
        ),
        (
            &[("meson.build", "")],
            ["meson setup", "meson compile", "meson test"],
        ),
        (
            &[("configure.ac", "")],
            ["autoreconf -fi\n", "make -j", "no tests"],
        ),
        (
            &[("configure", configure), ("CMakeLists.txt", "")],
            [
                "sh ./configure --prefix=/usr\nconfigured",
                "make -j",
                "no tests",
            ],
        ),
    ];
    for (files, commands) in all {
        let Some(guest) = Guest::new(files) else {
            return;
        };
        for tool in ["cmake", "ctest", "meson"] {
            guest.tool(tool, ":");
        }
        guest.tool("autoreconf", &format!("echo \"{configure}\" >configure"));
        guest.boot();
        let result = guest.build("");
        assert_eq!(result.status, ResultStatus::Success, "{result:?}");
        for (index, command) in commands.iter().enumerate() {
            assert!(log(&result, index).contains(command), "{result:?}");
        }
    }
    if let Some(result) = build(&[("README", "")]) {
        assert_eq!(operations(&result), ["configure error"]);
        assert!(log(&result, 0).contains("no build system"), "{result:?}");
    }
}

#[test]
fn a_log_arrives_without_what_a_manifest_cannot_hold() {
    // The last line of each has no end.
    let makefile = "all:\n\t@cat text\n\t@printf 'a\\134\\377\\000\\r\\n\\303b\\134'\n\
                    check:\n\t@printf 'plain %%s'\n";
    let text = "\u{1b}[1;31mred\u{1b}[0m\u{7}\ndirectory\\\n\\\ngr\u{fc}n\n\ttab\n";
    let Some(result) = build(&[("Makefile", makefile), ("text", text)]) else {
        return;
    };
    let lines: Vec<&str> = log(&result, 1).lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "red",
            "directory\\",
            "\\",
            "gr\u{fc}n",
            "\ttab",
            "a\\",
            "b\\"
        ]
    );
    assert_eq!(log(&result, 2), "make check\nplain %s");
}

#[test]
fn a_task_brings_its_own_warnings() {
    let Some(guest) = Guest::new(&[("Makefile", "all:\n\t@echo 'remark 1.5: slow'\n")]) else {
        return;
    };
    guest.boot();
    let plain = guest.build("");
    assert_eq!(plain.status, ResultStatus::Success);
    let wrapped = guest.build("warning-regex: never '^remark \\\n1\\.[0-9]'\n");
    assert_eq!(wrapped.status, ResultStatus::Warning);
    let blank = guest.build("warning-regex: '^remark\\\n 1\\.' ''\n");
    assert_eq!(blank.status, ResultStatus::Warning);
    let second = guest.build("warning-regex: never\nwarning-regex: remark\n");
    assert_eq!(second.status, ResultStatus::Success);
}

#[test]
fn sources_come_from_the_repository_of_the_task() {
    let Some(guest) = Guest::new(&[]) else { return };
    fs::remove_file(guest.host.get().join("x-1.0.tar")).unwrap();
    guest.host.file("checksums", b"");
    guest.boot();
    let nowhere = guest.build("repository-url: https://pkg.example.org/1\nrepository-type: pkg\n");
    assert_eq!(operations(&nowhere), ["configure error"]);

    let repository = guest.disk.path().join("repository");
    write_package(&repository, &[("Makefile", "all:\n\t@echo tagged\n")]);
    let git = format!("git -C {}", repository.display());
    run(&format!("{git} init -q"));
    run(&format!("{git} add ."));
    let author = "-c user.name=x -c user.email=x@example.org";
    run(&format!("{git} {author} commit -q -m x"));
    let url = format!(
        "repository-url: file://{}\nrepository-type: git\n",
        repository.display()
    );
    let untagged = guest.build(&url);
    assert_eq!(operations(&untagged), ["configure abort"]);
    run(&format!("{git} tag v1.0"));
    let tagged = guest.build(&url);
    assert!(log(&tagged, 1).ends_with("\ntagged"), "{tagged:?}");
}

#[test]
fn artifacts_are_those_that_the_task_asks_for() {
    let makefile = "all:\ninstall:\n\tmkdir -p $(DESTDIR)/usr && cp Makefile $(DESTDIR)/usr/x\n";
    let Some(guest) = Guest::new(&[("Makefile", makefile)]) else {
        return;
    };
    guest.boot();
    guest.build("");
    assert!(guest.host.uploaded("upload.tar").is_none());
    let result = guest.build("package-config: bbot.bindist.archive=true\n");
    assert_eq!(result.results.len(), 5, "{result:?}");
    assert_eq!(result.status, ResultStatus::Success, "{result:?}");
    let upload = guest.host.put().join("upload.tar");
    let members = run(&format!("tar -tf {}", upload.display()));
    assert!(
        members.ends_with("bindist/archive/x-1.0-x86_64-linux-gnu.tar.xz\n"),
        "{members}"
    );
}
