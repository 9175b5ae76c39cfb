//! The failed guest of a task for which another one was paused.

use std::fs;
use std::process::{Command, Stdio};

use bbot_agent::json::Value;
use nix::sys::signal::Signal;

use crate::support::host::{TURN, ended};
use crate::support::site::Site;
use crate::support::{Process, eventually, isolated, status};

use super::turns::signal;

fn start(site: &Site, instance: u16, priority: u32, controller: &str) -> Process {
    let log = fs::File::create(site.path(&format!("{instance}.log"))).unwrap();
    let mut command = Command::new(Site::agent());
    command
        .args(site.arguments_of(instance, &[(priority, controller)]))
        .args(["--instance-max", "1", "--hold", "60"])
        .stdin(Stdio::null())
        .stderr(log);
    Process(command.spawn().unwrap())
}

#[test]
fn a_paused_task_goes_on_while_the_guest_of_the_higher_one_is_held() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let said = |instance: u16| fs::read_to_string(site.path(&format!("{instance}.log")));
        let has_success = |controller: &str, task: &str| {
            let result = site
                .path(controller)
                .join(format!("results/{task}.manifest"));
            let result = fs::read_to_string(result).unwrap_or_default();
            result.contains("status: success\n")
        };
        site.task_for("low", "paused", "target-config: pause=1000\n");
        let mut low = start(&site, 1, 100, "low");
        eventually("the lower task is performed", || site.has_busy_guest());
        site.task_for(
            "high",
            "failing",
            "target-config: pause=100 status=abnormal\n",
        );
        let mut high = start(&site, 2, 200, "high");
        assert_eq!(ended(&mut low, TURN), Some(0), "{:?}", said(1));
        assert!(has_success("low", "paused"), "{:?}", said(1));
        assert!(said(1).unwrap().contains("goes on after "), "{:?}", said(1));
        // It uses no processor, so that another task finds room.
        site.task_for("low", "beside", "");
        assert_eq!(ended(&mut start(&site, 3, 100, "low"), TURN), Some(0));
        assert!(has_success("low", "beside"), "{:?}", said(3));
        let phase = status(&site.path("run/default-2"));
        let phase = phase.and_then(|status| Some(status.get("phase")?.as_str()?.to_owned()));
        assert_eq!(phase.as_deref(), Some("holding"), "{:?}", said(2));
        let claim = fs::read_to_string(site.path("run/default-2/claim")).unwrap();
        let claim = Value::parse(&claim).unwrap();
        assert_eq!(claim.get("state").and_then(Value::as_str), Some("ended"));
        signal(&high, Signal::SIGTERM);
        assert_eq!(ended(&mut high, TURN), Some(0), "{:?}", said(2));
    });
}
