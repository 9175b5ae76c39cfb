//! One item that cannot be handled does not stop the others of its collection.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::support::host::{Ran, TURN, ended, finish, names};
use crate::support::site::Site;
use crate::support::{Process, eventually, isolated, run};

fn turn(site: &Site) -> Ran {
    let mut command = Command::new(Site::agent());
    command.args(site.arguments()).stdin(Stdio::null());
    finish(command, TURN)
}

#[test]
fn items_in_the_way_stop_no_task_and_are_reported_once() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let tasks = site.path("controller/tasks");
        let path = |name: &str| site.path("controller").join(name);
        // Sorted before the task that can be done: a long name with bad contents, a
        // mount point, a bad task with a directory where it would be moved, one whose
        // reason has a directory in its place, and one with directories where its
        // result and the former result would be.
        let long = format!("{}.manifest", "a".repeat(241));
        fs::write(tasks.join(&long), "rubbish").unwrap();
        let mount = tasks.join("b.manifest");
        fs::create_dir_all(&mount).unwrap();
        run(&format!("mount -t tmpfs none {}", mount.display()));
        fs::write(tasks.join("c.manifest"), "rubbish").unwrap();
        fs::write(tasks.join("\u{1b}.manifest"), "rubbish").unwrap();
        fs::create_dir_all(path("rejected/c.manifest")).unwrap();
        fs::write(tasks.join("d.manifest"), "rubbish").unwrap();
        fs::create_dir_all(path("rejected/d.reason")).unwrap();
        site.task("e");
        fs::create_dir_all(path("results/e.manifest/x")).unwrap();
        fs::create_dir_all(path("results/e.manifest.old/x")).unwrap();
        // The agent of this task died, and the task cannot be moved to done/.
        fs::create_dir_all(path("claimed")).unwrap();
        site.task("f");
        fs::rename(tasks.join("f.manifest"), path("claimed/f.manifest")).unwrap();
        fs::write(path("results/f.manifest"), ": 1\n").unwrap();
        fs::create_dir_all(path("done/f.manifest")).unwrap();
        // A file that nobody can read.
        let unread = tasks.join("g.manifest");
        fs::write(&unread, "").unwrap();
        let unread = unread.display();
        run(&format!("mount --bind /sys/bus/cpu/uevent {unread}"));
        site.task("z");

        let ran = turn(&site);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(site.result("z").unwrap().contains("status: success"));
        let left = [
            "unable to finish task f of ",
            "b.manifest to rejected/ (not a file): ",
            "c.manifest to rejected/ (invalid task manifest",
            "unable to claim task e of ",
            "/g.manifest: Permission denied",
            "\\u{1b}.manifest is left: its name is not UTF-8 or has control characters",
        ];
        for said in left {
            assert_eq!(ran.err.matches(said).count(), 1, "{said}: {}", ran.err);
        }
        let left = ["\u{1b}", "b", "c", "e", "g"].map(|task| format!("{task}.manifest"));
        assert_eq!(names(&tasks), left);
        let advice = format!("rejected/{long}: correct it and move it back to tasks/");
        assert!(ran.err.contains(&advice), "{}", ran.err);
        let rejected = names(&path("rejected"));
        assert!(rejected.contains(&long), "{rejected:?}");
        let reason = format!("rejected/{}.reason", "a".repeat(200));
        assert_eq!(
            fs::read_to_string(path(&reason)).unwrap(),
            "its name is longer than 200 bytes\n"
        );

        // Not again, and the next turn has nothing to write.
        let notes = site.path("state/default-1/notes");
        let before = fs::metadata(&notes).unwrap().modified().unwrap();
        for _ in 0..2 {
            let ran = turn(&site);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        }
        assert_eq!(fs::metadata(&notes).unwrap().modified().unwrap(), before);

        // A note whose cause is gone is new when the cause comes back.
        let machine = |name: &str| fs::read_to_string(tasks.join(name)).unwrap();
        let text = machine("e.manifest").replace("machine: linux", "machine: other");
        fs::write(tasks.join("e.manifest"), text).unwrap();
        let ran = turn(&site);
        let said = "e.manifest waits: machine other is not offered at present";
        assert_eq!(ran.err.matches(said).count(), 1, "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert_eq!(turn(&site).err, "");
    });
}

#[test]
fn an_agent_whose_directories_were_removed_is_to_be_started_again() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        for directory in ["run/default-1", "state/default-1"] {
            let mut command = Command::new(Site::agent());
            let words = site.arguments().into_iter().filter(|word| word != "--once");
            command.args(words).args(["--poll-interval", "1"]);
            let log = File::create(site.path("log")).unwrap();
            let mut agent = Process(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
            let status = site.path("run/default-1/status.json");
            eventually("the agent is idle", || {
                fs::read_to_string(&status).is_ok_and(|text| text.contains("\"idle\""))
            });
            fs::remove_dir_all(site.path(directory)).unwrap();
            let code = ended(&mut agent, TURN);
            let said = fs::read_to_string(site.path("log")).unwrap();
            assert_eq!(code, Some(3), "{said}");
            let why = format!(
                "error: directory {} was removed",
                site.path(directory).display()
            );
            assert!(said.contains(&why), "{said}");
        }
    });
}
