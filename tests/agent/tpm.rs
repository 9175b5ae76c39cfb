//! Guests with a TPM, by swtpm.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::host::{Host, TURN, finish};
use crate::support::site::Site;
use crate::support::{eventually, guest, isolated, require_programs, skip};

/// The file in which swtpm keeps what survives a reset.
const PERMANENT: &str = "tpm/tpm2-00.permall";

#[test]
fn the_memory_of_a_tpm_is_kept_by_a_bootstrap_and_dropped_by_a_build() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["swtpm"]) {
            return;
        }
        let image = match guest::image_with_large_kernel() {
            Ok(image) => image,
            Err(why) => return skip(&why),
        };
        let revision = host.revision("linux-gcc", 0);
        guest::install_image(&image, &revision, "");
        fs::create_dir(revision.join("tpm")).unwrap();
        let ran = {
            let _turn = guest::turn();
            finish(host.agent(&["--dump-machines"]), TURN)
        };
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let state = host.machine("linux-gcc/linux-gcc-default").join(PERMANENT);
        let before = fs::read(&state).unwrap();

        host.task("one", "linux-gcc", "");
        let ran = host.run(&["--once", "--warm"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let result = host.result("one").unwrap();
        assert!(result.contains("status: success"), "{result}");
        assert!(result.contains(", tpm AA\n"), "{result}");
        assert_eq!(fs::read(&state).unwrap(), before, "a build has changed it");
        assert_eq!(fs::read_dir(revision.join("tpm")).unwrap().count(), 0);
        assert_eq!(processes_in(&host.machines()), [0; 0]);

        // The memory of such a guest is not kept for others.
        let ran = host.run(&["--once", "--warm"]);
        let why = "cannot start warm: a template does not keep the state of its TPM";
        assert!(ran.err.contains(why), "{}", ran.err);
    });
}

/// The processes that work in a directory below `root`.
fn processes_in(root: &Path) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let at: PathBuf = fs::read_link(entry.path().join("cwd")).ok()?;
        at.starts_with(root).then_some(pid)
    })
    .collect()
}

#[test]
fn a_killed_agent_leaves_no_swtpm() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["swtpm"]) {
            return;
        }
        host.add("linux-gcc", "mode=silent\n");
        fs::create_dir(host.machine("linux-gcc/linux-gcc-1.0").join("tpm")).unwrap();
        let mut command = host.agent(&["--once"]);
        command.arg(host.path("controller"));
        let _turn = guest::turn();
        let mut agent = host.start(command, "log");
        let count = || processes_in(&host.machines()).len();
        eventually("QEMU and swtpm run", || count() == 2);
        agent.kill();
        eventually("both have ended", || count() == 0);
        // QEMU may be killed before its execve(2): until it is gone, it has the lock of the
        // snapshot, which the kernel frees after the working directory.
        eventually("the snapshot is removed", || {
            let ran = finish(host.agent(&["--gc"]), TURN);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            host.subvolumes("linux-gcc") == ["linux-gcc-1", "linux-gcc-1.0"]
        });
    });
}

#[test]
fn a_host_without_swtpm_says_what_to_install() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let state = site.machine().join("linux-1.0/tpm");
        fs::create_dir(&state).unwrap();
        let cause = format!(
            "unable to use machine linux: no program swtpm for its TPM ({})",
            state.display()
        );
        let remedy = "apt-get install --no-install-recommends swtpm";
        site.cannot_bootstrap(Some("/nonexistent"), &cause, remedy);

        fs::remove_dir(&state).unwrap();
        fs::write(&state, "").unwrap();
        let cause = format!(
            "unable to use machine linux: not a directory: {}",
            state.display()
        );
        site.cannot_bootstrap(None, &cause, &format!("mkdir {}", state.display()));
    });
}
